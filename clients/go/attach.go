// SPDX-License-Identifier: Apache-2.0

package aetherless

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	environment    = "AETHER_CHANNEL"
	longestMessage = 1024
	answerSeconds  = 5
	retry          = time.Millisecond
	retryAttached  = 50 * time.Millisecond
)

// What attaching refuses, beside the kernel's errors.
var (
	ErrNoChannel = errors.New("CHANNEL_NOT_FOUND: " + environment + " is not set; declare the function with ipc: true")
	ErrPeerGone  = errors.New("PEER_GONE")
)

// RefusedError is the service's word for why it did not hand the channel out: PEER_NOT_ALLOWED,
// CHANNEL_ATTACHED or CHANNEL_CLOSED.
type RefusedError string

func (e RefusedError) Error() string { return string(e) }

// message is what the service says on the side socket: a word, fields, descriptors.
type message struct {
	word   string
	fields map[string]string
	files  []int
}

// number returns a field's number; 0 when it has none.
func (m *message) number(field string) int {
	value, _ := strconv.ParseUint(m.fields[field], 10, 63)
	return int(value)
}

// drop closes the descriptors.
func (m *message) drop() {
	for _, file := range m.files {
		syscall.Close(file)
	}
	m.files = nil
}

// Channel is one attachment. Any goroutine may use it, but only one at a time receives.
type Channel struct {
	Generation uint64
	*line
	control  *os.File
	raw      syscall.RawConn
	hearing  sync.Mutex     // one message after another
	heard    func(*message) // what comes later on the side socket; owns the descriptors
	listener sync.WaitGroup
}

// Attach attaches once. The path "" is what AETHER_CHANNEL names.
func Attach(path string) (*Channel, error) { return attach(path, (*message).drop) }

func attach(path string, heard func(*message)) (*Channel, error) {
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
		return nil, err
	}
	channel.heard = heard
	return channel, channel.listenControl(control)
}

func connect(path string) (int, error) {
	kind := syscall.SOCK_SEQPACKET | syscall.SOCK_CLOEXEC
	control, err := syscall.Socket(syscall.AF_UNIX, kind, 0)
	if err != nil {
		return -1, err
	}
	limit := syscall.Timeval{Sec: answerSeconds}
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
	said, err := hear(control, 0)
	if err != nil {
		return nil, err
	}
	channel, err := mapped(said)
	if err != nil {
		said.drop()
	}
	return channel, err
}

// hear receives one message; ECONNRESET is the service's end.
func hear(control, flags int) (*message, error) {
	said, ancillary := make([]byte, longestMessage), make([]byte, syscall.CmsgSpace(4*descriptors))
	length, rights, err := 0, 0, error(syscall.EINTR)
	for err == syscall.EINTR { // the runtime's own signals end a receive that has a timeout
		length, rights, _, _, err = syscall.Recvmsg(control, said, ancillary, syscall.MSG_CMSG_CLOEXEC|flags)
	}
	if err != nil {
		return nil, err
	}
	if length == 0 {
		return nil, syscall.ECONNRESET
	}
	words := strings.Fields(string(said[:length]))
	heard := &message{word: append(words, "")[0], fields: map[string]string{}}
	for _, word := range words {
		if at := strings.IndexByte(word, '='); at >= 0 {
			heard.fields[word[:at]] = word[at+1:]
		}
	}
	parts, err := syscall.ParseSocketControlMessage(ancillary[:rights])
	for place := range parts {
		more, _ := syscall.ParseUnixRights(&parts[place])
		heard.files = append(heard.files, more...)
	}
	return heard, err
}

// mapped checks what was handed out and maps the region.
func mapped(said *message) (*Channel, error) {
	if said.word == "error" {
		return nil, RefusedError(said.fields["reason"])
	}
	if said.word != "ok" || said.number("version") != version {
		return nil, ErrRegion
	}
	ringBytes := said.number("ring_bytes")
	line, err := newLine(said.files, ringBytes, make(chan struct{}, 1))
	if err != nil {
		return nil, err
	}
	line.in, err = NewConsumer(line.memory, ToPeer, ringBytes, line.bell)
	if err == nil {
		line.out, err = NewProducer(line.memory, FromPeer, ringBytes, line.bell)
	}
	if err != nil {
		syscall.Munmap(line.memory)
		return nil, err
	}
	line.listen(said.files[1])
	return &Channel{Generation: uint64(said.number("generation")), line: line}, nil
}

// listenControl starts the goroutine that hears the side socket until its end.
func (c *Channel) listenControl(control int) (err error) {
	syscall.SetNonblock(control, true)
	c.control = os.NewFile(uintptr(control), "control")
	c.raw, err = c.control.SyscallConn()
	if err != nil {
		c.Close()
		return err
	}
	c.listener.Add(1)
	go func() {
		defer c.listener.Done()
		defer c.end()
		c.raw.Read(func(control uintptr) bool { return c.hearAll(int(control)) })
	}()
	return nil
}

// hearAll hears what has come on the side socket; true at its end.
func (c *Channel) hearAll(control int) bool {
	c.hearing.Lock()
	defer c.hearing.Unlock()
	for {
		said, err := hear(control, syscall.MSG_DONTWAIT)
		if err == syscall.EAGAIN {
			return false
		}
		if err != nil || said.word == "closed" {
			return true
		}
		c.heard(said)
	}
}

// catchUp hears what was said before a record that has come.
func (c *Channel) catchUp() {
	c.raw.Control(func(control uintptr) {
		if c.hearAll(int(control)) {
			c.end()
		}
	})
}

// Close lets go of the region, the wakes and the control socket.
func (c *Channel) Close() {
	c.control.Close()
	c.listener.Wait()
	c.close()
}

// Receive returns the next record and waits for it: ErrPeerGone or a *CorruptError.
func (c *Channel) Receive() (kind uint32, payload []byte, err error) { return c.receive() }

// Publish puts a record in and waits for room, for as long as it lasts or until a time that is not
// zero: ErrPeerGone, os.ErrDeadlineExceeded, ErrTooLarge or a *CorruptError.
func (c *Channel) Publish(payload []byte, kind uint32, until time.Time) error {
	return c.publish(payload, kind, until)
}
