// SPDX-License-Identifier: Apache-2.0
// A static HTTP server with no library: answers one request a connection and closes first,
// so that the TIME_WAIT of every connection is on the server's side.

#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

static int listen_on(uint16_t port)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int server = socket(AF_INET6, SOCK_STREAM, 0);
	int yes = 1;

	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (server < 0 || bind(server, (struct sockaddr *)&any, sizeof(any)) || listen(server, 4)) {
		perror("listen");
		exit(1);
	}
	return server;
}

// Reads up to the blank line that ends a request's head; -1 when the client left.
static int read_request(int client)
{
	char request[4096] = "";
	size_t length = 0;

	while (!strstr(request, "\r\n\r\n")) {
		ssize_t got = read(client, request + length, sizeof(request) - 1 - length);

		if (got <= 0)
			return -1;
		length += got;
		request[length] = '\0';
	}
	return 0;
}

static void answer(int client, uint64_t token, long count)
{
	char text[256];
	int length;

	length = snprintf(text, sizeof(text),
			  "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
			  "{\"token\":\"%016llx\",\"count\":%ld,\"pid\":%d}",
			  (unsigned long long)token, count, getpid());
	if (write(client, text, length) != length)
		perror("write");
}

int main(void)
{
	const char *port = getenv("PORT");
	uint64_t token;
	long count = 0;
	int server;

	if (!port || getrandom(&token, sizeof(token), 0) != sizeof(token))
		return 2;
	signal(SIGPIPE, SIG_IGN);
	server = listen_on(atoi(port));
	for (;;) {
		int client = accept(server, NULL, NULL);

		if (client < 0)
			continue;
		if (read_request(client) == 0)
			answer(client, token, ++count);
		close(client);
	}
}
