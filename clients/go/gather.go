// SPDX-License-Identifier: Apache-2.0

package aetherless

const remembered = 4096 // runs that a stage with several inputs has finished

// gathering is what came of a run to a stage that has several inputs.
type gathering struct {
	request *Request
	parts   [][]byte
	places  []*taken
}

// gather keeps a part of a run, and returns the run once it has them all.
func (s *stage) gather(request *Request, place *taken) *gathering {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.inputs <= 1 {
		return &gathering{request: request, places: []*taken{place}}
	}
	run, input := s.gathered[request.ID], place.edge.input
	if run == nil {
		run = &gathering{request: request, parts: make([][]byte, s.inputs)}
	}
	if s.finished[request.ID] || input >= len(run.parts) || run.parts[input] != nil {
		place.edge.finish(place)
		return nil
	}
	s.gathered[request.ID] = run
	run.parts[input], run.places = request.Data, append(run.places, place)
	if request.Attempt > run.request.Attempt {
		run.request.Attempt = request.Attempt
	}
	if len(run.places) < len(run.parts) {
		return nil
	}
	delete(s.gathered, request.ID)
	s.remember(request.ID)
	run.request.Parts, run.request.Data = run.parts, joined(run.parts)
	return run
}

// remember counts a run as finished. Locked.
func (s *stage) remember(run uint64) {
	if s.finished[run] {
		return
	}
	s.finished[run], s.order = true, append(s.order, run)
	if len(s.order) > remembered {
		delete(s.finished, s.order[0])
		s.order = s.order[1:]
	}
}

// over drops the parts of a run that has ended.
func (s *stage) over(run uint64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.inputs > 1 {
		s.forget(run)
		s.remember(run)
	}
}

// forget drops the parts of a run. Locked.
func (s *stage) forget(run uint64) {
	if known := s.gathered[run]; known != nil {
		delete(s.gathered, run)
		for _, place := range known.places {
			place.edge.finish(place)
		}
	}
}

// giveUp forgets the parts that came through an edge, without finishing them: whoever has the region
// next is given them again. Locked.
func (s *stage) giveUp(gone *edge) {
	for id, run := range s.gathered {
		var kept []*taken
		for _, place := range run.places {
			if place.edge == gone {
				run.parts[gone.input] = nil
			} else {
				kept = append(kept, place)
			}
		}
		if run.places = kept; len(kept) == 0 {
			delete(s.gathered, id)
		}
	}
}
