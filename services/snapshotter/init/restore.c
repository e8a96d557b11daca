// SPDX-License-Identifier: Apache-2.0
/*
 * The waiting `criu swrk`: one request goes to it, one answer comes back. The messages are criu_req
 * and criu_resp of CRIU's images/rpc.proto; of the answer four fields are read.
 */
#include "init.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Field numbers of criu_resp, and of criu_restore_resp. */
enum { RESPONSE_SUCCESS = 2, RESPONSE_RESTORE = 4, RESPONSE_ERRNO = 7, RESPONSE_MESSAGE = 9 };
enum { RESTORE_PID = 1 };
enum { WIRE_VARINT = 0, WIRE_BYTES = 2 };

struct reader {
	const uint8_t *at, *end;
};
struct field {
	unsigned int number, wire;
	uint64_t value;	      /* of a varint, or the length of bytes */
	const uint8_t *bytes; /* inside the message */
};

static struct source answers = {.fd = -1};
static int words_fd = -1;
static void (*on_answer)(const struct answer *);

static bool read_varint(struct reader *reader, uint64_t *value)
{
	*value = 0;
	for (unsigned int shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
		uint8_t byte = *reader->at++;

		*value |= (uint64_t)(byte & 127) << shift;
		if (!(byte & 128))
			return true;
	}
	return false;
}

/* SAFETY: the length of bytes is held against what is left, so no field leads outside. */
static bool read_field(struct reader *reader, struct field *field)
{
	uint64_t tag;

	if (!read_varint(reader, &tag) || !read_varint(reader, &field->value))
		return false;
	field->number = (unsigned int)(tag >> 3);
	field->wire = tag & 7;
	if (field->wire == WIRE_VARINT)
		return true;
	if (field->wire != WIRE_BYTES || field->value > (size_t)(reader->end - reader->at))
		return false;
	field->bytes = reader->at;
	reader->at += field->value;
	return true;
}

static pid_t read_pid(const struct field *restore)
{
	struct reader reader = {restore->bytes, restore->bytes + restore->value};
	struct field field;

	while (read_field(&reader, &field))
		if (field.number == RESTORE_PID && field.wire == WIRE_VARINT)
			return (pid_t)field.value;
	return -1;
}

static void read_answer(const uint8_t *bytes, size_t length, struct answer *answer)
{
	struct reader reader = {bytes, bytes + length};
	struct field field;
	bool success = false;

	answer->pid = -1;
	while (read_field(&reader, &field)) {
		if (field.number == RESPONSE_SUCCESS && field.wire == WIRE_VARINT)
			success = field.value;
		else if (field.number == RESPONSE_RESTORE && field.wire == WIRE_BYTES)
			answer->pid = read_pid(&field);
		else if (field.number == RESPONSE_ERRNO && field.wire == WIRE_VARINT)
			answer->cr_errno = (int)field.value;
		else if (field.number == RESPONSE_MESSAGE && field.wire == WIRE_BYTES)
			snprintf(answer->words, sizeof(answer->words), "%.*s", (int)field.value,
				 (const char *)field.bytes);
	}
	/* a failed restore answers pid -1, which no later signal may ever reach */
	answer->ok = success && answer->pid > 1;
}

/* Adds what CRIU wrote to its standard error, the newest bytes if there is not room for all. */
void restore_words(struct answer *answer)
{
	char bytes[16384];
	size_t used = strlen(answer->words), room = sizeof(answer->words) - used - 1;
	ssize_t length = words_fd < 0 ? -1 : read(words_fd, bytes, sizeof(bytes));

	if (length <= 0)
		return;
	if (used && room) {
		answer->words[used++] = '\n';
		room--;
	}
	if ((size_t)length < room)
		room = (size_t)length;
	memcpy(answer->words + used, bytes + length - room, room);
	answer->words[used + room] = 0;
}

static void hear(struct source *source)
{
	static uint8_t bytes[65536];
	struct answer answer = {.pid = -1};
	ssize_t length = recv(source->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (length < 0 && errno == EAGAIN)
		return;
	if (length > 0)
		read_answer(bytes, (size_t)length, &answer);
	else
		answer.died = true;
	if (!answer.ok)
		restore_words(&answer);
	on_answer(&answer);
}

int restore_prepare(const struct spec *spec, void (*answered)(const struct answer *))
{
	int request_fd;

	restore_drop();
	if (spawn_criu(spec, &request_fd, &words_fd) < 0)
		return -1;
	on_answer = answered;
	loop_add(&answers, request_fd, hear);
	return 0;
}

int restore_request(const uint8_t *request, size_t length)
{
	if (send(answers.fd, request, length, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)length)
		return fail("restore", "sending the request");
	return 0;
}

/* Names why a restore failed that CRIU gave a bad answer to. */
const char *restore_failure(const struct answer *answer)
{
	if (oom_happened())
		return "oom";
	return answer->died ? "died" : "refused";
}

/* Lets go of CRIU: an idle one ends at the end of file. */
void restore_drop(void)
{
	loop_close(&answers);
	if (words_fd >= 0)
		close(words_fd);
	words_fd = -1;
}
