// SPDX-License-Identifier: Apache-2.0

// The Go client as the tests drive it; peer.py says what each command does.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	aetherless "aetherless.example/client"
)

const limitMs = 60000

func pattern(length, seed int) []byte {
	made := make([]byte, length)
	for place := range made {
		made[place] = byte(seed*31 + place*7 + place>>8)
	}
	return made
}

func content(number int) []byte {
	if number%10 == 0 {
		return pattern(1+number*7919%16384, number)
	}
	return pattern(1+number*7919%600, number)
}

func handle(request *aetherless.Request) ([]byte, error) {
	switch request.Method {
	case "", "echo":
		return request.Data, nil
	case "fail":
		return nil, errors.New("told to fail")
	case "describe":
		return []byte(fmt.Sprint(request.Attempt, " ", request.Trace)), nil
	}
	return handleMore(request)
}

func handleMore(request *aetherless.Request) ([]byte, error) {
	switch request.Method {
	case "parts":
		parts := request.Parts
		if len(parts) == 0 {
			parts = [][]byte{request.Data}
		}
		head := []byte(fmt.Sprint(request.Attempt, " "))
		return append(head, bytes.Join(parts, []byte("|"))...), nil
	case "grow":
		length, err := strconv.Atoi(string(request.Data))
		return make([]byte, length), err
	case "hang":
		time.Sleep(limitMs * time.Millisecond)
		return nil, nil
	case "relay":
		return relay(request), nil
	}
	return nil, aetherless.ErrNoMethod
}

// relay calls the function that the first word names with the rest; returns what that brings.
func relay(request *aetherless.Request) []byte {
	words := bytes.SplitN(request.Data, []byte(" "), 2)
	result, err := request.Call(string(words[0]), words[1])
	var refused *aetherless.CallError
	if errors.As(err, &refused) {
		return []byte(fmt.Sprint(refused.Reason, " ", refused.Message))
	}
	return result
}

func refusal(err error) string {
	var damage *aetherless.CorruptError
	if errors.As(err, &damage) {
		return fmt.Sprint("corrupt ", damage.Fault, " ", damage.Expected, " ", damage.Actual)
	}
	names := map[error]string{aetherless.ErrFull: "full", aetherless.ErrEmpty: "empty",
		aetherless.ErrTooLarge: "too_large"}
	return names[err]
}

func script(memory []byte, ring int) {
	producer, err := aetherless.NewProducer(memory, aetherless.ToPeer, ring, -1)
	check(err)
	consumer, err := aetherless.NewConsumer(memory, aetherless.ToPeer, ring, -1)
	check(err)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var kind uint32
		var length, seed int
		if _, err := fmt.Sscanf(lines.Text(), "put %d %d %d", &kind, &length, &seed); err == nil {
			if err := producer.Publish(pattern(length, seed), kind); err != nil {
				fmt.Println(refusal(err))
			} else {
				fmt.Println("ok")
			}
		} else if kind, payload, err := consumer.Receive(); err != nil {
			fmt.Println(refusal(err))
		} else {
			fmt.Printf("record %d %x\n", kind, payload)
		}
	}
}

// sleep waits for the bell; the descriptor is non-blocking, and this program has no runtime file.
func sleep(wake int) {
	number := make([]byte, 8)
	set := syscall.FdSet{}
	set.Bits[wake/64] = 1 << (wake % 64)
	syscall.Select(wake+1, &set, nil, nil, &syscall.Timeval{Sec: limitMs / 1000})
	syscall.Read(wake, number)
}

func produce(memory []byte, wake, bell, count, ring int) {
	producer, err := aetherless.NewProducer(memory, aetherless.ToPeer, ring, bell)
	check(err)
	for number := 0; number < count; {
		payload := content(number)
		err := producer.Publish(payload, uint32(number))
		if err == aetherless.ErrFull {
			if producer.Doze(len(payload)) == aetherless.ErrFull {
				sleep(wake)
			}
			continue
		}
		check(err)
		number++
	}
}

func consume(memory []byte, wake, bell, count, ring int) {
	consumer, err := aetherless.NewConsumer(memory, aetherless.ToPeer, ring, bell)
	check(err)
	for number := 0; number < count; {
		kind, payload, err := consumer.Receive()
		if err == aetherless.ErrEmpty {
			if consumer.Doze() == aetherless.ErrEmpty {
				sleep(wake)
			}
			continue
		}
		check(err)
		if kind != uint32(number) || !bytes.Equal(payload, content(number)) {
			check(fmt.Errorf("record %d is not as it was written", number))
		}
		number++
	}
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	if os.Args[1] == "serve" {
		check(aetherless.ServeRequests("", handle))
	}
	var given []int
	for _, word := range os.Args[2:] {
		number, err := strconv.Atoi(word)
		check(err)
		given = append(given, number)
	}
	ring := given[len(given)-1]
	memory, err := syscall.Mmap(given[0], 0, 3*4096+2*ring,
		syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	check(err)
	switch os.Args[1] {
	case "script":
		script(memory, ring)
	case "produce":
		produce(memory, given[1], given[2], given[3], ring)
	case "consume":
		consume(memory, given[1], given[2], given[3], ring)
	}
}
