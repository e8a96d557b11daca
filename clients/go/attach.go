// SPDX-License-Identifier: Apache-2.0

package aetherless

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	environment   = "AETHER_CHANNEL"
	longestAnswer = 512
	descriptors   = 3
	getSeals      = 1034 // F_GET_SEALS
	seals         = 0x7  // F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
	longestSleep  = time.Second
	retry         = time.Millisecond
	retryAttached = 50 * time.Millisecond
)

// What attaching refuses, beside the kernel's errors.
var (
	ErrNoChannel = errors.New("CHANNEL_NOT_FOUND: " + environment + " is not set")
	ErrPeerGone  = errors.New("PEER_GONE")
)

// RefusedError is the service's word for why it did not hand the channel out: PEER_NOT_ALLOWED,
// CHANNEL_ATTACHED or CHANNEL_CLOSED.
type RefusedError string

func (e RefusedError) Error() string { return string(e) }

// Channel is one attachment. One goroutine at a time receives, and one publishes.
type Channel struct {
	Generation uint64
	in         *Consumer
	out        *Producer
	memory     []byte
	region     int
	wake       *os.File // the runtime waits on it, not a thread
	bell       int
	control    *os.File
	received   chan struct{} // rung for whoever waits for a record
	roomy      chan struct{} // rung for whoever waits for room; the wake is for both
	ended      chan struct{} // the control socket ended
	listeners  sync.WaitGroup
}

// Attach attaches once. The path "" is what AETHER_CHANNEL names.
func Attach(path string) (*Channel, error) {
	if path == "" {
		path = os.Getenv(environment)
	}
	if path == "" {
		return nil, ErrNoChannel
	}
	control, err := connect(path)
	if err != nil {
		return nil, err
	}
	channel, err := handed(control)
	if err != nil {
		syscall.Close(control)
	}
	return channel, err
}

func connect(path string) (int, error) {
	kind := syscall.SOCK_SEQPACKET | syscall.SOCK_CLOEXEC
	control, err := syscall.Socket(syscall.AF_UNIX, kind, 0)
	if err != nil {
		return -1, err
	}
	limit := syscall.Timeval{Sec: 5}
	err = syscall.SetsockoptTimeval(control, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit)
	if err == nil {
		err = syscall.Connect(control, &syscall.SockaddrUnix{Name: path})
	}
	if err != nil {
		syscall.Close(control)
	}
	return control, err
}

// handed receives the service's answer and makes a channel of what came with it.
func handed(control int) (*Channel, error) {
	said, files, err := hear(control)
	if err != nil {
		return nil, err
	}
	channel, err := mapped(said, files)
	if err != nil {
		for _, file := range files {
			syscall.Close(file)
		}
		return nil, err
	}
	channel.listen(control, files[1])
	return channel, nil
}

func hear(control int) (string, []int, error) {
	said, ancillary := make([]byte, longestAnswer), make([]byte, syscall.CmsgSpace(4*descriptors))
	length, rights, _, _, err := syscall.Recvmsg(control, said, ancillary, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return "", nil, err
	}
	if length == 0 {
		return "", nil, syscall.ECONNRESET
	}
	var files []int
	messages, err := syscall.ParseSocketControlMessage(ancillary[:rights])
	for place := range messages {
		more, _ := syscall.ParseUnixRights(&messages[place])
		files = append(files, more...)
	}
	return string(said[:length]), files, err
}

// mapped checks what was handed out and maps the region.
func mapped(said string, files []int) (*Channel, error) {
	if reason := strings.TrimPrefix(said, "error reason="); reason != said {
		return nil, RefusedError(reason)
	}
	var spoken, generation, regionBytes uint64
	var ringBytes int
	_, err := fmt.Sscanf(said, "ok version=%d generation=%d region_bytes=%d ring_bytes=%d",
		&spoken, &generation, &regionBytes, &ringBytes)
	if err != nil || spoken != version || len(files) != descriptors || !isSealed(files[0], regionBytes) {
		return nil, ErrRegion
	}
	memory, err := syscall.Mmap(files[0], 0, int(regionBytes),
		syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	channel := &Channel{Generation: generation, memory: memory, region: files[0], bell: files[2]}
	channel.in, err = NewConsumer(memory, ToPeer, ringBytes, files[2])
	if err == nil {
		channel.out, err = NewProducer(memory, FromPeer, ringBytes, files[2])
	}
	if err == nil && !isHeader(memory, ringBytes) {
		err = ErrRegion
	}
	if err != nil {
		syscall.Munmap(memory)
	}
	return channel, err
}

// isSealed says whether a region has its seals, so that it can't lose its pages, and its size.
func isSealed(region int, size uint64) bool {
	held, _, failed := syscall.Syscall(syscall.SYS_FCNTL, uintptr(region), getSeals, 0)
	var about syscall.Stat_t
	return failed == 0 && held&seals == seals && syscall.Fstat(region, &about) == nil &&
		uint64(about.Size) == size && size >= page
}

func isHeader(memory []byte, ringBytes int) bool {
	number := func(at int) uint64 { return *(*uint64)(unsafe.Pointer(&memory[at])) }
	spoken := *(*uint32)(unsafe.Pointer(&memory[8]))
	return string(memory[:8]) == "AETHRING" && spoken == version &&
		number(16) == uint64(len(memory)) && number(24) == uint64(ringBytes)
}

// listen starts the goroutines that hear the doorbell and the control socket's end.
func (c *Channel) listen(control, wake int) {
	syscall.SetNonblock(control, true)
	syscall.SetNonblock(wake, true)
	c.control, c.wake = os.NewFile(uintptr(control), "control"), os.NewFile(uintptr(wake), "wake")
	c.received, c.roomy = make(chan struct{}, 1), make(chan struct{}, 1)
	c.ended = make(chan struct{})
	c.listeners.Add(2)
	go func() {
		defer c.listeners.Done()
		defer close(c.ended)
		c.control.Read(make([]byte, longestAnswer)) // "closed", or the end: either is
	}()
	go func() {
		defer c.listeners.Done()
		for number := make([]byte, 8); ; {
			if _, err := c.wake.Read(number); err != nil {
				return
			}
			ring(c.received)
			ring(c.roomy)
		}
	}()
}

func ring(rung chan<- struct{}) {
	select {
	case rung <- struct{}{}:
	default: // it is rung already
	}
}

// Close lets go of the region, the wakes and the control socket. Nobody may use the channel then.
func (c *Channel) Close() {
	c.control.Close()
	c.wake.Close()
	c.listeners.Wait()
	syscall.Munmap(c.memory)
	syscall.Close(c.region)
	syscall.Close(c.bell)
}

// Receive returns the next record and waits for it: ErrPeerGone or a *CorruptError.
func (c *Channel) Receive() (kind uint32, payload []byte, err error) {
	for {
		kind, payload, err = c.in.Receive()
		if err != ErrEmpty {
			return kind, payload, err
		}
		if err = c.await(c.received, c.in.Doze(), time.Time{}); err != nil {
			return 0, nil, err
		}
	}
}

// Publish puts a record in and waits for room, for as long as it lasts or until a time that is not
// zero: ErrPeerGone, os.ErrDeadlineExceeded, ErrTooLarge or a *CorruptError.
func (c *Channel) Publish(payload []byte, kind uint32, until time.Time) error {
	for {
		err := c.out.Publish(payload, kind)
		if err != ErrFull {
			return err
		}
		if err = c.await(c.roomy, c.out.Doze(len(payload)), until); err != nil {
			return err
		}
	}
}

// await sleeps for a while if a doze said so, until the bell, the service's end or a time.
func (c *Channel) await(rung <-chan struct{}, dozed error, until time.Time) error {
	if dozed != ErrFull && dozed != ErrEmpty {
		return dozed
	}
	limit := longestSleep
	if !until.IsZero() {
		if limit = time.Until(until); limit <= 0 {
			return os.ErrDeadlineExceeded
		}
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-rung:
	case <-timer.C:
	case <-c.ended:
		return ErrPeerGone
	}
	return nil
}
