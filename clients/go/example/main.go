// SPDX-License-Identifier: Apache-2.0

// A function without an HTTP server: it makes text large, or has another function do that.
package main

import (
	"bytes"
	"errors"
	"log"

	aetherless "aetherless.example/client"
)

func handle(request *aetherless.Request) ([]byte, error) {
	switch request.Method {
	case "":
		return bytes.ToUpper(request.Data), nil
	case "via": // "NAME text": may_call has to name it
		words := bytes.SplitN(request.Data, []byte(" "), 2)
		if len(words) < 2 {
			return nil, errors.New("say a function's name and a text")
		}
		return request.Call(string(words[0]), words[1])
	}
	return nil, aetherless.ErrNoMethod
}

func main() {
	log.Fatal(aetherless.ServeRequests("", handle))
}
