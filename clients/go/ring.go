// SPDX-License-Identifier: Apache-2.0

package aetherless

import (
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// Where things lie in a region and in a record: docs/ipc.md.
const (
	page           = 4096
	version        = 1
	smallestRing   = 64 << 10
	largestRing    = 1 << 30
	largestPayload = 16 << 20
	recordHead     = 16
	alignment      = 64
	skip           = 0xFFFFFFFF
	closedAt       = 12
	producedAt     = 0
	consumedAt     = 128
	producerSleeps = 256
	consumerSleeps = 384
	slotsAt        = 512
	slots          = 256
	handedOverAt   = 2560
	awake          = 0
	onFutex        = 1
	onDoorbell     = 2
	futexWake      = 1
	leadingPages   = 3 // the header and two control blocks
)

// Direction is one of the two rings of a region.
type Direction int

// The two rings.
const (
	ToPeer   Direction = 0
	FromPeer Direction = 1
)

// What a record is, in its type word. Others are the users' own.
const (
	TypeUser     uint32 = 0
	TypeRequest  uint32 = 1
	TypeResponse uint32 = 2
	TypePing     uint32 = 3
	TypePong     uint32 = 4
	TypeShutdown uint32 = 5
	TypeCall     uint32 = 6
	TypeOver     uint32 = 7
)

// What a ring refuses.
var (
	ErrFull     = errors.New("RING_FULL")
	ErrEmpty    = errors.New("RING_EMPTY")
	ErrTooLarge = errors.New("PAYLOAD_TOO_LARGE")
	ErrRegion   = errors.New("REGION_INVALID")
)

// CorruptError says what of the other side's writing can't be; the ring is of no more use.
type CorruptError struct {
	Fault    string // index, length, sequence or checksum
	Expected uint64 // or its bound
	Actual   uint64
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("RING_CORRUPT: %s: expected %#x, is %#x", e.Fault, e.Expected, e.Actual)
}

// end is what both ends of a ring have. An end is one goroutine's at a time.
type end struct {
	control  []byte
	data     []byte
	closed   *uint32
	size     uint64
	own      uint64 // this side's index
	other    uint64 // the other side's, as last checked
	sequence uint32
	damage   *CorruptError
	bell     int // the other side's eventfd or pipe, or -1
}

// newEnd returns an end over a mapped region whose rings have so many bytes.
func newEnd(memory []byte, direction Direction, ringBytes int, bell int) (end, error) {
	if ringBytes < smallestRing || ringBytes > largestRing || ringBytes&(ringBytes-1) != 0 ||
		len(memory) != leadingPages*page+2*ringBytes {
		return end{}, ErrRegion
	}
	data := leadingPages*page + int(direction)*ringBytes
	return end{
		control: memory[page*(1+int(direction)):][:page],
		data:    memory[data:][:ringBytes:ringBytes],
		closed:  (*uint32)(unsafe.Pointer(&memory[closedAt])),
		size:    uint64(ringBytes),
		bell:    bell,
	}, nil
}

// SAFETY: the offsets are within a control block, which is aligned to a page.
func (e *end) index(at int) *uint64 { return (*uint64)(unsafe.Pointer(&e.control[at])) }
func (e *end) bed(at int) *uint32   { return (*uint32)(unsafe.Pointer(&e.control[at])) }

func (e *end) damaged(fault string, expected, actual uint64) error {
	e.damage = &CorruptError{fault, expected, actual}
	return e.damage
}

func (e *end) isClosed() bool { return atomic.LoadUint32(e.closed) != 0 }

// show stores this side's index and wakes the other. Go's atomics are sequentially consistent, so
// the store is the fence before the look at how the other side sleeps.
func (e *end) show(index, bed int) {
	atomic.StoreUint64(e.index(index), e.own)
	e.rouse(bed)
}

// rouse wakes the other side, after an index was stored.
func (e *end) rouse(bed int) {
	if atomic.LoadUint32(e.bed(bed)) != awake {
		e.wake(atomic.SwapUint32(e.bed(bed), awake), e.bed(bed))
	}
}

// wake wakes the other side as it asked for. A bell that can't be written is full: whoever sleeps on
// it has been rung for.
func (e *end) wake(how uint32, bed *uint32) {
	switch {
	case how == onFutex:
		syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(bed)), futexWake, 1, 0, 0, 0)
	case how == onDoorbell && e.bell >= 0:
		one := uint64(1)
		syscall.Write(e.bell, (*[8]byte)(unsafe.Pointer(&one))[:])
	}
}

func stride(length int) uint64 {
	return uint64(recordHead+length+alignment-1) &^ (alignment - 1)
}

func (e *end) largest() int {
	if e.size/4 < largestPayload {
		return int(e.size / 4)
	}
	return largestPayload
}

func (e *end) left() uint64 { return e.size - e.own&(e.size-1) }

// head is a record's words: checksum, length, type, sequence.
type head [recordHead / 4]uint32

// at returns the words of the record at a place; records are aligned and end before the data does.
func (e *end) at(place uint64) *head { return (*head)(unsafe.Pointer(&e.data[place])) }

// checksum covers the words but the first, as they lie in memory, and the payload.
func (h *head) checksum(payload []byte) uint32 {
	words := (*[recordHead]byte)(unsafe.Pointer(h))[4:]
	return crc32.Update(crc32.ChecksumIEEE(words), crc32.IEEETable, payload)
}

// Producer is the end that puts records in.
type Producer struct{ end }

// NewProducer returns the producer of a ring; bell is the consumer's eventfd or pipe, or -1.
func NewProducer(memory []byte, direction Direction, ringBytes, bell int) (*Producer, error) {
	made, err := newEnd(memory, direction, ringBytes, bell)
	return &Producer{made}, err
}

// Publish puts a record in: ErrFull, ErrTooLarge or a *CorruptError.
func (p *Producer) Publish(payload []byte, kind uint32) error {
	if err := p.room(len(payload)); err != nil {
		return err
	}
	if skipped := p.skipped(len(payload)); skipped != 0 {
		p.writeHead(skip, 0, nil)
		p.own += skipped
	}
	place := p.own & (p.size - 1)
	copy(p.data[place+recordHead:], payload)
	p.writeHead(uint32(len(payload)), kind, payload)
	p.own += stride(len(payload))
	p.show(producedAt, consumerSleeps)
	return nil
}

// Doze asks for the doorbell once there is room for a payload; ErrFull: there is none, sleep.
func (p *Producer) Doze(length int) error {
	return p.doze(producerSleeps, func() error { return p.room(length) })
}

func (p *Producer) room(length int) error {
	if p.damage != nil {
		return p.damage
	}
	if length == 0 || length > p.largest() {
		return ErrTooLarge
	}
	if p.fits(length) {
		return nil
	}
	consumed := atomic.LoadUint64(p.index(consumedAt))
	if consumed-p.other > p.own-p.other || consumed%alignment != 0 {
		return p.damaged("index", p.other, consumed)
	}
	if p.other = consumed; p.fits(length) {
		return nil
	}
	return ErrFull
}

func (p *Producer) fits(length int) bool {
	return p.own+stride(length)+p.skipped(length)-p.other <= p.size
}

func (p *Producer) skipped(length int) uint64 {
	if left := p.left(); stride(length) > left {
		return left
	}
	return 0
}

func (p *Producer) writeHead(length, kind uint32, payload []byte) {
	written := head{0, length, kind, p.sequence}
	written[0] = written.checksum(payload)
	*p.at(p.own & (p.size - 1)) = written
	p.sequence++
}

// Consumer is the end that takes records out.
type Consumer struct {
	end
	released uint64 // the index that the producer was told
	adopts   bool   // the next record's sequence is taken as it is
}

// NewConsumer returns the consumer of a ring; bell is the producer's eventfd or pipe, or -1.
func NewConsumer(memory []byte, direction Direction, ringBytes, bell int) (*Consumer, error) {
	made, err := newEnd(memory, direction, ringBytes, bell)
	return &Consumer{end: made}, err
}

// Resume goes on where the consumer before stopped: a *CorruptError when that can't be.
func (c *Consumer) Resume() error {
	consumed, produced := atomic.LoadUint64(c.index(consumedAt)), atomic.LoadUint64(c.index(producedAt))
	if consumed%alignment != 0 || produced%alignment != 0 || produced-consumed > c.size {
		return c.damaged("index", produced, consumed)
	}
	c.own, c.other, c.released, c.adopts = consumed, consumed, consumed, true
	atomic.StoreUint32(c.bed(consumerSleeps), awake)
	return nil
}

// Receive takes a record out, its payload copied, then checked: ErrEmpty or a *CorruptError.
func (c *Consumer) Receive() (kind uint32, payload []byte, err error) {
	kind, payload, err = c.Take()
	if err == nil {
		c.Release(c.own)
	}
	return kind, payload, err
}

// Release gives the room of all records before an index back to the producer.
func (c *Consumer) Release(index uint64) {
	c.released = index
	atomic.StoreUint64(c.index(consumedAt), index)
	c.rouse(producerSleeps)
}

// Took returns the index after the last record that was taken.
func (c *Consumer) Took() uint64 { return c.own }

// claim notes a run as being at work here, for whoever looks after this process died; false when
// all slots are in use. Only this side writes them.
func (c *Consumer) claim(run uint64) (slot int, claimed bool) {
	for slot = 0; slot < slots; slot++ {
		if at := c.index(slotsAt + 8*slot); atomic.LoadUint64(at) == 0 {
			atomic.StoreUint64(at, run)
			return slot, true
		}
	}
	return 0, false
}

// free empties a slot.
func (c *Consumer) free(slot int) { atomic.StoreUint64(c.index(slotsAt+8*slot), 0) }

// handOver says that this consumer takes no more and has finished what it took.
func (c *Consumer) handOver(generation uint64) { atomic.StoreUint64(c.index(handedOverAt), generation) }

// Take is Receive, but the record's room stays the consumer's until Release.
func (c *Consumer) Take() (kind uint32, payload []byte, err error) {
	for {
		if err := c.ready(); err != nil {
			return 0, nil, err
		}
		read, place := c.readHead(), c.own&(c.size-1)+recordHead
		step, err := c.checkHead(read)
		if err != nil {
			return 0, nil, err
		}
		if read[1] != skip {
			payload = append([]byte(nil), c.data[place:place+uint64(read[1])]...)
		}
		if actual := read.checksum(payload); actual != read[0] {
			return 0, nil, c.damaged("checksum", uint64(read[0]), uint64(actual))
		}
		c.own += step
		c.sequence++
		if read[1] != skip {
			return read[2], payload, nil
		}
	}
}

// readHead reads the next record's words, each once.
func (c *Consumer) readHead() (read head) {
	there := c.at(c.own & (c.size - 1))
	for place := range read {
		read[place] = atomic.LoadUint32(&there[place])
	}
	return read
}

// Doze asks for the doorbell at the next record; ErrEmpty: there is none, sleep.
func (c *Consumer) Doze() error { return c.doze(consumerSleeps, c.ready) }

func (c *Consumer) ready() error {
	if c.damage != nil {
		return c.damage
	}
	if c.own != c.other {
		return nil
	}
	produced := atomic.LoadUint64(c.index(producedAt))
	if produced-c.own > c.size-(c.own-c.released) || produced%alignment != 0 {
		return c.damaged("index", c.other, produced)
	}
	if c.other = produced; c.own == produced {
		return ErrEmpty
	}
	return nil
}

// checkHead returns the bytes to the next record.
func (c *Consumer) checkHead(read head) (uint64, error) {
	there, step, length := c.other-c.own, c.left(), uint64(read[1])
	if length != skip {
		step = stride(int(length))
		if length == 0 || length > uint64(c.largest()) || step > c.left() {
			return 0, c.damaged("length", uint64(c.largest()), length)
		}
	}
	if step > there {
		return 0, c.damaged("length", there, step)
	}
	if c.adopts {
		c.sequence, c.adopts = read[3], false
	}
	if read[3] != c.sequence {
		return 0, c.damaged("sequence", uint64(c.sequence), uint64(read[3]))
	}
	return step, nil
}

// doze writes that this side sleeps on its doorbell, and looks once more.
func (e *end) doze(bed int, look func() error) error {
	atomic.StoreUint32(e.bed(bed), onDoorbell)
	err := look()
	if err == nil {
		atomic.StoreUint32(e.bed(bed), awake)
	} else if (err == ErrFull || err == ErrEmpty) && e.isClosed() {
		return ErrPeerGone
	}
	return err
}
