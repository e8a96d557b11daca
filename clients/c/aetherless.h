/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of a function's channel, in one header: answers calls that come through shared memory.
 *
 *	static enum aether_status upper(const struct aether_request *request,
 *					struct aether_answer *answer, void *context)
 *	{
 *		for (uint32_t place = 0; place < request->length; place++)
 *			answer->data[place] = toupper(request->data[place]);
 *		answer->length = request->length;
 *		return AETHER_RESULT;
 *	}
 *
 *	int main(void)
 *	{
 *		return aether_serve(NULL, upper, NULL);
 *	}
 *
 * Needs Linux, GCC or Clang, and _GNU_SOURCE before the first include. single_header.py makes one
 * file of this and of the ring's headers.
 */
#ifndef AETHERLESS_H
#define AETHERLESS_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "../../services/ipc/ring/native/waiting.h"

#define AETHER_PAGE 4096u
#define AETHER_VERSION 1u
#define AETHER_SMALLEST_RING (64u << 10)
#define AETHER_LARGEST_RING (1u << 30)
#define AETHER_REQUEST_HEAD 24u
#define AETHER_RESPONSE_HEAD 16u
#define AETHER_LONGEST_ANSWER 512
#define AETHER_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define AETHER_SECOND 1000000000u
#define AETHER_RETRY 1000000	       /* ns; while nobody can be attached */
#define AETHER_RETRY_ATTACHED 50000000 /* ns; while another process is attached */
#define AETHER_FOREVER UINT64_MAX

/* What a record is, in its type word. Others are the users' own. */
enum aether_record_type {
	AETHER_USER = 0,
	AETHER_REQUEST = 1,
	AETHER_RESPONSE = 2,
	AETHER_PING = 3,
	AETHER_PONG = 4,
	AETHER_SHUTDOWN = 5,
};

enum aether_direction { AETHER_TO_PEER = 0, AETHER_FROM_PEER = 1 };

/* How a call ended. */
enum aether_status {
	AETHER_RESULT = 0,
	AETHER_FAILED = 1, /* the data is a message, UTF-8 */
	AETHER_NO_METHOD = 2,
	AETHER_DEADLINE_PASSED = 3,
};

/* One attachment. */
struct aether_channel {
	int control;	    /* its end is the attachment's end */
	int descriptors[3]; /* the region, this side's wake, the service's wake */
	uint8_t *memory;    /* the region, mapped */
	size_t region_bytes;
	uint64_t ring_bytes;
	uint64_t generation;
	struct aether_ring in;	/* records to this side */
	struct aether_ring out; /* records from it */
};

/* A call of the function. What the pointers point at is valid while the handler runs. */
struct aether_request {
	uint64_t id;	      /* unique while the channel lives */
	uint64_t deadline_ns; /* of CLOCK_REALTIME; 0 for none */
	uint32_t attempt;     /* 1, or more when it was delivered before and not answered */
	uint16_t trace_length;
	uint16_t method_length;
	const char *trace;  /* the W3C traceparent; not terminated */
	const char *method; /* UTF-8; not terminated */
	const uint8_t *data;
	uint32_t length;
};

/* Where a handler puts its answer; the data of the other states than RESULT is a message. */
struct aether_answer {
	uint8_t *data;
	uint32_t room;	 /* bytes that data has */
	uint32_t length; /* bytes that the handler wrote */
};

typedef enum aether_status (*aether_handler)(const struct aether_request *request,
					     struct aether_answer *answer, void *context);

/* Return one end of a ring in a mapped region of a checked size. */
static inline struct aether_ring aether_end(uint8_t *memory, uint64_t ring_bytes,
					    enum aether_direction direction)
{
	static const struct aether_checksum_way *way; /* the same whoever writes it */
	if (!__atomic_load_n(&way, __ATOMIC_ACQUIRE))
		__atomic_store_n(&way, aether_choose_checksum(), __ATOMIC_RELEASE);
	return (struct aether_ring){.control = memory + AETHER_PAGE * (1 + direction),
				    .data = memory + 3 * AETHER_PAGE + direction * ring_bytes,
				    .closed = memory + AETHER_CLOSED_OFFSET,
				    .checksum = way->function,
				    .size = ring_bytes};
}

/* Attaching */

/* Read " NAME=number" of the service's answer; 0 when it is not there. */
static inline uint64_t aether_field(const char *said, const char *name)
{
	const char *found = strstr(said, name);
	return found ? strtoull(found + strlen(name), NULL, 10) : 0;
}

static inline void aether_keep_descriptors(struct aether_channel *channel, struct msghdr *message)
{
	struct cmsghdr *part = CMSG_FIRSTHDR(message);
	if (!part || part->cmsg_type != SCM_RIGHTS)
		return;
	size_t length = part->cmsg_len - CMSG_LEN(0);
	memcpy(channel->descriptors, CMSG_DATA(part),
	       length < sizeof(channel->descriptors) ? length : sizeof(channel->descriptors));
}

/* Receive what the service says, terminated, and the descriptors that come with it. */
static inline int aether_hear(struct aether_channel *channel, char said[AETHER_LONGEST_ANSWER + 1])
{
	union {
		char bytes[CMSG_SPACE(sizeof(channel->descriptors))];
		struct cmsghdr aligned;
	} ancillary;
	struct iovec part = {said, AETHER_LONGEST_ANSWER};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = &ancillary,
				 .msg_controllen = sizeof(ancillary)};
	ssize_t length = recvmsg(channel->control, &message, MSG_CMSG_CLOEXEC);
	if (length <= 0)
		return length == 0 ? ECONNRESET : errno;
	said[length] = 0;
	aether_keep_descriptors(channel, &message);
	return 0;
}

static inline int aether_connect(struct aether_channel *channel, const char *path)
{
	const struct timeval limit = {5, 0};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(address.sun_path))
		return ENAMETOOLONG;
	strcpy(address.sun_path, path);
	channel->control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (channel->control < 0)
		return errno;
	setsockopt(channel->control, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return connect(channel->control, (struct sockaddr *)&address, sizeof(address)) ? errno : 0;
}

/* Check that a region is sealed and of its size, and map it. */
static inline int aether_map(struct aether_channel *channel)
{
	struct stat about;
	uint64_t ring = channel->ring_bytes;
	int seals = fcntl(channel->descriptors[0], F_GET_SEALS);
	if (seals < 0 || (seals & AETHER_SEALS) != AETHER_SEALS || ring < AETHER_SMALLEST_RING ||
	    ring > AETHER_LARGEST_RING || ring & (ring - 1) ||
	    fstat(channel->descriptors[0], &about) ||
	    (uint64_t)about.st_size != 3 * AETHER_PAGE + 2 * ring)
		return EINVAL;
	/* SAFETY: the seals hold, so that the mapping can't lose its pages (SIGBUS). */
	void *memory = mmap(NULL, (size_t)about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			    channel->descriptors[0], 0);
	if (memory == MAP_FAILED)
		return errno;
	channel->memory = memory;
	channel->region_bytes = (size_t)about.st_size;
	return 0;
}

static inline int aether_check_header(struct aether_channel *channel)
{
	uint32_t version;
	uint64_t numbers[3]; /* bytes of the region, of a ring, generation */
	memcpy(&version, channel->memory + 8, sizeof(version));
	memcpy(numbers, channel->memory + 16, sizeof(numbers));
	channel->generation = numbers[2];
	return memcmp(channel->memory, "AETHRING", 8) || version != AETHER_VERSION ||
			       numbers[0] != channel->region_bytes ||
			       numbers[1] != channel->ring_bytes
		       ? EINVAL
		       : 0;
}

/* The errno that stands for a refusal. */
static inline int aether_refusal(const char *said)
{
	if (strstr(said, "reason=CHANNEL_ATTACHED"))
		return EBUSY;
	return strstr(said, "reason=CHANNEL_CLOSED") ? EPIPE : EACCES;
}

static inline int aether_try_attach(struct aether_channel *channel, const char *path)
{
	char said[AETHER_LONGEST_ANSWER + 1];
	int failed = aether_connect(channel, path);
	if (!failed)
		failed = aether_hear(channel, said);
	if (failed)
		return failed;
	if (strncmp(said, "ok ", 3) != 0)
		return aether_refusal(said);
	channel->ring_bytes = aether_field(said, " ring_bytes=");
	if (channel->descriptors[2] < 0)
		return EINVAL;
	failed = aether_map(channel);
	return failed ? failed : aether_check_header(channel);
}

/* Let go of the region, the wakes and the control socket. */
static inline void aether_detach(struct aether_channel *channel)
{
	if (channel->memory)
		munmap(channel->memory, channel->region_bytes);
	if (channel->control >= 0)
		close(channel->control);
	for (int place = 0; place < 3; place++)
		if (channel->descriptors[place] >= 0)
			close(channel->descriptors[place]);
}

/*
 * Attach once; path NULL is what AETHER_CHANNEL names. Returns 0, or an errno and nothing is left
 * open: ENOENT, ECONNREFUSED, ECONNRESET or EPIPE when nobody can be attached now, EBUSY when
 * another process is (CHANNEL_ATTACHED), EACCES when the service knows this one for none of the
 * function's (PEER_NOT_ALLOWED), EINVAL when there is no path or what came is no region.
 */
static inline int aether_attach(struct aether_channel *channel, const char *path)
{
	*channel = (struct aether_channel){.control = -1, .descriptors = {-1, -1, -1}};
	if (!path)
		path = getenv("AETHER_CHANNEL");
	int failed = path && *path ? aether_try_attach(channel, path) : EINVAL;
	if (failed) {
		aether_detach(channel);
		return failed;
	}
	channel->in = aether_end(channel->memory, channel->ring_bytes, AETHER_TO_PEER);
	channel->out = aether_end(channel->memory, channel->ring_bytes, AETHER_FROM_PEER);
	return 0;
}

/* Records */

/*
 * Wait until the wish is fulfilled or a time of CLOCK_MONOTONIC: OK, TIMED_OUT, TOO_LARGE, CORRUPT,
 * or CLOSED when the service ended the attachment.
 */
static inline enum aether_result aether_await(struct aether_channel *channel,
					      const struct aether_wish *wish, uint64_t until)
{
	uint64_t rung;
	struct pollfd ears[2] = {{channel->descriptors[1], POLLIN, 0},
				 {channel->control, POLLIN | POLLRDHUP, 0}};
	for (;;) {
		enum aether_result result = aether_doze(wish, AETHER_ON_DOORBELL);
		if (!aether_waits(result))
			return result;
		uint64_t now = aether_now();
		if (now >= until)
			return AETHER_TIMED_OUT;
		uint64_t left = until - now < AETHER_SECOND ? until - now : AETHER_SECOND;
		poll(ears, 2, (int)((left + 999999) / 1000000));
		if (ears[1].revents)
			return AETHER_CLOSED;
		if (ears[0].revents && read(ears[0].fd, &rung, sizeof(rung)) < 0)
			continue; /* somebody else has heard it */
	}
}

/*
 * Copy the next record into a buffer of aether_largest() bytes, waiting until a time of
 * CLOCK_MONOTONIC (AETHER_FOREVER). OK, TIMED_OUT, CLOSED or CORRUPT.
 */
static inline enum aether_result aether_receive(struct aether_channel *channel,
						struct aether_record *record, uint8_t *buffer,
						uint64_t until)
{
	const struct aether_wish wish = {&channel->in, 0};
	enum aether_result result;
	while ((result = aether_next(&channel->in, record)) == AETHER_EMPTY) {
		result = aether_await(channel, &wish, until);
		if (result != AETHER_OK)
			return result;
	}
	if (result == AETHER_OK)
		result = aether_check(&channel->in, record, buffer);
	if (result != AETHER_OK)
		return result;
	record->payload = buffer;
	aether_pass(&channel->in, record);
	aether_wake(&channel->in, aether_release(&channel->in), AETHER_PRODUCER_ASLEEP,
		    channel->descriptors[2]);
	return AETHER_OK;
}

/*
 * Put a record in, waiting for room until a time of CLOCK_MONOTONIC (AETHER_FOREVER). OK,
 * TIMED_OUT, TOO_LARGE, CLOSED or CORRUPT.
 */
static inline enum aether_result aether_send(struct aether_channel *channel, const uint8_t *data,
					     uint32_t length, uint32_t type, uint64_t until)
{
	const struct aether_wish wish = {&channel->out, length};
	uint8_t *place;
	enum aether_result result;
	while ((result = aether_reserve(&channel->out, length, &place)) == AETHER_FULL) {
		result = aether_await(channel, &wish, until);
		if (result != AETHER_OK)
			return result;
	}
	if (result != AETHER_OK)
		return result;
	aether_fill(&channel->out, place, data, length, type);
	aether_wake(&channel->out, aether_publish(&channel->out), AETHER_CONSUMER_ASLEEP,
		    channel->descriptors[2]);
	return AETHER_OK;
}

/* Calls; docs/ipc.md has the tables */

static inline uint64_t aether_little(const uint8_t *bytes, int width)
{
	uint64_t value = 0;
	for (int place = 0; place < width; place++)
		value |= (uint64_t)bytes[place] << (8 * place);
	return value;
}

static inline void aether_put_little(uint8_t *bytes, uint64_t value, int width)
{
	for (int place = 0; place < width; place++)
		bytes[place] = (uint8_t)(value >> (8 * place));
}

/* Read a request's record; false when it is malformed. */
static inline bool aether_parse(const struct aether_record *record, struct aether_request *request)
{
	const uint8_t *payload = record->payload;
	if (record->length < AETHER_REQUEST_HEAD)
		return false;
	uint16_t trace = (uint16_t)aether_little(payload + 20, 2);
	uint16_t method = (uint16_t)aether_little(payload + 22, 2);
	uint32_t head = AETHER_REQUEST_HEAD + trace + method;
	if (head > record->length)
		return false;
	*request = (struct aether_request){
		.id = aether_little(payload, 8),
		.deadline_ns = aether_little(payload + 8, 8),
		.attempt = (uint32_t)aether_little(payload + 16, 4),
		.trace_length = trace,
		.method_length = method,
		.trace = (const char *)payload + AETHER_REQUEST_HEAD,
		.method = (const char *)payload + AETHER_REQUEST_HEAD + trace,
		.data = payload + head,
		.length = record->length - head,
	};
	return true;
}

/* The time of CLOCK_MONOTONIC until which a request is waited for; 0 when it has passed. */
static inline uint64_t aether_deadline(const struct aether_request *request)
{
	struct timespec now;
	if (!request->deadline_ns)
		return AETHER_FOREVER;
	clock_gettime(CLOCK_REALTIME, &now);
	uint64_t real = (uint64_t)now.tv_sec * AETHER_SECOND + (uint64_t)now.tv_nsec;
	return real < request->deadline_ns ? aether_now() + (request->deadline_ns - real) : 0;
}

/* Answer one request, whose record lies in a buffer of its own. */
static inline enum aether_result aether_answer_request(struct aether_channel *channel,
						       const struct aether_request *request,
						       uint8_t *buffer, aether_handler handler,
						       void *context)
{
	uint32_t room = aether_largest(&channel->out) - AETHER_RESPONSE_HEAD;
	struct aether_answer answer = {buffer + AETHER_RESPONSE_HEAD, room, 0};
	uint64_t until = aether_deadline(request);
	enum aether_status status = AETHER_DEADLINE_PASSED;
	if (until)
		status = handler(request, &answer, context);
	if (answer.length > room)
		answer.length =
			room; /* the handler has overrun its buffer; say no more than is there */
	aether_put_little(buffer, request->id, 8);
	aether_put_little(buffer + 8, status, 4);
	aether_put_little(buffer + 12, 0, 4);
	enum aether_result sent = aether_send(channel, buffer, AETHER_RESPONSE_HEAD + answer.length,
					      AETHER_RESPONSE, until);
	return sent == AETHER_TIMED_OUT ? AETHER_OK : sent; /* nobody waits for it any more */
}

/* Answer until the service ends the attachment, asks to let go, or damages the ring. */
static inline enum aether_result aether_serve_attached(struct aether_channel *channel,
						       uint8_t *buffers, aether_handler handler,
						       void *context)
{
	struct aether_record record;
	struct aether_request request;
	uint8_t *answer = buffers + aether_largest(&channel->in);
	for (;;) {
		enum aether_result result =
			aether_receive(channel, &record, buffers, AETHER_FOREVER);
		if (result != AETHER_OK || record.type == AETHER_SHUTDOWN)
			return result;
		if (record.type == AETHER_PING)
			result = aether_send(channel, buffers, record.length, AETHER_PONG,
					     AETHER_FOREVER);
		else if (record.type == AETHER_REQUEST && aether_parse(&record, &request))
			result = aether_answer_request(channel, &request, answer, handler, context);
		if (result != AETHER_OK)
			return result;
	}
}

/* Whether attaching is worth another try, after a pause in ns. */
static inline long aether_retry(int failed)
{
	switch (failed) {
	case ENOENT:
	case ECONNREFUSED:
	case ECONNRESET:
	case EPIPE:
	case EAGAIN:
		return AETHER_RETRY;
	case EBUSY:
		return AETHER_RETRY_ATTACHED;
	default:
		return 0;
	}
}

/*
 * Answer the channel's calls, attaching anew whenever the service let go. Returns only what can't
 * be helped by another try: EACCES or EINVAL as aether_attach, ENOMEM, or another errno.
 */
static inline int aether_serve(const char *path, aether_handler handler, void *context)
{
	struct aether_channel channel;
	for (;;) {
		int failed = aether_attach(&channel, path);
		const struct timespec pause = {0, aether_retry(failed)};
		if (failed && !pause.tv_nsec)
			return failed;
		if (failed) {
			nanosleep(&pause, NULL);
			continue;
		}
		uint8_t *buffers = malloc(2 * (size_t)aether_largest(&channel.in));
		if (buffers)
			aether_serve_attached(&channel, buffers, handler, context);
		aether_detach(&channel);
		if (!buffers)
			return ENOMEM;
		free(buffers);
	}
}

#endif
