// SPDX-License-Identifier: Apache-2.0

package aetherless

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
)

// How a call ended; docs/ipc.md has the table.
const (
	statusResult       = 0
	statusFailed       = 1
	statusMethod       = 2
	statusTooLate      = 3
	statusNotAllowed   = 4
	statusNoFunction   = 5
	statusNotDelivered = 6
	statusNoRoom       = 7
	statusPassedOn     = 8
	statusDamaged      = 9
)

const longestName = 1<<16 - 1

// ErrNoMethod is what a handler returns for a method that it does not have.
var ErrNoMethod = errors.New("no such method")

// How a call to another function fails; the text of a CallError's handler is beside it.
var (
	ErrHandlerFailed = errors.New("HANDLER_FAILED")
	ErrNotFound      = errors.New("METHOD_NOT_FOUND")
	ErrTimeout       = errors.New("INVOCATION_TIMEOUT")
	ErrNotAllowed    = errors.New("CALL_NOT_ALLOWED")
	ErrNoFunction    = errors.New("FUNCTION_NOT_FOUND")
	ErrNotDelivered  = errors.New("NOT_DELIVERED")
	errUnknown       = errors.New("INTERNAL")
)

var failures = map[uint32]error{statusFailed: ErrHandlerFailed, statusMethod: ErrNotFound,
	statusTooLate: ErrTimeout, statusNotAllowed: ErrNotAllowed, statusNoFunction: ErrNoFunction,
	statusNotDelivered: ErrNotDelivered, statusNoRoom: ErrFull}

// CallError says why a call to another function has no result; errors.Is knows its Reason.
type CallError struct {
	Function string
	Reason   error // one of the above, ErrFull, ErrPeerGone or ErrTooLarge
	Message  string
}

func (e *CallError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("%s: calling %s: %s", e.Reason, e.Function, e.Message), ": ")
}

// Unwrap returns the reason.
func (e *CallError) Unwrap() error { return e.Reason }

// reply is what comes back for a call.
type reply struct {
	status uint32
	data   []byte
}

// calls are this process's, over all attachments: an id is never used twice.
type calls struct {
	mutex   sync.Mutex
	last    uint64
	waiting map[uint64]chan<- reply
}

var ours = calls{waiting: map[uint64]chan<- reply{}}

func (c *calls) begin() (uint64, <-chan reply) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.last++
	answered := make(chan reply, 1)
	c.waiting[c.last] = answered
	return c.last, answered
}

func (c *calls) end(id uint64) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.waiting, id)
}

// answer gives a response's record to whoever waits for it.
func (c *calls) answer(payload []byte) {
	if len(payload) < responseHead {
		return
	}
	id := binary.LittleEndian.Uint64(payload)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if waiting := c.waiting[id]; waiting != nil {
		delete(c.waiting, id)
		waiting <- reply{binary.LittleEndian.Uint32(payload[8:]), payload[responseHead:]}
	}
}

// Call calls another function, by its name or as "function/method", through the channel that Serve
// is attached to, and returns its answer or a *CallError. The context's deadline is the call's;
// without one, it is waited for as long as the attachment lasts.
func Call(ctx context.Context, function string, data []byte) ([]byte, error) {
	return callTraced(ctx, function, data, "")
}

// Call is Call of this package within the request's deadline, and part of its trace.
func (r *Request) Call(function string, data []byte) ([]byte, error) {
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if !r.Deadline.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, r.Deadline)
	}
	defer cancel()
	return callTraced(ctx, function, data, r.Trace)
}

func callTraced(ctx context.Context, function string, data []byte, trace string) ([]byte, error) {
	if len(function) > longestName {
		return nil, &CallError{Function: function[:longestName], Reason: ErrTooLarge}
	}
	channel, err := current.await(ctx)
	if err != nil {
		return nil, &CallError{Function: function, Reason: err}
	}
	id, answered := ours.begin()
	defer ours.end(id)
	until, _ := ctx.Deadline()
	called := Request{ID: id, Deadline: until, Attempt: 1, Trace: trace, Method: function, Data: data}
	if err := channel.Publish(called.record(), TypeCall, until); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = ErrTimeout
		}
		return nil, &CallError{Function: function, Reason: err}
	}
	select {
	case got := <-answered:
		return got.result(function)
	case <-ctx.Done():
		return nil, &CallError{Function: function, Reason: reasonOf(ctx)}
	case <-channel.ended:
		return nil, &CallError{Function: function, Reason: ErrPeerGone}
	}
}

// reasonOf says why a context has ended.
func reasonOf(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	return ErrTimeout
}

func (r reply) result(function string) ([]byte, error) {
	if r.status == statusResult {
		return r.data, nil
	}
	reason := failures[r.status]
	if reason == nil {
		reason = errUnknown
	}
	return nil, &CallError{Function: function, Reason: reason, Message: string(r.data)}
}

// attached is the channel that this process serves, for whoever calls through it.
type attached struct {
	mutex   sync.Mutex
	channel *Channel
	changed chan struct{} // closed when there is another
}

var current = attached{changed: make(chan struct{})}

func (a *attached) set(channel *Channel) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	a.channel = channel
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *attached) get() (*Channel, <-chan struct{}) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.channel, a.changed
}

// await returns the channel once there is one.
func (a *attached) await(ctx context.Context) (*Channel, error) {
	for {
		channel, changed := a.get()
		if channel != nil {
			return channel, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, reasonOf(ctx)
		}
	}
}
