// SPDX-License-Identifier: Apache-2.0

package aetherless

import (
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	getSeals     = 1034 // F_GET_SEALS
	seals        = 0x7  // F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
	descriptors  = 3    // of a region: itself, this side's wake, the other side's
	longestSleep = time.Second
)

// line is a mapped region with the ends that this process has of its rings. Whoever uses it after it
// was closed is told ErrPeerGone; nobody touches memory that is not mapped any more.
type line struct {
	memory   []byte
	region   int
	bell     int
	wake     *os.File      // the runtime waits on it, not a thread
	received chan struct{} // rung for whoever waits for a record
	roomy    chan struct{} // rung for whoever waits for room; the wake is for both
	ended    chan struct{} // closed with the line
	ending   sync.Once
	listener sync.WaitGroup

	receiving sync.Mutex // in, and the memory through it
	in        *Consumer
	sending   sync.Mutex // one record after another, also while it waits for room
	writing   sync.Mutex // out, and the memory through it
	out       *Producer
	gone      bool // written with both mutexes held
}

// newLine maps a region that was handed out; the descriptors are the line's when it succeeds.
func newLine(files []int, ringBytes int, received chan struct{}) (*line, error) {
	size := leadingPages*page + 2*ringBytes
	if len(files) != descriptors || ringBytes > largestRing || !isSealed(files[0], size) {
		return nil, ErrRegion
	}
	access := syscall.PROT_READ | syscall.PROT_WRITE
	memory, err := syscall.Mmap(files[0], 0, size, access, syscall.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	if !isHeader(memory, ringBytes) {
		syscall.Munmap(memory)
		return nil, ErrRegion
	}
	return &line{memory: memory, region: files[0], bell: files[2], received: received,
		roomy: make(chan struct{}, 1), ended: make(chan struct{})}, nil
}

// isSealed says whether a region has its seals, so that it can't lose its pages, and its size.
func isSealed(region, size int) bool {
	held, _, failed := syscall.Syscall(syscall.SYS_FCNTL, uintptr(region), getSeals, 0)
	var about syscall.Stat_t
	return failed == 0 && held&seals == seals && syscall.Fstat(region, &about) == nil &&
		about.Size == int64(size)
}

func isHeader(memory []byte, ringBytes int) bool {
	number := func(at int) uint64 { return *(*uint64)(unsafe.Pointer(&memory[at])) }
	spoken := *(*uint32)(unsafe.Pointer(&memory[8]))
	return string(memory[:8]) == "AETHRING" && spoken == version &&
		number(16) == uint64(len(memory)) && number(24) == uint64(ringBytes)
}

// listen starts to hear this side's wake.
func (l *line) listen(wake int) {
	syscall.SetNonblock(wake, true)
	l.wake = os.NewFile(uintptr(wake), "wake")
	l.listener.Add(1)
	go func() {
		defer l.listener.Done()
		for number := make([]byte, 8); ; {
			if _, err := l.wake.Read(number); err != nil {
				return
			}
			ring(l.received)
			ring(l.roomy)
		}
	}()
}

func ring(rung chan<- struct{}) {
	select {
	case rung <- struct{}{}:
	default: // it is rung already
	}
}

// end tells whoever waits that the line is of no more use.
func (l *line) end() { l.ending.Do(func() { close(l.ended) }) }

// close lets go of the region and the wakes; more than once does nothing.
func (l *line) close() {
	l.end()
	l.receiving.Lock()
	defer l.receiving.Unlock()
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.gone {
		return
	}
	l.gone = true
	l.wake.Close()
	l.listener.Wait()
	syscall.Munmap(l.memory)
	syscall.Close(l.region)
	syscall.Close(l.bell)
}

// consume does something with the consumer, unless the line has gone.
func (l *line) consume(do func(*Consumer) error) error {
	l.receiving.Lock()
	defer l.receiving.Unlock()
	if l.gone {
		return ErrPeerGone
	}
	return do(l.in)
}

// receive returns the next record and waits for it: ErrPeerGone or a *CorruptError.
func (l *line) receive() (kind uint32, payload []byte, err error) {
	for {
		err = l.consume(func(in *Consumer) (err error) {
			if kind, payload, err = in.Receive(); err == ErrEmpty {
				err = in.Doze()
				if err == nil {
					kind, payload, err = in.Receive()
				}
			}
			return err
		})
		if err != ErrEmpty {
			return kind, payload, err
		}
		if err = l.await(l.received, time.Time{}); err != nil {
			return 0, nil, err
		}
	}
}

// publish puts a record in and waits for room, for as long as the line lasts or until a time that is
// not zero: ErrPeerGone, os.ErrDeadlineExceeded, ErrTooLarge or a *CorruptError.
func (l *line) publish(payload []byte, kind uint32, until time.Time) error {
	l.sending.Lock()
	defer l.sending.Unlock()
	for {
		err := l.tryPublish(payload, kind)
		if err != ErrFull {
			return err
		}
		if err = l.await(l.roomy, until); err != nil {
			return err
		}
	}
}

// tryPublish puts a record in; ErrFull: the bell will ring for room.
func (l *line) tryPublish(payload []byte, kind uint32) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.gone {
		return ErrPeerGone
	}
	err := l.out.Publish(payload, kind)
	if err == ErrFull {
		if err = l.out.Doze(len(payload)); err == nil {
			err = l.out.Publish(payload, kind)
		}
	}
	return err
}

// await sleeps for a while, until the bell, the line's end or a time.
func (l *line) await(rung <-chan struct{}, until time.Time) error {
	limit := longestSleep
	if !until.IsZero() {
		left := time.Until(until)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		if left < limit {
			limit = left
		}
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-rung:
	case <-timer.C:
	case <-l.ended:
		return ErrPeerGone
	}
	return nil
}
