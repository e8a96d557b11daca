// SPDX-License-Identifier: Apache-2.0

// Package aetherless answers calls that come through a function's channel in shared memory.
//
//	func main() {
//		log.Fatal(aetherless.Serve(func(data []byte) ([]byte, error) {
//			return bytes.ToUpper(data), nil
//		}))
//	}
package aetherless

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	requestHead   = 24
	responseHead  = 16
	statusResult  = 0
	statusFailed  = 1
	statusMethod  = 2
	statusTooLate = 3
	mostAtOnce    = 256
)

// ErrNoMethod is what a handler returns for a method that it does not have.
var ErrNoMethod = errors.New("no such method")

// Request is one call of the function.
type Request struct {
	ID       uint64    // unique while the channel lives
	Deadline time.Time // zero for none
	Attempt  uint32    // 1, or more when it was delivered before and not answered
	Trace    string    // the W3C traceparent, or nothing
	Method   string
	Data     []byte
}

// Handler returns the answer to a call. Its error is the caller's; handlers run at the same time.
type Handler func(*Request) ([]byte, error)

// Serve answers the calls of the channel that AETHER_CHANNEL names, whatever their method. It
// returns only what another try can't help, as ServeRequests.
func Serve(handler func(data []byte) ([]byte, error)) error {
	return ServeRequests("", func(request *Request) ([]byte, error) { return handler(request.Data) })
}

// ServeRequests answers a channel's calls and attaches anew whenever the service let go. It returns
// ErrNoChannel, ErrRegion, a RefusedError or an error of the kernel's.
func ServeRequests(path string, handler Handler) error {
	for {
		channel, err := Attach(path)
		if err == nil {
			serveAttached(channel, handler)
			continue
		}
		pause := pauseAfter(err)
		if pause == 0 {
			return err
		}
		time.Sleep(pause)
	}
}

// pauseAfter says when attaching is worth another try; zero when it never is.
func pauseAfter(err error) time.Duration {
	for _, passing := range []error{syscall.ENOENT, syscall.ECONNREFUSED, syscall.ECONNRESET,
		syscall.EPIPE, syscall.EAGAIN, RefusedError("CHANNEL_CLOSED")} {
		if errors.Is(err, passing) {
			return retry
		}
	}
	if errors.Is(err, RefusedError("CHANNEL_ATTACHED")) {
		return retryAttached
	}
	return 0
}

// answer is a record that waits to be published.
type answer struct {
	payload []byte
	kind    uint32
	until   time.Time
}

// serveAttached answers until the service ends the attachment, asks to let go or damages the ring;
// every handler has returned then, and its answer is out or has nobody to go to.
func serveAttached(channel *Channel, handler Handler) {
	defer channel.Close()
	answers, published := make(chan answer), make(chan struct{})
	go func() {
		defer close(published)
		publishAll(channel, answers)
	}()
	var handlers sync.WaitGroup
	places := make(chan struct{}, mostAtOnce)
	err := receiveAll(channel, answers, func(request *Request) {
		places <- struct{}{}
		handlers.Add(1)
		go func() {
			defer handlers.Done()
			answers <- outcome(request, handler, channel.out.largest()-responseHead)
			<-places
		}()
	})
	handlers.Wait()
	close(answers)
	<-published
	var damage *CorruptError
	if errors.As(err, &damage) {
		log.Print("aetherless: attaching anew: ", err)
	}
}

// publishAll publishes answers until there are no more; once that fails, they are dropped.
func publishAll(channel *Channel, answers <-chan answer) {
	var err error
	for each := range answers {
		if err == nil {
			err = channel.Publish(each.payload, each.kind, each.until)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil // nobody waits for it any more
		}
	}
}

// receiveAll hands requests over until there is an end.
func receiveAll(channel *Channel, answers chan<- answer, take func(*Request)) error {
	for {
		kind, payload, err := channel.Receive()
		if err != nil || kind == TypeShutdown {
			return err
		}
		if kind == TypePing {
			answers <- answer{payload, TypePong, time.Time{}}
		} else if request := parse(payload); kind == TypeRequest && request != nil {
			take(request)
		}
	}
}

// parse reads a request's record; nil when it is malformed.
func parse(payload []byte) *Request {
	if len(payload) < requestHead {
		return nil
	}
	trace := requestHead + int(binary.LittleEndian.Uint16(payload[20:]))
	method := trace + int(binary.LittleEndian.Uint16(payload[22:]))
	if method > len(payload) {
		return nil
	}
	request := &Request{
		ID:      binary.LittleEndian.Uint64(payload),
		Attempt: binary.LittleEndian.Uint32(payload[16:]),
		Trace:   string(payload[requestHead:trace]),
		Method:  string(payload[trace:method]),
		Data:    payload[method:],
	}
	if nanoseconds := binary.LittleEndian.Uint64(payload[8:]); nanoseconds != 0 {
		request.Deadline = time.Unix(0, int64(nanoseconds))
	}
	return request
}

// outcome runs a handler and makes its answer's record.
func outcome(request *Request, handler Handler, room int) answer {
	status, data := uint32(statusTooLate), []byte(nil)
	if request.Deadline.IsZero() || time.Now().Before(request.Deadline) {
		status, data = run(request, handler)
	}
	if len(data) > room {
		status, data = statusFailed, []byte(fmt.Sprintf("a result of %d bytes does not fit", len(data)))
	}
	payload := make([]byte, responseHead, responseHead+len(data))
	binary.LittleEndian.PutUint64(payload, request.ID)
	binary.LittleEndian.PutUint32(payload[8:], status)
	return answer{append(payload, data...), TypeResponse, request.Deadline}
}

// run returns the status and the data of an answer; a panic is a failure.
func run(request *Request, handler Handler) (status uint32, data []byte) {
	defer func() {
		if panicked := recover(); panicked != nil {
			log.Print("aetherless: the handler panicked: ", panicked)
			status, data = statusFailed, []byte(fmt.Sprint("panic: ", panicked))
		}
	}()
	data, err := handler(request)
	if errors.Is(err, ErrNoMethod) {
		return statusMethod, nil
	}
	if err != nil {
		return statusFailed, []byte(err.Error())
	}
	return statusResult, data
}
