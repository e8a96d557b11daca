// SPDX-License-Identifier: Apache-2.0

// Package aetherless answers calls that come through a function's channel in shared memory, is a
// stage of pipelines, and calls other functions.
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
	"strings"
	"sync"
	"syscall"
	"time"
)

const mostAtOnce = 256

// Handler returns the answer to a call. Its error is the caller's; handlers run at the same time.
type Handler func(*Request) ([]byte, error)

// Serve answers the calls of the channel that AETHER_CHANNEL names, whatever their method. It
// returns only what another try can't help, as ServeRequests.
func Serve(handler func(data []byte) ([]byte, error)) error {
	return ServeRequests("", func(request *Request) ([]byte, error) { return handler(request.Data) })
}

// ServeRequests answers a channel's calls and runs the stages that the function is of pipelines. It
// attaches anew whenever the service let go, and returns ErrNoChannel, ErrRegion, a RefusedError or
// an error of the kernel's.
func ServeRequests(path string, handler Handler) error {
	for {
		made := &session{handler: handler, stages: map[string]*stage{}, ready: make(chan struct{})}
		channel, err := attach(path, made.heard)
		if err == nil {
			made.serve(channel)
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
		syscall.EPIPE, syscall.EAGAIN, syscall.EINTR, RefusedError("CHANNEL_CLOSED")} {
		if errors.Is(err, passing) {
			return retry
		}
	}
	if errors.Is(err, RefusedError("CHANNEL_ATTACHED")) {
		return retryAttached
	}
	return 0
}

// session is what lasts as long as one attachment.
type session struct {
	handler  Handler
	channel  *Channel
	ready    chan struct{}  // closed when there is a channel
	handlers sync.WaitGroup // requests and runs that are being answered

	mutex    sync.Mutex
	stages   map[string]*stage // by "pipeline/stage"
	stopping bool
}

// serve answers until the service ends the attachment, asks to let go or damages a ring. Asked to
// let go, it answers what came before; otherwise the answers of handlers that still run have nobody
// to go to, and the channel is let go of at once.
func (s *session) serve(channel *Channel) {
	s.channel = channel
	close(s.ready)
	current.set(channel)
	err := s.receiveAll()
	if err == nil {
		s.finish()
	}
	current.set(nil)
	channel.Close()
	for _, each := range s.all() {
		each.close()
	}
	var damage *CorruptError
	if errors.As(err, &damage) {
		log.Print("aetherless: attaching anew: ", err)
	}
}

// enter says whether one more run may begin; it is one of handlers then.
func (s *session) enter() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !s.stopping {
		s.handlers.Add(1)
	}
	return !s.stopping
}

// finish waits for what has begun.
func (s *session) finish() {
	s.mutex.Lock()
	s.stopping = true
	s.mutex.Unlock()
	s.handlers.Wait()
}

// receiveAll takes what comes until there is an end: nil when the service asked to let go.
func (s *session) receiveAll() error {
	places := make(chan struct{}, mostAtOnce)
	for {
		kind, payload, err := s.channel.Receive()
		switch {
		case err != nil:
			return err
		case kind == TypeShutdown:
			return nil
		case kind == TypePing:
			err = s.channel.Publish(payload, TypePong, time.Time{})
		case kind == TypeResponse:
			ours.answer(payload)
		case kind == TypeRequest:
			err = s.take(parse(payload), places)
		case kind == TypeOver && len(payload) >= 8:
			s.over(binary.LittleEndian.Uint64(payload))
		}
		if err != nil && !errors.Is(err, ErrTooLarge) {
			return err
		}
	}
}

// take begins to answer a request, once there is a place for it.
func (s *session) take(request *Request, places chan struct{}) error {
	if request == nil {
		return nil // malformed
	}
	select {
	case places <- struct{}{}:
	case <-s.channel.ended:
		return ErrPeerGone
	}
	s.handlers.Add(1)
	done := func() {
		s.handlers.Done()
		<-places
	}
	answer := s.answer
	if strings.Contains(request.Method, "/") {
		if stage := s.stageOf(request.Method); stage != nil {
			stage.begin(request, done)
			return nil
		}
		answer = s.refuse
	}
	go func() {
		defer done()
		answer(request)
	}()
	return nil
}

// refuse answers a request for a stage that the function is not.
func (s *session) refuse(request *Request) { s.publish(request, statusMethod, nil, 0) }

// answer runs the handler of a call and publishes its answer, if anyone still waits for it.
func (s *session) answer(request *Request) {
	status, data := outcome(request, s.handler)
	s.publish(request, status, data, 0)
}

// publish answers a request; number is the stage's, from 1, or 0.
func (s *session) publish(request *Request, status uint32, data []byte, number uint32) error {
	if room := s.channel.out.largest() - responseHead; len(data) > room {
		status, data = statusFailed, doesNotFit(data)
	}
	payload := response(request.ID, status, number, data)
	err := s.channel.Publish(payload, TypeResponse, request.Deadline)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // nobody waits for it any more
	}
	return err
}

func doesNotFit(data []byte) []byte {
	const text = "a result of %d bytes does not fit into a quarter of the ring (shm_buffer_size)"
	return []byte(fmt.Sprintf(text, len(data)))
}

// outcome returns the status and the data of an answer.
func outcome(request *Request, handler Handler) (uint32, []byte) {
	if !request.Deadline.IsZero() && !time.Now().Before(request.Deadline) {
		return statusTooLate, nil
	}
	return run(request, handler)
}

// run runs a handler; a panic is a failure.
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

// stageOf returns the stage that a request is for, by its method; nil for none. What the side socket
// said before the request came is heard first.
func (s *session) stageOf(method string) *stage {
	s.channel.catchUp()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.stages[method]
}

func (s *session) all() (stages []*stage) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, each := range s.stages {
		stages = append(stages, each)
	}
	return stages
}

// over drops what has come of a run that has ended, at stages that were said before too.
func (s *session) over(run uint64) {
	s.channel.catchUp()
	for _, each := range s.all() {
		each.over(run)
	}
}

// heard does what the side socket says of stages and edges; words that are not known are passed over.
func (s *session) heard(said *message) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	defer said.drop()
	key := said.fields["pipeline"] + "/" + said.fields["stage"]
	switch said.word {
	case "stage":
		if s.stages[key] == nil {
			s.stages[key] = newStage(s, said.fields["pipeline"], said.fields["stage"])
		}
		s.stages[key].describe(said)
	case "stage-drop":
		if dropped := s.stages[key]; dropped != nil {
			delete(s.stages, key)
			dropped.dropAll()
		}
	case "edge", "edge-drop":
		if stage := s.stages[stageOfEdge(said)]; stage != nil {
			stage.hear(said)
		}
	}
}

// stageOfEdge returns which of an edge's stages is at this end, as "pipeline/stage".
func stageOfEdge(said *message) string {
	names := strings.Split(said.fields["name"], "/")
	if len(names) != 3 {
		return ""
	}
	if said.fields["role"] == "producer" {
		return names[0] + "/" + names[1]
	}
	return names[0] + "/" + names[2]
}
