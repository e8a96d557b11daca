/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests and answers as bytes of records (../../../../docs/ipc.md has the tables), for serve.h.
 *
 * A request that is read is a copy of this side's own, checked; one that is written is laid down
 * in the ring itself.
 */
#ifndef AETHER_PARCEL_H
#define AETHER_PARCEL_H

#include "end.h"

#include <endian.h>

#define REQUEST 1u /* types of records */
#define RESPONSE 2u
#define RESULT 0u /* statuses of answers */
#define PASSED_ON 8u
#define REQUEST_HEAD 24u
#define ANSWER_HEAD 16u
#define REQUEST_FIELDS 7 /* of the tuple that a handler is shown */
#define SMALL 4096u	 /* bytes of a record that needs no memory of its own */

/* The head of a request, in this processor's order. */
struct request_head {
	uint64_t id;
	uint64_t deadline; /* ns of CLOCK_REALTIME; 0 for none */
	uint32_t attempt;
	uint16_t trace_bytes;
	uint16_t method_bytes;
};

/* A request's record: where it begins, and a checked copy of its payload. */
struct parcel {
	struct aether_record record;
	struct request_head head;
	uint64_t at; /* the consumer's index before it */
	const uint8_t *bytes;
	uint8_t *large; /* the copy, unless it is small; NULL before it is opened */
	uint8_t small[SMALL];
};

/* Where a result goes, as a request of the next stage. */
struct route {
	End *producer;
	const char *method;
	uint16_t length; /* of the method */
};

/* What is done with a request: the handler's name, and where its result goes. */
struct way {
	PyObject *name;	  /* of a stage: its requests' method, as bytes */
	PyObject *owner;  /* what stands for it at the caller's; None for a call */
	PyObject *method; /* NULL takes the request's */
	uint32_t stage;	  /* its number plus one; 0 for a call */
	struct route *routes;
	size_t count;
};

struct answer {
	uint64_t id;
	uint32_t status;
	uint32_t stage;
	PyObject *data; /* bytes, or NULL for nothing */
};

static uint64_t real_time(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Reading */

static bool read_head(struct parcel *parcel)
{
	struct request_head *head = &parcel->head;
	if (parcel->record.length < REQUEST_HEAD)
		return false;
	memcpy(head, parcel->bytes, REQUEST_HEAD);
	head->id = le64toh(head->id);
	head->deadline = le64toh(head->deadline);
	head->attempt = le32toh(head->attempt);
	head->trace_bytes = le16toh(head->trace_bytes);
	head->method_bytes = le16toh(head->method_bytes);
	return REQUEST_HEAD + (uint32_t)head->trace_bytes + head->method_bytes <=
	       parcel->record.length;
}

/* Copy the next record out and read it; false leaves it where it is, for whoever looks closer. */
static bool open_parcel(End *end, struct parcel *parcel)
{
	if (aether_next(&end->ring, &parcel->record) != AETHER_OK ||
	    parcel->record.length >= LONG_COPY)
		return false;
	if (parcel->record.length > SMALL)
		parcel->large = malloc(parcel->record.length);
	uint8_t *copy = parcel->record.length > SMALL ? parcel->large : parcel->small;
	if (!copy || aether_check(&end->ring, &parcel->record, copy) != AETHER_OK)
		return false;
	parcel->at = end->ring.own;
	parcel->bytes = copy;
	return read_head(parcel);
}

static void close_parcel(struct parcel *parcel)
{
	free(parcel->large);
}

static const char *method_of(const struct parcel *parcel)
{
	return (const char *)parcel->bytes + REQUEST_HEAD + parcel->head.trace_bytes;
}

static bool is_named(const struct parcel *parcel, PyObject *name)
{
	return (size_t)PyBytes_Size(name) == parcel->head.method_bytes &&
	       memcmp(PyBytes_AsString(name), method_of(parcel), parcel->head.method_bytes) == 0;
}

/* Keep a request's method as a string; most often it is the one before. */
static int keep_name(PyObject **kept, const struct parcel *parcel)
{
	Py_ssize_t length = 0;
	const char *text = *kept ? PyUnicode_AsUTF8AndSize(*kept, &length) : NULL;
	if (text && length == parcel->head.method_bytes &&
	    memcmp(text, method_of(parcel), parcel->head.method_bytes) == 0)
		return 0;
	Py_XDECREF(*kept);
	*kept = PyUnicode_DecodeUTF8(method_of(parcel), parcel->head.method_bytes, "replace");
	return *kept ? 0 : -1;
}

static PyObject *data_of(const struct parcel *parcel)
{
	const char *data = method_of(parcel) + parcel->head.method_bytes;
	uint32_t before = (uint32_t)(data - (const char *)parcel->bytes);
	return PyBytes_FromStringAndSize(data, parcel->record.length - before);
}

/* Return what a handler is shown: a tuple of the type, with its fields in their order. */
static PyObject *make_request(PyTypeObject *type, const struct parcel *parcel, PyObject *method,
			      PyObject *data)
{
	const struct request_head *head = &parcel->head;
	allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	PyObject *request = allocate(type, REQUEST_FIELDS);
	PyObject *fields[REQUEST_FIELDS] = {
		PyLong_FromUnsignedLongLong(head->id),
		PyLong_FromUnsignedLongLong(head->deadline),
		PyLong_FromUnsignedLong(head->attempt),
		PyBytes_FromStringAndSize((const char *)parcel->bytes + REQUEST_HEAD,
					  head->trace_bytes),
		Py_NewRef(method),
		Py_NewRef(data),
		PyLong_FromLong(1), /* input */
	};
	return fill_tuple(request, fields, REQUEST_FIELDS);
}

/* Writing */

/* Tell whether a record of so many bytes can be put in now, in one go. */
static bool has_room(End *end, size_t length)
{
	return !end->busy && !end->slot && length < LONG_COPY &&
	       aether_room(&end->ring, (uint32_t)length) == AETHER_OK;
}

static size_t request_length(const struct route *route, const struct parcel *parcel, PyObject *data)
{
	return REQUEST_HEAD + (size_t)parcel->head.trace_bytes + route->length +
	       (size_t)PyBytes_Size(data);
}

static bool routes_have_room(const struct way *way, const struct parcel *parcel, PyObject *data)
{
	for (size_t place = 0; place < way->count; place++) {
		const struct route *route = &way->routes[place];
		if (!has_room(route->producer, request_length(route, parcel, data)))
			return false;
	}
	return true;
}

static uint8_t *append(uint8_t *place, const void *bytes, size_t length)
{
	memcpy(place, bytes, length);
	return place + length;
}

/* Put a result into an edge that has room for it, as the request of the next stage. */
static void put_request(const struct route *route, const struct parcel *parcel, PyObject *data)
{
	struct aether_ring *ring = &route->producer->ring;
	uint16_t method_bytes = htole16(route->length);
	uint32_t length = (uint32_t)request_length(route, parcel, data);
	uint8_t *payload;
	if (aether_reserve(ring, length, &payload) != AETHER_OK)
		return; /* not after has_room */
	/* All of the head but the method's length is as it came; then the trace. */
	uint8_t *place = append(payload, parcel->bytes, REQUEST_HEAD - sizeof(method_bytes));
	place = append(place, &method_bytes, sizeof(method_bytes));
	place = append(place, parcel->bytes + REQUEST_HEAD, parcel->head.trace_bytes);
	place = append(place, route->method, route->length);
	append(place, PyBytes_AsString(data), (size_t)PyBytes_Size(data));
	aether_commit(ring, payload, length, REQUEST);
	wake_consumer(route->producer);
}

static size_t answer_length(const struct answer *answer)
{
	return ANSWER_HEAD + (answer->data ? (size_t)PyBytes_Size(answer->data) : 0);
}

/* Put an answer into the channel, which has room for it. */
static void put_answer(End *channel, const struct answer *answer)
{
	uint64_t id = htole64(answer->id);
	uint32_t words[] = {htole32(answer->status), htole32(answer->stage)};
	uint32_t length = (uint32_t)answer_length(answer);
	uint8_t *payload;
	if (aether_reserve(&channel->ring, length, &payload) != AETHER_OK)
		return; /* not after has_room */
	uint8_t *place = append(payload, &id, sizeof(id));
	place = append(place, words, sizeof(words));
	if (answer->data)
		append(place, PyBytes_AsString(answer->data), length - ANSWER_HEAD);
	aether_commit(&channel->ring, payload, length, RESPONSE);
	wake_consumer(channel);
}

#endif
