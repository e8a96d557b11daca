/* SPDX-License-Identifier: Apache-2.0 */
/* Records in and out of a channel, and what a request and a response are made of. */
#ifndef AETHERLESS_RECORDS_H
#define AETHERLESS_RECORDS_H

#include "attach.h"

#define AETHER_REQUEST_HEAD 24u
#define AETHER_RESPONSE_HEAD 16u
#define AETHER_MANY 4 /* pieces of a record that is put together */

/* What a record is, in its type word. Others are the users' own. */
enum aether_record_type {
	AETHER_USER = 0,
	AETHER_REQUEST = 1,
	AETHER_RESPONSE = 2,
	AETHER_PING = 3,
	AETHER_PONG = 4,
	AETHER_SHUTDOWN = 5,
	AETHER_CALL = 6, /* of another function */
	AETHER_OVER = 7, /* a run of a pipeline has ended */
};

/* How a call ended. */
enum aether_status {
	AETHER_RESULT = 0,
	AETHER_FAILED = 1, /* the data is a message, UTF-8 */
	AETHER_NO_METHOD = 2,
	AETHER_DEADLINE_PASSED = 3,
	AETHER_NOT_ALLOWED = 4, /* may_call does not name the function */
	AETHER_NO_FUNCTION = 5,
	AETHER_NOT_DELIVERED = 6, /* the data is a message */
	AETHER_NO_ROOM = 7,
	AETHER_PASSED_ON = 8,	 /* by the first stage of a pipeline */
	AETHER_EDGE_DAMAGED = 9, /* the data is the edge's name */
	/* Of this side: */
	AETHER_LOST = 1000,	      /* the attachment ended while the call was under way */
	AETHER_CALL_TOO_LARGE = 1001, /* the data does not fit into a record */
};

struct aether_client;

/* A call of the function. What the pointers point at is valid while the handler runs. */
struct aether_request {
	uint64_t id;	      /* unique while the channel lives; for a stage the run's */
	uint64_t deadline_ns; /* of CLOCK_REALTIME; 0 for none */
	uint32_t attempt;     /* 1, or more when it was delivered before and not answered */
	uint16_t trace_length;
	uint16_t method_length;
	const char *trace;  /* the W3C traceparent; not terminated */
	const char *method; /* UTF-8; not terminated */
	const uint8_t *data;
	uint32_t length;
	uint32_t inputs;	      /* from how many stages the data comes; see aether_part */
	struct aether_client *client; /* for aether_call */
};

/* A record that was taken out and checked; free() it. */
struct aether_taken {
	struct aether_taken *next;
	uint64_t end; /* this side's index after it */
	uint32_t type;
	uint32_t length;
	uint8_t payload[];
};

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

/* Waiting */

/* Hear what the service says: OK when it said nothing that ends the attachment, CLOSED else. */
static inline enum aether_result aether_hear(struct aether_channel *channel)
{
	char said[AETHER_LONGEST_LINE + 1];
	int descriptors[3];
	for (;;) {
		int failed = channel->control < 0 ? EAGAIN
						  : aether_receive_line(channel->control, said,
									descriptors, MSG_DONTWAIT);
		if (failed)
			return failed == EAGAIN || failed == EINTR ? AETHER_OK : AETHER_CLOSED;
		bool ended = aether_says(said, "closed");
		if (channel->listener && !ended)
			channel->listener(channel, said, descriptors);
		else
			aether_close_all(descriptors);
		if (ended)
			return AETHER_CLOSED;
	}
}

/* Read a bell that rang. Whoever had this end of an edge before has its flags too. */
static inline void aether_hush(int wake)
{
	uint64_t rung;
	const struct iovec number = {&rung, sizeof(rung)};
	if (preadv2(wake, &number, 1, -1, RWF_NOWAIT) < 0)
		return; /* somebody else has heard it */
}

/* Milliseconds to sleep until a time of CLOCK_MONOTONIC, at most a second. */
static inline int aether_milliseconds(uint64_t now, uint64_t until)
{
	uint64_t left = until - now < AETHER_SECOND ? until - now : AETHER_SECOND;
	return (int)((left + 999999) / 1000000);
}

/*
 * Sleep once until a wish may be fulfilled: OK to look again, TIMED_OUT, TOO_LARGE, CORRUPT, or
 * CLOSED when the service ended the attachment. The wish's ring may have gone afterwards, if the
 * service dropped its edge.
 */
static inline enum aether_result
aether_nap(struct aether_channel *channel, const struct aether_wish *wish, int wake, uint64_t until)
{
	struct pollfd ears[2] = {{wake, POLLIN, 0}, {channel->control, POLLIN | POLLRDHUP, 0}};
	enum aether_result result = aether_doze(wish, AETHER_ON_DOORBELL);
	if (!aether_waits(result))
		return result;
	uint64_t now = aether_now();
	if (now >= until)
		return AETHER_TIMED_OUT;
	poll(ears, 2, aether_milliseconds(now, until));
	if (ears[0].revents)
		aether_hush(wake);
	return ears[1].revents ? aether_hear(channel) : AETHER_OK;
}

/* In */

/* Check a record that was found and copy it; NULL and CORRUPT, or NULL and TIMED_OUT for want of
 * memory. Its place is kept until aether_release. */
static inline struct aether_taken *aether_copy(struct aether_ring *ring,
					       const struct aether_record *record,
					       enum aether_result *result)
{
	struct aether_taken *taken = malloc(sizeof(*taken) + record->length);
	*result = taken ? aether_check(ring, record, taken->payload) : AETHER_TIMED_OUT;
	if (*result != AETHER_OK) {
		free(taken);
		return NULL;
	}
	aether_pass(ring, record);
	taken->next = NULL;
	taken->end = ring->own;
	taken->type = record->type;
	taken->length = record->length;
	return taken;
}

/* Take the next record out of a channel: NULL and EMPTY when there is none. */
static inline struct aether_taken *aether_take_out(struct aether_channel *channel,
						   enum aether_result *result)
{
	struct aether_record record;
	*result = aether_next(&channel->in, &record);
	if (*result != AETHER_OK)
		return NULL;
	struct aether_taken *taken = aether_copy(&channel->in, &record, result);
	if (taken)
		aether_wake(&channel->in, aether_release(&channel->in), AETHER_PRODUCER_ASLEEP,
			    channel->region.descriptors[2]);
	return taken;
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
		result = aether_nap(channel, &wish, channel->region.descriptors[1], until);
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
		    channel->region.descriptors[2]);
	return AETHER_OK;
}

/* Out */

/* One piece of a record that is put together. */
struct aether_piece {
	const void *data;
	uint32_t length;
};

static inline void aether_join(uint8_t *target, const struct aether_piece *pieces)
{
	for (int piece = 0; piece < AETHER_MANY; piece++) {
		if (pieces[piece].length)
			memcpy(target, pieces[piece].data, pieces[piece].length);
		target += pieces[piece].length;
	}
}

/* Put a record in that consists of pieces: OK, FULL, TOO_LARGE or CORRUPT. */
static inline enum aether_result aether_put(struct aether_ring *ring, int bell,
					    const struct aether_piece *pieces, uint32_t type)
{
	uint64_t length = 0;
	uint8_t *place;
	for (int piece = 0; piece < AETHER_MANY; piece++)
		length += pieces[piece].length;
	uint32_t bounded = length < AETHER_SKIP ? (uint32_t)length : AETHER_SKIP;
	enum aether_result result = aether_reserve(ring, bounded, &place);
	if (result != AETHER_OK)
		return result;
	if (pieces[0].length == bounded) {
		aether_fill(ring, place, pieces[0].data, bounded, type);
	} else {
		aether_join(place, pieces);
		aether_commit(ring, place, bounded, type);
	}
	aether_wake(ring, aether_publish(ring), AETHER_CONSUMER_ASLEEP, bell);
	return AETHER_OK;
}

/* Put a record of pieces into a channel, waiting for room: as aether_send. */
static inline enum aether_result aether_send_pieces(struct aether_channel *channel,
						    const struct aether_piece *pieces,
						    uint32_t type, uint64_t until)
{
	struct aether_wish wish = {&channel->out, 0};
	enum aether_result result;
	for (int piece = 0; piece < AETHER_MANY; piece++)
		wish.length += pieces[piece].length;
	while ((result = aether_put(&channel->out, channel->region.descriptors[2], pieces, type)) ==
	       AETHER_FULL) {
		result = aether_nap(channel, &wish, channel->region.descriptors[1], until);
		if (result != AETHER_OK)
			return result;
	}
	return result;
}

/*
 * Put a record in, waiting for room until a time of CLOCK_MONOTONIC (AETHER_FOREVER). OK,
 * TIMED_OUT, TOO_LARGE, CLOSED or CORRUPT.
 */
static inline enum aether_result aether_send(struct aether_channel *channel, const uint8_t *data,
					     uint32_t length, uint32_t type, uint64_t until)
{
	const struct aether_piece pieces[AETHER_MANY] = {{data, length}};
	return aether_send_pieces(channel, pieces, type, until);
}

/* Requests; docs/ipc.md has the tables */

/* Read a request's record; false when it is malformed. */
static inline bool aether_parse(const uint8_t *payload, uint32_t length,
				struct aether_request *request)
{
	if (length < AETHER_REQUEST_HEAD)
		return false;
	uint16_t trace = (uint16_t)aether_little(payload + 20, 2);
	uint16_t method = (uint16_t)aether_little(payload + 22, 2);
	uint32_t head = AETHER_REQUEST_HEAD + trace + method;
	if (head > length)
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
		.length = length - head,
		.inputs = 1,
	};
	return true;
}

/* Write the head of a request's record. */
static inline void aether_write_request(uint8_t head[AETHER_REQUEST_HEAD],
					const struct aether_request *request)
{
	aether_put_little(head, request->id, 8);
	aether_put_little(head + 8, request->deadline_ns, 8);
	aether_put_little(head + 16, request->attempt, 4);
	aether_put_little(head + 20, request->trace_length, 2);
	aether_put_little(head + 22, request->method_length, 2);
}

/*
 * Find what one of a stage's inputs sent: place counts from 0 in the order of the pipeline's
 * ``from``. With one input it is all of the data. NULL when there is no such part.
 */
static inline const uint8_t *aether_part(const struct aether_request *request, uint32_t place,
					 uint32_t *length)
{
	const uint8_t *at = request->data + 4, *end = request->data + request->length;
	if (place >= request->inputs)
		return NULL;
	*length = request->length;
	if (request->inputs == 1)
		return request->data;
	for (;; place--) {
		*length = (uint32_t)aether_little(at, 4);
		if (*length > (size_t)(end - at) - 4)
			return NULL;
		if (place == 0)
			return at + 4;
		at += 4 + *length;
	}
}

static inline uint64_t aether_real_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * AETHER_SECOND + (uint64_t)now.tv_nsec;
}

/* The time of CLOCK_MONOTONIC until which a request is waited for; 0 when it has passed. */
static inline uint64_t aether_deadline(const struct aether_request *request)
{
	if (!request->deadline_ns)
		return AETHER_FOREVER;
	uint64_t real = aether_real_now();
	return real < request->deadline_ns ? aether_now() + (request->deadline_ns - real) : 0;
}

#endif
