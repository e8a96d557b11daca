// SPDX-License-Identifier: Apache-2.0
// load ADDRESS PORT CONNECTIONS SECONDS keep|new
//
// An HTTP load generator: one thread, epoll, a fixed number of connections, one request in flight
// on each. "keep" reuses connections, "new" opens one per request. Prints one JSON line; the
// latencies are from before connect (new) or send (keep) to the whole answer.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 1024
#define MAX_SAMPLES (4 << 20)

struct connection {
	int fd;
	bool sent;
	double began;
	size_t length;
	char answer[8192];
};

static struct connection connections[MAX_CONNECTIONS];
static float samples[MAX_SAMPLES];
static size_t sample_count, error_count;
static struct sockaddr_in target;
static bool keep;
static int poller;
static char request[256];
static size_t request_length;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void open_connection(struct connection *c)
{
	struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
	int yes = 1;

	c->began = now();
	c->sent = false;
	c->length = 0;
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	if (c->fd < 0 ||
	    (connect(c->fd, (struct sockaddr *)&target, sizeof(target)) && errno != EINPROGRESS)) {
		perror("connect");
		exit(1);
	}
	epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
}

static void reopen(struct connection *c)
{
	close(c->fd);
	open_connection(c);
}

static void send_request(struct connection *c)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};

	if (keep)
		c->began = now();
	c->length = 0;
	if (send(c->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length) {
		error_count++;
		reopen(c);
		return;
	}
	if (!c->sent)
		epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
	c->sent = true;
}

// Says whether the answer is whole: by its length, or by the end of the connection.
static bool is_whole(struct connection *c, bool ended)
{
	char *body = strstr(c->answer, "\r\n\r\n");
	char *length = body ? strcasestr(c->answer, "content-length:") : NULL;

	if (!body || strncmp(c->answer + 8, " 200", 4))
		return false;
	/* The server closes first, as it was asked to: a client that does keeps its port for a
	 * minute. */
	if (!keep || !length || length > body)
		return ended;
	return c->answer + c->length >= body + 4 + atol(length + 15);
}

static void note(struct connection *c)
{
	if (sample_count < MAX_SAMPLES)
		samples[sample_count++] = (now() - c->began) * 1000;
}

static void receive(struct connection *c)
{
	size_t room = sizeof(c->answer) - 1 - c->length;
	ssize_t got = recv(c->fd, c->answer + c->length, room, 0);

	if (got < 0 && errno == EAGAIN)
		return;
	if (got > 0)
		c->length += got;
	c->answer[c->length] = '\0';
	if (is_whole(c, got == 0)) {
		note(c);
		if (keep && got > 0)
			send_request(c);
		else
			reopen(c);
	} else if (got <= 0) {
		error_count++;
		reopen(c);
	}
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static void report(double seconds)
{
	qsort(samples, sample_count, sizeof(*samples), by_value);
	printf("{\"requests\": %zu, \"errors\": %zu, \"seconds\": %.3f, \"per_second\": %.1f, "
	       "\"p50_ms\": %.4f, \"p99_ms\": %.4f}\n",
	       sample_count, error_count, seconds, sample_count / seconds,
	       sample_count ? samples[sample_count / 2] : 0,
	       sample_count ? samples[sample_count * 99 / 100] : 0);
}

static void run(double seconds)
{
	struct epoll_event events[64];
	double began = now(), end = began + seconds;

	while (now() < end) {
		int count = epoll_wait(poller, events, 64, 100);

		for (int i = 0; i < count; i++) {
			struct connection *c = events[i].data.ptr;

			if (c->sent)
				receive(c);
			else
				send_request(c);
		}
	}
	report(now() - began);
}

int main(int argc, char **argv)
{
	int count = argc == 6 ? atoi(argv[3]) : 0;

	if (count < 1 || count > MAX_CONNECTIONS) {
		fprintf(stderr, "usage: load ADDRESS PORT CONNECTIONS SECONDS keep|new\n");
		return 2;
	}
	target.sin_family = AF_INET;
	target.sin_port = htons(atoi(argv[2]));
	inet_pton(AF_INET, argv[1], &target.sin_addr);
	keep = strcmp(argv[5], "keep") == 0;
	request_length = snprintf(request, sizeof(request),
				  "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: %s\r\n\r\n",
				  keep ? "keep-alive" : "close");
	poller = epoll_create1(0);
	for (int i = 0; i < count; i++)
		open_connection(&connections[i]);
	run(atof(argv[4]));
	return 0;
}
