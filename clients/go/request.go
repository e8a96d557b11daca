// SPDX-License-Identifier: Apache-2.0

package aetherless

import (
	"encoding/binary"
	"time"
)

const (
	requestHead  = 24
	responseHead = 16
)

// Request is one call of the function, or one run's record at one of its stages.
type Request struct {
	ID       uint64    // unique while the channel lives; a run's is the same at each stage
	Deadline time.Time // zero for none
	Attempt  uint32    // 1, or more when it was delivered before and not answered
	Trace    string    // the W3C traceparent, or nothing
	Method   string
	Data     []byte
	Parts    [][]byte // what each input of a stage that has several brought, in their order
	Pipeline string   // whose stage this is, or nothing
	Stage    string
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

// record is what parse reads.
func (r *Request) record() []byte {
	payload := make([]byte, requestHead, requestHead+len(r.Trace)+len(r.Method)+len(r.Data))
	binary.LittleEndian.PutUint64(payload, r.ID)
	if !r.Deadline.IsZero() {
		binary.LittleEndian.PutUint64(payload[8:], uint64(r.Deadline.UnixNano()))
	}
	binary.LittleEndian.PutUint32(payload[16:], r.Attempt)
	binary.LittleEndian.PutUint16(payload[20:], uint16(len(r.Trace)))
	binary.LittleEndian.PutUint16(payload[22:], uint16(len(r.Method)))
	payload = append(append(payload, r.Trace...), r.Method...)
	return append(payload, r.Data...)
}

// response is an answer's record; number is the stage's, from 1, or 0.
func response(id uint64, status, number uint32, data []byte) []byte {
	payload := make([]byte, responseHead, responseHead+len(data))
	binary.LittleEndian.PutUint64(payload, id)
	binary.LittleEndian.PutUint32(payload[8:], status)
	binary.LittleEndian.PutUint32(payload[12:], number)
	return append(payload, data...)
}

// joined is the data of a stage that has several inputs: their number, then each one's length and
// bytes.
func joined(parts [][]byte) []byte {
	length := 4
	for _, part := range parts {
		length += 4 + len(part)
	}
	data := make([]byte, 4, length)
	binary.LittleEndian.PutUint32(data, uint32(len(parts)))
	for _, part := range parts {
		var size [4]byte
		binary.LittleEndian.PutUint32(size[:], uint32(len(part)))
		data = append(append(data, size[:]...), part...)
	}
	return data
}
