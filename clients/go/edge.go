// SPDX-License-Identifier: Apache-2.0

package aetherless

import "strings"

// edge is one end of a region between two stages of a pipeline: what the one publishes, the other
// consumes, and nobody is in between.
type edge struct {
	*line
	name       string
	to         string // the stage that consumes, as "pipeline/stage"
	number     int    // of the edge's regions
	generation uint64
	input      int    // of the stage that consumes
	seen       uint64 // a record that begins before may have been handed out before
	atMostOnce bool
	taken      []*taken
	leaving    bool // asked to let go; under the stage's mutex
}

// taken is a record that was taken and is not finished.
type taken struct {
	edge  *edge
	after uint64 // the index after it
	slot  int    // of its run, at most once
	done  bool
}

// newEdge maps what came with a message; the descriptors are the edge's when it succeeds.
func newEdge(said *message, rung chan struct{}, atMostOnce bool) (*edge, error) {
	ringBytes := said.number("ring_bytes")
	line, err := newLine(said.files, ringBytes, rung)
	if err != nil {
		return nil, err
	}
	made := &edge{line: line, name: said.fields["name"], number: said.number("region"),
		generation: uint64(said.number("generation")), input: said.number("input"),
		seen: uint64(said.number("seen")), atMostOnce: atMostOnce}
	names := strings.Split(made.name, "/")
	made.to = names[0] + "/" + names[2]
	line.listen(said.files[1])
	said.files = nil
	if said.fields["role"] == "producer" {
		line.out, err = NewProducer(line.memory, ToPeer, ringBytes, line.bell)
	} else if line.in, err = NewConsumer(line.memory, ToPeer, ringBytes, line.bell); err == nil {
		err = line.in.Resume()
	}
	if err != nil {
		line.close()
	}
	return made, err
}

// take takes the next record that is a request: ErrEmpty, and the bell will ring for one.
func (e *edge) take() (request *Request, place *taken, err error) {
	for request == nil && err == nil {
		err = e.consume(func(in *Consumer) error {
			request, place, err = e.takeAny(in)
			if err == ErrEmpty {
				if err = in.Doze(); err == nil {
					request, place, err = e.takeAny(in)
				}
			}
			return err
		})
	}
	return request, place, err
}

// takeAny takes a record; what is no request is let go of, and nil.
func (e *edge) takeAny(in *Consumer) (*Request, *taken, error) {
	if e.atMostOnce && len(e.taken) == slots {
		return nil, nil, ErrEmpty
	}
	kind, payload, err := in.Take()
	if err != nil {
		return nil, nil, err
	}
	place := &taken{edge: e, after: in.own}
	request := parse(payload)
	if kind != TypeRequest {
		request = nil
	}
	e.taken = append(e.taken, place)
	switch {
	case request == nil:
		place.done = true
		if e.atMostOnce {
			in.Release(in.own)
		}
		e.release(in)
	case e.atMostOnce:
		place.slot, _ = in.claim(request.ID)
		in.Release(in.own)
	case in.own-stride(len(payload)) < e.seen:
		request.Attempt++
	}
	return request, place, nil
}

// finish lets a record go: its room, once all before it are finished too, or its run's slot.
func (e *edge) finish(place *taken) {
	e.consume(func(in *Consumer) error {
		place.done = true
		if e.atMostOnce {
			in.free(place.slot)
		}
		e.release(in)
		return nil
	})
}

// release forgets what is finished; at least once, it gives the room back.
func (e *edge) release(in *Consumer) {
	if e.atMostOnce {
		kept := e.taken[:0]
		for _, each := range e.taken {
			if !each.done {
				kept = append(kept, each)
			}
		}
		e.taken = kept
		return
	}
	index := uint64(0)
	for len(e.taken) > 0 && e.taken[0].done {
		index, e.taken = e.taken[0].after, e.taken[1:]
	}
	if index != 0 {
		in.Release(index)
	}
}

// leave says that the region may go to another consumer, and lets go of it.
func (e *edge) leave() {
	e.consume(func(in *Consumer) error { in.handOver(e.generation); return nil })
	e.close()
}
