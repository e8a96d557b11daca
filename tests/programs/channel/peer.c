/* SPDX-License-Identifier: Apache-2.0 */
/* The C client as the tests drive it; peer.py says what each command does. */
#define _GNU_SOURCE
#include <stdio.h>

#include "aetherless.h"

#define RECORD_ROOM (16u << 20)
#define LIMIT_NS (60ull * AETHER_SECOND)

static uint8_t payload[RECORD_ROOM];

static uint32_t fill(uint8_t *target, uint32_t length, uint32_t seed)
{
	for (uint32_t place = 0; place < length; place++)
		target[place] = (uint8_t)(seed * 31 + place * 7 + (place >> 8));
	return length;
}

static uint32_t length_of(uint32_t number)
{
	return 1 + (uint64_t)number * 7919 % (number % 10 ? 600 : 16384);
}

static uint8_t *map(const char *descriptor, uint64_t ring_bytes)
{
	void *memory = mmap(NULL, 3 * AETHER_PAGE + 2 * ring_bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED, atoi(descriptor), 0);
	return memory == MAP_FAILED ? NULL : memory;
}

static const char *refusal(const struct aether_ring *ring, enum aether_result result)
{
	static const char *const faults[] = {"", "index", "length", "sequence", "checksum"};
	static char text[128];
	if (result != AETHER_CORRUPT)
		return result == AETHER_FULL	    ? "full"
		       : result == AETHER_EMPTY	    ? "empty"
		       : result == AETHER_TOO_LARGE ? "too_large"
						    : "timed_out";
	snprintf(text, sizeof(text), "corrupt %s %llu %llu", faults[ring->fault],
		 (unsigned long long)ring->expected, (unsigned long long)ring->actual);
	return text;
}

static void put(struct aether_ring *ring, uint32_t type, uint32_t length, uint32_t seed)
{
	uint8_t *place;
	enum aether_result result = aether_reserve(ring, length, &place);
	if (result == AETHER_OK) {
		fill(payload, length, seed);
		aether_fill(ring, place, payload, length, type);
		aether_publish(ring);
	}
	puts(result == AETHER_OK ? "ok" : refusal(ring, result));
}

static void take(struct aether_ring *ring)
{
	struct aether_record record;
	enum aether_result result = aether_next(ring, &record);
	if (result == AETHER_OK)
		result = aether_check(ring, &record, payload);
	if (result != AETHER_OK) {
		puts(refusal(ring, result));
		return;
	}
	aether_pass(ring, &record);
	aether_release(ring);
	printf("record %u ", record.type);
	for (uint32_t place = 0; place < record.length; place++)
		printf("%02x", payload[place]);
	putchar('\n');
}

static int script(uint8_t *memory, uint64_t ring_bytes)
{
	struct aether_ring producer = aether_end(memory, ring_bytes, AETHER_TO_PEER);
	struct aether_ring consumer = aether_end(memory, ring_bytes, AETHER_TO_PEER);
	char line[256];
	while (fgets(line, sizeof(line), stdin)) {
		unsigned type, length, seed;
		if (sscanf(line, "put %u %u %u", &type, &length, &seed) == 3)
			put(&producer, type, length, seed);
		else
			take(&consumer);
		fflush(stdout);
	}
	return 0;
}

/* The channel of one end whose other end is another peer. */
static struct aether_channel bare(char **given, uint64_t ring_bytes)
{
	uint8_t *memory = map(given[0], ring_bytes);
	return (struct aether_channel){
		.control = -1,
		.region.descriptors = {-1, atoi(given[1]), atoi(given[2])},
		.in = aether_end(memory, ring_bytes, AETHER_TO_PEER),
		.out = aether_end(memory, ring_bytes, AETHER_TO_PEER),
	};
}

static int produce(struct aether_channel *channel, uint32_t count)
{
	for (uint32_t number = 0; number < count; number++) {
		uint32_t length = fill(payload, length_of(number), number);
		enum aether_result result =
			aether_send(channel, payload, length, number, aether_now() + LIMIT_NS);
		if (result != AETHER_OK)
			return puts(refusal(&channel->out, result)), 1;
	}
	return 0;
}

static int consume(struct aether_channel *channel, uint32_t count)
{
	static uint8_t expected[RECORD_ROOM];
	for (uint32_t number = 0; number < count; number++) {
		struct aether_record record;
		enum aether_result result =
			aether_receive(channel, &record, payload, aether_now() + LIMIT_NS);
		if (result != AETHER_OK)
			return puts(refusal(&channel->in, result)), 1;
		uint32_t length = fill(expected, length_of(number), number);
		if (record.type != number || record.length != length ||
		    memcmp(payload, expected, length) != 0)
			return printf("record %u is not as it was written\n", number), 1;
	}
	return 0;
}

static enum aether_status say(struct aether_answer *answer, enum aether_status status,
			      const void *text, uint32_t length)
{
	memcpy(answer->data, text, length);
	answer->length = length;
	return status;
}

static bool is_method(const struct aether_request *request, const char *name)
{
	return request->method_length == strlen(name) &&
	       memcmp(request->method, name, request->method_length) == 0;
}

static enum aether_status describe(const struct aether_request *request,
				   struct aether_answer *answer)
{
	char text[512];
	int length = snprintf(text, sizeof(text), "%u %.*s", request->attempt,
			      request->trace_length, request->trace);
	return say(answer, AETHER_RESULT, text, (uint32_t)length);
}

static enum aether_status parts(const struct aether_request *request, struct aether_answer *answer)
{
	uint32_t length;
	const uint8_t *part;
	answer->length = (uint32_t)sprintf((char *)answer->data, "%u ", request->attempt);
	for (uint32_t place = 0; (part = aether_part(request, place, &length)); place++) {
		if (place)
			answer->data[answer->length++] = '|';
		memcpy(answer->data + answer->length, part, length);
		answer->length += length;
	}
	return AETHER_RESULT;
}

static enum aether_status grow(const struct aether_request *request, struct aether_answer *answer)
{
	char text[16];
	snprintf(text, sizeof(text), "%.*s", (int)request->length, (const char *)request->data);
	uint32_t wanted = (uint32_t)strtoul(text, NULL, 10);
	if (wanted > answer->room)
		return AETHER_FAILED;
	memset(answer->data, 0, wanted);
	answer->length = wanted;
	return AETHER_RESULT;
}

static const char *reason(enum aether_status status)
{
	switch (status) {
	case AETHER_FAILED:
		return "HANDLER_FAILED";
	case AETHER_NO_METHOD:
		return "METHOD_NOT_FOUND";
	case AETHER_DEADLINE_PASSED:
		return "INVOCATION_TIMEOUT";
	case AETHER_NOT_ALLOWED:
		return "CALL_NOT_ALLOWED";
	case AETHER_NO_FUNCTION:
		return "FUNCTION_NOT_FOUND";
	case AETHER_NOT_DELIVERED:
		return "NOT_DELIVERED";
	case AETHER_NO_ROOM:
		return "RING_FULL";
	case AETHER_CALL_TOO_LARGE:
		return "PAYLOAD_TOO_LARGE";
	default:
		return "PEER_GONE";
	}
}

static enum aether_status relay(const struct aether_request *request, struct aether_answer *answer)
{
	char function[256];
	struct aether_reply reply;
	const uint8_t *space = memchr(request->data, ' ', request->length);
	uint32_t length = space ? (uint32_t)(space - request->data) : request->length;
	uint32_t rest = space ? request->length - length - 1 : 0;
	snprintf(function, sizeof(function), "%.*s", (int)length, (const char *)request->data);
	enum aether_status status = aether_call(request->client, request, function,
						request->data + length + 1, rest, 0, &reply);
	if (status == AETHER_RESULT)
		say(answer, AETHER_RESULT, reply.data, reply.length);
	else
		answer->length = (uint32_t)sprintf((char *)answer->data, "%s %.*s", reason(status),
						   (int)reply.length, (const char *)reply.data);
	aether_free_reply(&reply);
	return AETHER_RESULT;
}

static enum aether_status handle(const struct aether_request *request, struct aether_answer *answer,
				 void *context)
{
	(void)context;
	if (request->method_length == 0 || is_method(request, "echo"))
		return say(answer, AETHER_RESULT, request->data, request->length);
	if (is_method(request, "fail"))
		return say(answer, AETHER_FAILED, "told to fail", 12);
	if (is_method(request, "describe"))
		return describe(request, answer);
	if (is_method(request, "parts"))
		return parts(request, answer);
	if (is_method(request, "grow"))
		return grow(request, answer);
	if (is_method(request, "relay"))
		return relay(request, answer);
	return AETHER_NO_METHOD;
}

int main(int count, char **arguments)
{
	if (count == 2 && strcmp(arguments[1], "serve") == 0)
		return aether_serve(NULL, handle, NULL);
	uint64_t ring_bytes = strtoull(arguments[count - 1], NULL, 10);
	if (strcmp(arguments[1], "script") == 0)
		return script(map(arguments[2], ring_bytes), ring_bytes);
	struct aether_channel channel = bare(arguments + 2, ring_bytes);
	uint32_t records = (uint32_t)strtoul(arguments[5], NULL, 10);
	return arguments[1][0] == 'p' ? produce(&channel, records) : consume(&channel, records);
}
