// SPDX-License-Identifier: Apache-2.0
/* Our end of AETHER_SOCKET: a stream socket on which the handler may send the five bytes READY. */
#include "init.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_PEERS 8
static const char ready_word[] = "READY";

struct peer {
	struct source source; /* first: the loop hands us this */
	size_t matched;
};
static struct source listener = {.fd = -1};
static struct peer peers[MAX_PEERS];
static bool opened;

static void hear(struct source *source)
{
	struct peer *peer = (struct peer *)source;
	char bytes[64];
	ssize_t length = recv(source->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (length <= 0) {
		if (length == 0 || errno != EAGAIN)
			loop_close(source);
		return;
	}
	for (ssize_t i = 0; i < length && peer->matched < sizeof(ready_word) - 1; i++) {
		peer->matched = bytes[i] == ready_word[peer->matched] ? peer->matched + 1 : 0;
		if (peer->matched == sizeof(ready_word) - 1) {
			struct text text = {0};

			text_add(&text, "report ready");
			ctl_report(&text);
		}
	}
}

static struct peer *free_peer(void)
{
	for (size_t i = 0; i < MAX_PEERS; i++)
		if (peers[i].source.fd < 0)
			return &peers[i];
	return NULL;
}

static void take(struct source *source)
{
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct peer *peer = free_peer();

	if (fd < 0)
		return;
	if (!peer) {
		close(fd);
		return;
	}
	peer->matched = 0;
	loop_add(&peer->source, fd, hear);
}

int handler_open(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = HANDLER_SOCKET};
	int fd;

	if (opened)
		return 0;
	if (mkdir(HANDLER_FOLDER, 0755) && errno != EEXIST)
		return fail("handler-socket", "mkdir " HANDLER_FOLDER);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    chmod(HANDLER_SOCKET, 0666) || listen(fd, 16)) {
		fail("handler-socket", HANDLER_SOCKET);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	for (size_t i = 0; i < MAX_PEERS; i++)
		peers[i].source.fd = -1;
	loop_add(&listener, fd, take);
	opened = true;
	return 0;
}

/* Closes all that is ours; a checkpoint would refuse a peer in the accept queue. */
void handler_close(void)
{
	int fd;

	if (!opened)
		return;
	opened = false;
	while ((fd = accept4(listener.fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		close(fd);
	loop_close(&listener);
	for (size_t i = 0; i < MAX_PEERS; i++)
		loop_close(&peers[i].source);
	unlink(HANDLER_SOCKET);
}
