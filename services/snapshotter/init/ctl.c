// SPDX-License-Identifier: Apache-2.0
/* The control protocol's transport: clients of the listening socket, messages, descriptors. */
#include "init.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CLIENTS 4
struct client {
	struct source source; /* first: the loop hands us this */
};
static struct source listener;
static struct client clients[MAX_CLIENTS];

static void drop(struct client *client)
{
	loop_close(&client->source);
	machine_client_gone(client);
}

/* A client that does not read is dropped: it comes back and asks. */
static void say(struct client *client, const struct text *text)
{
	if (client && client->source.fd >= 0 &&
	    send(client->source.fd, text->bytes, text->length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		drop(client);
}

void ctl_report(const struct text *text)
{
	for (size_t i = 0; i < MAX_CLIENTS; i++)
		say(&clients[i], text);
}

void ctl_answer(struct client *client, const struct text *text)
{
	say(client, text);
}

void ctl_ok(struct client *client)
{
	struct text text = {0};

	text_add(&text, "ok");
	say(client, &text);
}

void ctl_failure(struct client *client)
{
	struct text text = {0};

	text_add(&text, "error");
	text_pair(&text, "step", failure.step);
	text_add(&text, " errno=%d", failure.errnum);
	text_pair(&text, "detail", failure.detail);
	say(client, &text);
}

static void keep_descriptors(struct msghdr *message, struct command *command)
{
	for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part;
	     part = CMSG_NXTHDR(message, part)) {
		size_t bytes = part->cmsg_len - CMSG_LEN(0);

		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
			continue;
		/* SAFETY: the control buffer has room for ARRAY_SIZE(fds) descriptors only. */
		memcpy(command->fds, CMSG_DATA(part), bytes);
		command->fd_count = bytes / sizeof(int);
	}
}

static ssize_t receive(int fd, char *bytes, size_t room, struct command *command)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(command->fds))];
	} control;
	struct iovec part = {bytes, room};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	ssize_t length = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (length > 0)
		keep_descriptors(&message, command);
	return length;
}

static void hear(struct source *source)
{
	static char bytes[256 * 1024];
	struct command command = {.client = (struct client *)source};
	ssize_t length = receive(source->fd, bytes, sizeof(bytes) - 1, &command);
	size_t line_length;

	if (length <= 0) {
		if (length == 0 || errno != EAGAIN)
			drop(command.client);
		return;
	}
	bytes[length] = 0;
	line_length = strlen(bytes);
	if (line_length < (size_t)length) {
		command.payload = (const uint8_t *)bytes + line_length + 1;
		command.payload_length = (size_t)length - line_length - 1;
	}
	if (line_parse(bytes, &command.line))
		ctl_failure(command.client);
	else
		command_run(&command);
	for (size_t i = 0; i < command.fd_count; i++)
		if (command.fds[i] >= 0) /* a command sets those to -1 that it keeps */
			close(command.fds[i]);
}

static void take(struct source *source)
{
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (size_t i = 0; i < MAX_CLIENTS; i++)
		if (clients[i].source.fd < 0) {
			loop_add(&clients[i].source, fd, hear);
			return;
		}
	close(fd);
}

void ctl_open(int fd)
{
	for (size_t i = 0; i < MAX_CLIENTS; i++)
		clients[i].source.fd = -1;
	loop_add(&listener, fd, take);
}
