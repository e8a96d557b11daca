// SPDX-License-Identifier: Apache-2.0

package aetherless

import (
	"errors"
	"log"
	"os"
	"sync"
	"time"
)

// stage is a place that the function has in a pipeline. Runs come to it one after another through
// its inputs, or as requests of the channel when it is the first; results go to all its outputs, or
// as answers when it is the last.
type stage struct {
	session  *session
	pipeline string
	name     string
	rung     chan struct{} // something came: a record, an edge, the end of one

	mutex      sync.Mutex
	method     string
	number     uint32 // in the pipeline, from 0
	inputs     int
	outputs    int
	atMostOnce bool
	dropped    bool
	in         []*edge
	out        []*edge
	begun      []work        // requests of the channel, oldest first
	atWork     int           // runs
	changed    chan struct{} // closed when an output came
	gathered   map[uint64]*gathering
	finished   map[uint64]bool // runs; of a stage with several inputs
	order      []uint64        // the same, oldest first
}

// work is a run that is complete.
type work struct {
	request *Request
	places  []*taken // of its records
	isFirst bool     // it came on the channel
	done    func()
}

func newStage(session *session, pipeline, name string) *stage {
	made := &stage{session: session, pipeline: pipeline, name: name, rung: make(chan struct{}, 1),
		changed: make(chan struct{}), gathered: map[uint64]*gathering{}, finished: map[uint64]bool{}}
	go made.run()
	return made
}

// describe keeps what the service says of the stage.
func (s *stage) describe(said *message) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.method, s.number = said.fields["method"], uint32(said.number("number"))
	s.inputs, s.outputs = said.number("inputs"), said.number("outputs")
	s.atMostOnce = said.fields["delivery"] == "at-most-once"
}

// hear takes an edge, or lets one go.
func (s *stage) hear(said *message) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	defer ring(s.rung)
	edges := &s.in
	if said.fields["role"] == "producer" {
		edges = &s.out
	}
	if said.word == "edge-drop" {
		for _, each := range *edges {
			each.leaving = each.leaving ||
				each.name == said.fields["name"] && each.number == said.number("region")
		}
		s.closeOutputs()
		return
	}
	made, err := newEdge(said, s.rung, s.atMostOnce)
	if err != nil {
		s.damaged(said.fields["name"], err)
		return
	}
	*edges = append(*edges, made)
	close(s.changed)
	s.changed = make(chan struct{})
}

// dropAll lets go of all edges, once what is at work is finished.
func (s *stage) dropAll() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.dropped = true
	for _, each := range append(append([]*edge(nil), s.in...), s.out...) {
		each.leaving = true
	}
	s.closeOutputs()
	ring(s.rung)
}

// closeOutputs closes the outputs that were dropped, unless a run may still go there. Locked.
func (s *stage) closeOutputs() {
	if s.atWork > 0 {
		return
	}
	kept := s.out[:0]
	for _, each := range s.out {
		if each.leaving {
			each.close()
		} else {
			kept = append(kept, each)
		}
	}
	s.out = kept
}

// close lets go of everything at once: the attachment has ended.
func (s *stage) close() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, each := range append(s.in, s.out...) {
		each.close()
	}
	s.in, s.out = nil, nil
}

// damaged says that an edge can't be used, so that the service makes another.
func (s *stage) damaged(name string, err error) {
	log.Print("aetherless: letting go of ", name, ": ", err)
	payload := response(0, statusDamaged, 0, []byte(name))
	go func() {
		<-s.session.ready
		s.session.channel.Publish(payload, TypeResponse, time.Time{})
	}()
}

// begin keeps a request of the channel, for the first stage of a pipeline, until its turn.
func (s *stage) begin(request *Request, done func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.begun = append(s.begun, work{request: request, isFirst: true, done: done})
	ring(s.rung)
}

// run runs what comes, until the stage or the attachment ends.
func (s *stage) run() {
	<-s.session.ready
	for {
		next, found := s.first()
		if !found {
			next, found = s.look()
		}
		if found {
			s.execute(next)
			next.done()
		} else if s.isOver() {
			s.open() // what was dropped since
			return
		} else if s.session.channel.await(s.rung, time.Time{}) != nil {
			return
		}
	}
}

// first returns the oldest request of the channel.
func (s *stage) first() (next work, found bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.begun) > 0 {
		next, s.begun, found = s.begun[0], s.begun[1:], true
	}
	return next, found
}

func (s *stage) isOver() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.dropped
}

// execute runs the handler, passes its result on, and lets the records go.
func (s *stage) execute(next work) {
	s.mutex.Lock()
	s.atWork++
	method, number, outputs := s.method, s.number+1, s.outputs
	s.mutex.Unlock()
	defer s.executed()
	request, handled := next.request, *next.request
	handled.Pipeline, handled.Stage, handled.Method = s.pipeline, s.name, method
	status, data := outcome(&handled, s.session.handler)
	if status == statusResult && outputs > 0 {
		status, data = s.pass(request, data, outputs)
	}
	var err error
	if status != statusPassedOn || next.isFirst {
		err = s.session.publish(request, status, data, number)
	}
	for _, place := range next.places {
		if err == nil {
			place.edge.finish(place)
		}
	}
}

func (s *stage) executed() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.atWork--
	s.closeOutputs()
}

// pass publishes a result to every output; its status is PASSED_ON, or how that failed.
func (s *stage) pass(request *Request, data []byte, outputs int) (uint32, []byte) {
	edges := s.awaitOutputs(outputs, request.Deadline)
	if edges == nil {
		return statusTooLate, nil
	}
	for _, each := range edges {
		next := *request
		next.Method, next.Data = each.to, data
		if status, data := s.publish(each, &next); status != statusPassedOn {
			return status, data
		}
	}
	return statusPassedOn, nil
}

// publish puts a record into an output, or into the region that takes its place.
func (s *stage) publish(output *edge, next *Request) (uint32, []byte) {
	for output != nil {
		err := output.publish(next.record(), TypeRequest, next.Deadline)
		var damage *CorruptError
		switch {
		case err == nil:
			return statusPassedOn, nil
		case errors.Is(err, ErrTooLarge):
			return statusFailed, doesNotFit(next.Data)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return statusTooLate, nil
		case errors.As(err, &damage):
			s.damaged(output.name, err)
		}
		s.remove(output)
		output = s.awaitOutput(next.Method, next.Deadline)
	}
	return statusTooLate, nil
}

// awaitOutput returns the newest region of one output; nil when it does not come in time.
func (s *stage) awaitOutput(to string, until time.Time) *edge {
	for {
		edges, changed := s.newest()
		for _, each := range edges {
			if each.to == to {
				return each
			}
		}
		if s.session.channel.await(changed, until) != nil {
			return nil
		}
	}
}

// awaitOutputs returns the newest region of each output; nil when one does not come in time.
func (s *stage) awaitOutputs(outputs int, until time.Time) []*edge {
	for {
		edges, changed := s.newest()
		if len(edges) >= outputs {
			return edges
		}
		if s.session.channel.await(changed, until) != nil {
			return nil
		}
	}
}

func (s *stage) newest() ([]*edge, <-chan struct{}) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	newest := map[string]*edge{}
	for _, each := range s.out {
		if before := newest[each.to]; before == nil || each.number > before.number {
			newest[each.to] = each
		}
	}
	edges := make([]*edge, 0, len(newest))
	for _, each := range newest {
		edges = append(edges, each)
	}
	return edges, s.changed
}

// remove lets go of an edge that is of no more use.
func (s *stage) remove(useless *edge) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.in, s.out = without(s.in, useless), without(s.out, useless)
	s.giveUp(useless)
	useless.close()
}

func without(edges []*edge, gone *edge) (kept []*edge) {
	for _, each := range edges {
		if each != gone {
			kept = append(kept, each)
		}
	}
	return kept
}

// look takes what has come until a run is complete; false when there is none now, and the bell will
// ring for one.
func (s *stage) look() (work, bool) {
	for _, each := range s.open() {
		for {
			request, place, err := each.take()
			var damage *CorruptError
			if errors.As(err, &damage) {
				s.remove(each)
				s.damaged(each.name, err)
			}
			if err != nil {
				break
			}
			run := s.gather(request, place)
			if run != nil && s.session.enter() {
				return work{run.request, run.places, false, s.session.handlers.Done}, true
			}
		}
	}
	return work{}, false
}

// open returns the inputs, the one that was looked at first last; those that were dropped are let go
// of, and so are parts whose time is over.
func (s *stage) open() []*edge {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var kept []*edge
	for _, each := range s.in {
		if each.leaving {
			s.giveUp(each)
			each.leave()
		} else {
			kept = append(kept, each)
		}
	}
	if len(kept) > 1 {
		kept = append(kept[1:], kept[0])
	}
	s.in = kept
	for id, run := range s.gathered {
		if !run.request.Deadline.IsZero() && time.Now().After(run.request.Deadline) {
			s.forget(id)
		}
	}
	return append([]*edge(nil), kept...)
}
