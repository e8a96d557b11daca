// SPDX-License-Identifier: Apache-2.0

// Ask HOST PORT over HTTP; print the status and the address that the socket says it talks to.
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	address := net.JoinHostPort(os.Args[1], os.Args[2])
	connection, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintf(connection, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(response.StatusCode, connection.RemoteAddr().(*net.TCPAddr).IP)
}
