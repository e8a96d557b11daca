/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of a function's channel, in one header: answers and makes calls through shared memory.
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
 * file of this and of the headers that it includes. A client is for one thread.
 */
#ifndef AETHERLESS_H
#define AETHERLESS_H

#include "stages.h"

#define AETHER_RETRY_SOON 250000       /* ns; while a restore is looked out for */
#define AETHER_SOON 200000000	       /* ns; what takes longer is no checkpoint */
#define AETHER_RETRY 1000000	       /* ns; while nobody can be attached */
#define AETHER_RETRY_ATTACHED 50000000 /* ns; while another process is attached */
#define AETHER_HEADROOM 65792u	       /* before an answer: a head, a trace and a method's name */
#define AETHER_BUSY_RECORDS 64	       /* between looks at the control socket */
#define AETHER_EDGE_SLICE 1000000      /* ns; between looks for an edge that is not there yet */

/* Where a handler puts its answer; the data of the other states than RESULT is a message. */
struct aether_answer {
	uint8_t *data;
	uint32_t room;	 /* bytes that data has */
	uint32_t length; /* bytes that the handler wrote */
};

typedef enum aether_status (*aether_handler)(const struct aether_request *request,
					     struct aether_answer *answer, void *context);

/* How to serve. */
struct aether_options {
	const char *path; /* the side socket; NULL for what AETHER_CHANNEL names */
	aether_handler handler;
	void *context;
	uint64_t spin; /* ns to look again and again before sleeping */
};

/* What another function answered; free it with aether_free_reply. */
struct aether_reply {
	const uint8_t *data;
	uint32_t length;
	struct aether_taken *record;
};

/* An attachment with all that it has to do. */
struct aether_client {
	struct aether_channel channel; /* first, for aether_listen */
	struct aether_stages stages;
	struct aether_options options;
	struct aether_taken *queue; /* records that came while an answer was waited for */
	uint64_t calls;
	uint64_t swept;
	uint32_t records;
	uint32_t buffer_bytes;
	uint8_t *buffer;
	bool leaving;
};

static inline void aether_listen(struct aether_channel *channel, const char *said,
				 int descriptors[3])
{
	aether_hear_stages(&((struct aether_client *)channel)->stages, said, descriptors);
}

/* Attach once, for programs that only call; as aether_attach. */
static inline int aether_open(struct aether_client *client, const char *path)
{
	*client = (struct aether_client){0};
	int failed = aether_attach(&client->channel, path);
	client->channel.listener = aether_listen;
	return failed;
}

/* Let go of everything. */
static inline void aether_close(struct aether_client *client)
{
	aether_purge(&client->stages, true);
	while (client->queue) {
		struct aether_taken *taken = client->queue;
		client->queue = taken->next;
		free(taken);
	}
	free(client->buffer);
	client->buffer = NULL;
	aether_detach(&client->channel);
}

/* Answering */

static inline enum aether_result aether_respond(struct aether_client *client,
						const struct aether_request *request,
						enum aether_status status, uint32_t stage,
						const struct aether_answer *answer, uint64_t until)
{
	uint8_t *head = answer->data - AETHER_RESPONSE_HEAD;
	aether_put_little(head, request->id, 8);
	aether_put_little(head + 8, status, 4);
	aether_put_little(head + 12, stage, 4);
	enum aether_result sent =
		aether_send(&client->channel, head, AETHER_RESPONSE_HEAD + answer->length,
			    AETHER_RESPONSE, until);
	return sent == AETHER_TIMED_OUT ? AETHER_OK : sent; /* nobody waits for it any more */
}

/* The newest region of an output; NULL when there is none. */
static inline struct aether_edge *
aether_newest(struct aether_client *client, const struct aether_stage *stage, const char *target)
{
	struct aether_edge *newest = NULL;
	for (struct aether_edge *edge = client->stages.edges; edge; edge = edge->next)
		if (!edge->consumes && !edge->dropped && edge->stage == stage &&
		    strcmp(edge->other, target) == 0 && (!newest || edge->number > newest->number))
			newest = edge;
	return newest;
}

static inline void aether_pause_for(uint64_t nanoseconds)
{
	const struct timespec pause = {0, (long)nanoseconds};
	nanosleep(&pause, NULL);
}

/* Tell of an edge that is damaged. */
static inline enum aether_result aether_tell_damaged(struct aether_client *client)
{
	uint8_t head[AETHER_RESPONSE_HEAD] = {0};
	char *name = client->stages.damaged;
	const struct aether_piece pieces[AETHER_MANY] = {{head, sizeof(head)},
							 {name, (uint32_t)strlen(name)}};
	if (!*name)
		return AETHER_OK;
	aether_put_little(head + 8, AETHER_EDGE_DAMAGED, 4);
	enum aether_result sent = aether_send_pieces(&client->channel, pieces, AETHER_RESPONSE,
						     aether_now() + AETHER_SECOND);
	*name = 0;
	return sent == AETHER_TIMED_OUT ? AETHER_CLOSED : sent;
}

/* Write the head of a record for a stage that reads, before the answer; returns where it begins. */
static inline uint8_t *aether_address(const struct aether_request *request,
				      const struct aether_stage *stage, const char *target,
				      const struct aether_answer *answer)
{
	char method[2 * AETHER_NAME];
	struct aether_request out = *request;
	out.method_length =
		(uint16_t)snprintf(method, sizeof(method), "%s/%s", stage->pipeline, target);
	uint8_t *record = answer->data - AETHER_REQUEST_HEAD - out.trace_length - out.method_length;
	aether_write_request(record, &out);
	memcpy(record + AETHER_REQUEST_HEAD, out.trace, out.trace_length);
	memcpy(record + AETHER_REQUEST_HEAD + out.trace_length, method, out.method_length);
	return record;
}

/* Wait for room in an output, or let go of it when it is damaged: OK to try again, TIMED_OUT, or
 * what ends the attachment. */
static inline enum aether_result aether_make_way(struct aether_client *client,
						 struct aether_edge *edge, enum aether_result why,
						 uint32_t length, uint64_t until)
{
	const struct aether_wish wish = {&edge->ring, length};
	if (why == AETHER_CORRUPT) {
		aether_edge_damaged(&client->stages, edge);
		return aether_tell_damaged(client);
	}
	why = aether_nap(&client->channel, &wish, edge->region.descriptors[1], until);
	if (why == AETHER_CORRUPT)
		return AETHER_OK; /* the next try tells of it */
	if (why != AETHER_CLOSED || !aether_is_closed(&edge->ring))
		return why;
	edge->dropped = true;
	return AETHER_OK;
}

/* Put a stage's result into one output, waiting for room and for the edge: OK, TIMED_OUT, TOO_LARGE
 * or what ends the attachment. */
static inline enum aether_result
aether_publish_to(struct aether_client *client, const struct aether_request *request,
		  const struct aether_stage *stage, const char *target,
		  const struct aether_answer *answer, uint64_t until)
{
	uint8_t *record = aether_address(request, stage, target, answer);
	uint32_t length = (uint32_t)(answer->data - record) + answer->length;
	const struct aether_piece pieces[AETHER_MANY] = {{record, length}};
	for (;;) {
		struct aether_edge *edge = aether_newest(client, stage, target);
		enum aether_result result = AETHER_OK;
		if (edge) {
			int bell = edge->region.descriptors[2];
			result = aether_put(&edge->ring, bell, pieces, AETHER_REQUEST);
			if (result == AETHER_OK || result == AETHER_TOO_LARGE)
				return result;
			result = aether_make_way(client, edge, result, length, until);
		} else {
			aether_pause_for(AETHER_EDGE_SLICE);
			result = aether_hear(&client->channel);
		}
		if (result != AETHER_OK)
			return result;
		if (!edge && aether_now() >= until)
			return AETHER_TIMED_OUT;
	}
}

/* Collect the stages that read of a stage; returns how many. */
static inline uint32_t aether_targets(struct aether_client *client,
				      const struct aether_stage *stage,
				      char (*targets)[AETHER_NAME])
{
	uint32_t count = 0;
	for (struct aether_edge *edge = client->stages.edges; edge; edge = edge->next) {
		bool known = edge->consumes || edge->dropped || edge->stage != stage;
		for (uint32_t place = 0; !known && place < count; place++)
			known = strcmp(targets[place], edge->other) == 0;
		if (!known && count < stage->outputs)
			memcpy(targets[count++], edge->other, AETHER_NAME);
	}
	return count;
}

/* Hand a stage's result to every stage that reads of it; status is what to say on the channel. */
static inline enum aether_result aether_pass_on(struct aether_client *client,
						const struct aether_request *request,
						const struct aether_stage *stage,
						struct aether_answer *answer, uint64_t until,
						enum aether_status *status)
{
	char (*targets)[AETHER_NAME] = calloc(stage->outputs, AETHER_NAME);
	enum aether_result result = targets ? AETHER_OK : AETHER_TIMED_OUT;
	while (result == AETHER_OK && aether_targets(client, stage, targets) < stage->outputs) {
		aether_pause_for(AETHER_EDGE_SLICE);
		result = aether_now() >= until ? AETHER_TIMED_OUT : aether_hear(&client->channel);
	}
	for (uint32_t place = 0; result == AETHER_OK && place < stage->outputs; place++)
		result = aether_publish_to(client, request, stage, targets[place], answer, until);
	free(targets);
	*status = result == AETHER_OK	       ? AETHER_PASSED_ON
		  : result == AETHER_TOO_LARGE ? AETHER_FAILED
					       : AETHER_DEADLINE_PASSED;
	answer->length = 0;
	return result == AETHER_TIMED_OUT || result == AETHER_TOO_LARGE ? AETHER_OK : result;
}

/* The bytes that a handler may write for a request to this stage, or call. */
static inline uint32_t aether_answer_room(struct aether_client *client,
					  const struct aether_request *request,
					  const struct aether_stage *stage)
{
	uint32_t room = aether_largest(&client->channel.out) - AETHER_RESPONSE_HEAD;
	if (!stage || !stage->outputs)
		return room;
	for (struct aether_edge *edge = client->stages.edges; edge; edge = edge->next) {
		if (edge->consumes || edge->dropped || edge->stage != stage)
			continue;
		uint32_t head = AETHER_REQUEST_HEAD + request->trace_length + 2 * AETHER_NAME;
		uint32_t largest = aether_largest(&edge->ring);
		uint32_t fits = head < largest ? largest - head : 0;
		room = fits < room ? fits : room;
	}
	return room;
}

/* Give a handler a buffer; false for want of memory. */
static inline bool aether_have_buffer(struct aether_client *client, uint32_t room)
{
	if (client->buffer_bytes >= AETHER_HEADROOM + room)
		return true;
	free(client->buffer);
	client->buffer = malloc(AETHER_HEADROOM + (size_t)room);
	client->buffer_bytes = client->buffer ? AETHER_HEADROOM + room : 0;
	return client->buffer != NULL;
}

/* Answer one request, or hand its result on; on_channel when it came on the channel. */
static inline enum aether_result aether_handle(struct aether_client *client,
					       struct aether_request *request,
					       const struct aether_stage *stage, bool on_channel)
{
	uint64_t until = aether_deadline(request);
	uint32_t room = aether_answer_room(client, request, stage);
	uint32_t number = stage ? stage->number + 1 : 0;
	enum aether_status status = AETHER_DEADLINE_PASSED;
	if (!aether_have_buffer(client, room))
		return AETHER_CLOSED;
	struct aether_answer answer = {client->buffer + AETHER_HEADROOM, room, 0};
	request->client = client;
	if (stage) {
		request->method = stage->method;
		request->method_length = (uint16_t)strlen(stage->method);
	}
	if (until && !stage && memchr(request->method, '/', request->method_length))
		status = AETHER_NO_METHOD; /* only stages are named so, and this is none of ours */
	else if (until)
		status = client->options.handler(request, &answer, client->options.context);
	if (answer.length > room)
		answer.length = room; /* it has overrun its buffer; say no more than is there */
	if (status == AETHER_RESULT && stage && stage->outputs) {
		enum aether_result result =
			aether_pass_on(client, request, stage, &answer, until, &status);
		if (result != AETHER_OK || (status == AETHER_PASSED_ON && !on_channel))
			return result;
	}
	return aether_respond(client, request, status, number, &answer, until);
}

/* Records of edges */

/* One part of what a stage with several inputs handles. */
struct aether_ready {
	struct aether_edge *edge;
	struct aether_held *held;
};

/* Put the parts of a run together as docs/ipc.md says; NULL for want of memory. */
static inline uint8_t *aether_gather(const struct aether_ready *ready, uint32_t count,
				     struct aether_request *request)
{
	size_t total = 4;
	for (uint32_t place = 0; place < count; place++)
		total += 4 + (size_t)ready[place].held->request.length;
	uint8_t *data = total < UINT32_MAX ? malloc(total) : NULL;
	if (!data)
		return NULL;
	uint8_t *at = data + 4;
	aether_put_little(data, count, 4);
	for (uint32_t place = 0; place < count; place++) {
		const struct aether_request *part = &ready[place].held->request;
		aether_put_little(at, part->length, 4);
		memcpy(at + 4, part->data, part->length);
		at += 4 + part->length;
		if (part->attempt > request->attempt)
			request->attempt = part->attempt;
	}
	request->data = data;
	request->length = (uint32_t)total;
	request->inputs = count;
	return data;
}

/* Handle what became complete, then let go of its parts. */
static inline enum aether_result aether_handle_parts(struct aether_client *client,
						     struct aether_stage *stage,
						     const struct aether_ready *ready,
						     uint32_t count)
{
	struct aether_request request = ready[0].held->request;
	uint8_t *data = count > 1 ? aether_gather(ready, count, &request) : NULL;
	if (count > 1 && !data)
		return AETHER_CLOSED;
	for (uint32_t place = 0; place < count; place++)
		ready[place].held->at_work = true;
	enum aether_result result = aether_handle(client, &request, stage, false);
	free(data);
	for (uint32_t place = 0; result == AETHER_OK && place < count; place++)
		aether_let_go(ready[place].edge, ready[place].held);
	return result;
}

/* Handle a record of an input, once those of the other inputs are there. */
static inline enum aether_result
aether_handle_held(struct aether_client *client, struct aether_edge *edge, struct aether_held *held)
{
	struct aether_stage *stage = edge->stage;
	struct aether_ready one = {edge, held};
	uint64_t run = held->request.id;
	if (stage->inputs < 2)
		return aether_handle_parts(client, stage, &one, 1);
	if (aether_is_finished(stage, run) ||
	    aether_find_part(&client->stages, stage, edge->place, run, &one.edge) != held) {
		aether_let_go(edge, held);
		return AETHER_OK;
	}
	struct aether_ready *ready = calloc(stage->inputs, sizeof(*ready));
	uint32_t count = 0;
	while (ready && count < stage->inputs) {
		struct aether_ready *part = &ready[count];
		part->held = aether_find_part(&client->stages, stage, count, run, &part->edge);
		if (!part->held)
			break;
		count++;
	}
	enum aether_result result = ready ? AETHER_OK : AETHER_CLOSED;
	if (ready && count == stage->inputs) {
		result = aether_handle_parts(client, stage, ready, count);
		aether_forget_run(&client->stages, stage, run); /* and repetitions of its parts */
	}
	free(ready);
	return result;
}

/* Have another input be looked at first the next time. */
static inline void aether_look_last(struct aether_stages *all, struct aether_edge *edge)
{
	struct aether_edge **link = &all->edges;
	if (!edge->next)
		return;
	while (*link != edge)
		link = &(*link)->next;
	*link = edge->next;
	edge->next = NULL;
	while (*link)
		link = &(*link)->next;
	*link = edge;
}

/* Handle a record of an input: EMPTY when there is none. */
static inline enum aether_result aether_look_at_edges(struct aether_client *client)
{
	for (struct aether_edge *edge = client->stages.edges; edge; edge = edge->next) {
		enum aether_result result;
		if (!edge->consumes || edge->dropped)
			continue;
		struct aether_held *held = aether_take_held(edge, &result);
		if (result == AETHER_EMPTY)
			continue;
		if (result == AETHER_CORRUPT)
			aether_edge_damaged(&client->stages, edge);
		if (!held)
			return result == AETHER_TIMED_OUT ? AETHER_CLOSED : AETHER_OK;
		aether_look_last(&client->stages, edge);
		return aether_handle_held(client, edge, held);
	}
	return AETHER_EMPTY;
}

/* Records of the channel */

static inline enum aether_result aether_handle_request(struct aether_client *client,
						       const struct aether_taken *taken)
{
	struct aether_request request;
	if (!aether_parse(taken->payload, taken->length, &request))
		return AETHER_OK;
	struct aether_stage *stage = aether_stage_of(&client->stages, &request);
	if (!stage && memchr(request.method, '/', request.method_length)) {
		enum aether_result heard = aether_hear(&client->channel);
		if (heard != AETHER_OK)
			return heard;
		stage = aether_stage_of(&client->stages, &request);
	}
	return aether_handle(client, &request, stage, true);
}

static inline void aether_be_over(struct aether_client *client, const struct aether_taken *taken)
{
	if (taken->length != 8)
		return;
	uint64_t run = aether_little(taken->payload, 8);
	aether_hear(&client->channel); /* of the stage, should it be new */
	for (struct aether_stage *stage = client->stages.stages; stage; stage = stage->next)
		if (stage->inputs > 1)
			aether_forget_run(&client->stages, stage, run);
}

/* Do what a record of the channel asks for. */
static inline enum aether_result aether_dispatch(struct aether_client *client,
						 const struct aether_taken *taken)
{
	switch (taken->type) {
	case AETHER_REQUEST:
		return aether_handle_request(client, taken);
	case AETHER_PING:
		return aether_send(&client->channel, taken->payload, taken->length, AETHER_PONG,
				   AETHER_FOREVER);
	case AETHER_SHUTDOWN:
		client->leaving = true;
		return AETHER_OK;
	case AETHER_OVER:
		aether_be_over(client, taken);
		return AETHER_OK;
	default:
		return AETHER_OK;
	}
}

/* Take a record that came earlier, or the next one: NULL and EMPTY when there is none. */
static inline struct aether_taken *aether_next_record(struct aether_client *client,
						      enum aether_result *result)
{
	struct aether_taken *taken = client->queue;
	if (!taken)
		return aether_take_out(&client->channel, result);
	client->queue = taken->next;
	return taken;
}

/* Keep a record for later. */
static inline void aether_queue(struct aether_client *client, struct aether_taken *taken)
{
	struct aether_taken **link = &client->queue;
	while (*link)
		link = &(*link)->next;
	*link = taken;
}

/* Calling */

static inline void aether_free_reply(struct aether_reply *reply)
{
	free(reply->record);
	*reply = (struct aether_reply){0};
}

/* Read the answer to a call; false when the record is another. */
static inline bool aether_is_reply(struct aether_taken *taken, uint64_t id,
				   struct aether_reply *reply, enum aether_status *status)
{
	if (taken->type != AETHER_RESPONSE || taken->length < AETHER_RESPONSE_HEAD ||
	    aether_little(taken->payload, 8) != id)
		return false;
	*status = (enum aether_status)aether_little(taken->payload + 8, 4);
	*reply = (struct aether_reply){taken->payload + AETHER_RESPONSE_HEAD,
				       taken->length - AETHER_RESPONSE_HEAD, taken};
	return true;
}

/* Wait for the answer to a call. */
static inline enum aether_status aether_await_reply(struct aether_client *client, uint64_t id,
						    uint64_t until, struct aether_reply *reply)
{
	const struct aether_wish wish = {&client->channel.in, 0};
	enum aether_status status;
	for (;;) {
		enum aether_result result;
		struct aether_taken *taken = aether_take_out(&client->channel, &result);
		if (taken && aether_is_reply(taken, id, reply, &status))
			return status;
		if (taken && taken->type == AETHER_PING)
			result = aether_dispatch(client, taken);
		if (taken && (taken->type == AETHER_PING || taken->type == AETHER_RESPONSE))
			free(taken);
		else if (taken)
			aether_queue(client, taken);
		else if (result == AETHER_EMPTY)
			result = aether_nap(&client->channel, &wish,
					    client->channel.region.descriptors[1], until);
		if (result != AETHER_OK)
			return result == AETHER_TIMED_OUT ? AETHER_DEADLINE_PASSED : AETHER_LOST;
	}
}

/*
 * Call another function ("id" or "id/method") and wait for its answer; reply is to be freed. Inside
 * a handler, within is its request: the call has its trace, and no later deadline. timeout is in
 * ns, 0 for what the request or the service allow.
 */
static inline enum aether_status
aether_call(struct aether_client *client, const struct aether_request *within, const char *function,
	    const void *data, uint32_t length, uint64_t timeout, struct aether_reply *reply)
{
	uint8_t head[AETHER_REQUEST_HEAD];
	struct aether_request call = {
		.id = ++client->calls,
		.deadline_ns = timeout ? aether_real_now() + timeout : 0,
		.attempt = 1,
		.trace_length = within ? within->trace_length : 0,
		.method_length = (uint16_t)strlen(function),
	};
	if (within && within->deadline_ns &&
	    (!call.deadline_ns || within->deadline_ns < call.deadline_ns))
		call.deadline_ns = within->deadline_ns;
	const struct aether_piece pieces[AETHER_MANY] = {
		{head, sizeof(head)},
		{within ? within->trace : NULL, call.trace_length},
		{function, call.method_length},
		{data, length}};
	uint64_t until = aether_deadline(&call);
	*reply = (struct aether_reply){0};
	aether_write_request(head, &call);
	switch (aether_send_pieces(&client->channel, pieces, AETHER_CALL, until)) {
	case AETHER_OK:
		return aether_await_reply(client, call.id, until, reply);
	case AETHER_TIMED_OUT:
		return AETHER_NO_ROOM;
	case AETHER_TOO_LARGE:
		return AETHER_CALL_TOO_LARGE;
	default:
		return AETHER_LOST;
	}
}

/* Serving */

/* Ask for the bells of all inputs: OK when there is something to take already. */
static inline enum aether_result aether_doze_edges(struct aether_client *client)
{
	enum aether_result all = AETHER_EMPTY;
	for (struct aether_edge *edge = client->stages.edges; edge; edge = edge->next) {
		const struct aether_wish wish = {&edge->ring, 0};
		if (!edge->consumes || edge->dropped ||
		    (edge->stage->at_most_once && aether_free_slot(edge) == AETHER_SLOTS))
			continue;
		enum aether_result result = aether_doze(&wish, AETHER_ON_DOORBELL);
		if (result == AETHER_CLOSED)
			edge->dropped = true;
		if (!aether_waits(result))
			all = AETHER_OK;
	}
	return all;
}

static inline size_t aether_fill_ears(struct aether_client *client, struct pollfd *ears)
{
	size_t count = 0;
	ears[count++] = (struct pollfd){client->channel.control, POLLIN | POLLRDHUP, 0};
	ears[count++] = (struct pollfd){client->channel.region.descriptors[1], POLLIN, 0};
	for (struct aether_edge *edge = client->stages.edges; edge; edge = edge->next)
		if (edge->consumes && !edge->dropped)
			ears[count++] = (struct pollfd){edge->region.descriptors[1], POLLIN, 0};
	return count;
}

/* Sleep until a bell rings, the service says something, or for half a second. */
static inline enum aether_result aether_sleep_well(struct aether_client *client)
{
	const struct aether_wish wish = {&client->channel.in, 0};
	enum aether_result result = aether_doze(&wish, AETHER_ON_DOORBELL);
	if (!aether_waits(result) || aether_doze_edges(client) == AETHER_OK)
		return result == AETHER_EMPTY ? AETHER_OK : result;
	size_t room = 2;
	for (struct aether_edge *edge = client->stages.edges; edge; edge = edge->next)
		room++;
	struct pollfd *ears = malloc(room * sizeof(*ears));
	if (!ears)
		return AETHER_CLOSED;
	size_t count = aether_fill_ears(client, ears);
	poll(ears, count, 500);
	bool heard = ears[0].revents != 0;
	for (size_t ear = 1; ear < count; ear++)
		if (ears[ear].revents)
			aether_hush(ears[ear].fd);
	free(ears);
	return heard ? aether_hear(&client->channel) : AETHER_OK;
}

/* Handle what is there: EMPTY when nothing is. */
static inline enum aether_result aether_work_once(struct aether_client *client)
{
	aether_purge(&client->stages, false);
	enum aether_result result = aether_tell_damaged(client);
	if (result != AETHER_OK)
		return result;
	struct aether_taken *taken = aether_next_record(client, &result);
	if (taken) {
		result = aether_dispatch(client, taken);
		free(taken);
	} else if (result == AETHER_EMPTY && !client->leaving) {
		result = aether_look_at_edges(client);
	}
	return result;
}

static inline enum aether_result aether_spin_or_sleep(struct aether_client *client)
{
	enum aether_result result = AETHER_EMPTY;
	uint64_t now = aether_now(), until = now + client->options.spin;
	if (now - client->swept > AETHER_SECOND / 2) {
		client->swept = now;
		aether_sweep(&client->stages);
	}
	while (result == AETHER_EMPTY && aether_now() < until) {
		aether_pause();
		result = aether_work_once(client);
	}
	return result == AETHER_EMPTY ? aether_sleep_well(client) : result;
}

/* Answer until the service ends the attachment, asks to let go, or damages the ring. */
static inline void aether_serve_attached(struct aether_client *client)
{
	for (;;) {
		enum aether_result result = aether_work_once(client);
		if (result == AETHER_EMPTY && client->leaving)
			return;
		if (result == AETHER_EMPTY)
			result = aether_spin_or_sleep(client);
		else if (result == AETHER_OK && ++client->records % AETHER_BUSY_RECORDS == 0)
			result = aether_hear(&client->channel);
		if (result != AETHER_OK)
			return;
	}
}

/* Whether attaching is worth another try, after a pause in ns. */
static inline long aether_retry(int failed, uint64_t tried)
{
	switch (failed) {
	case ENOENT:
	case ECONNREFUSED:
	case ECONNRESET:
	case EPIPE:
	case EAGAIN:
	case EINTR:
		return tried < AETHER_SOON ? AETHER_RETRY_SOON : AETHER_RETRY;
	case EBUSY:
		return AETHER_RETRY_ATTACHED;
	default:
		return 0;
	}
}

/* Attach, trying again until it succeeds or can't: 0 or an errno. */
static inline int aether_open_again(struct aether_client *client, const char *path)
{
	uint64_t began = aether_now();
	for (;;) {
		uint64_t tried = aether_now();
		int failed = aether_open(client, path);
		long pause = failed ? aether_retry(failed, tried - began) : 0;
		if (!failed || !pause)
			return failed;
		aether_pause_for((uint64_t)pause);
		if (aether_now() - tried > AETHER_SOON)
			began = aether_now(); /* it did not run for a while: it was restored now */
	}
}

/*
 * Answer the channel's calls and be the stages of pipelines, attaching anew whenever the service
 * let go. Returns only what can't be helped by another try: EACCES or EINVAL as aether_attach, or
 * another errno.
 */
static inline int aether_serve_with(const struct aether_options *options)
{
	struct aether_client client;
	for (;;) {
		int failed = aether_open_again(&client, options->path);
		if (failed)
			return failed;
		client.options = *options;
		aether_serve_attached(&client);
		aether_close(&client);
	}
}

static inline int aether_serve(const char *path, aether_handler handler, void *context)
{
	const struct aether_options options = {
		.path = path, .handler = handler, .context = context};
	return aether_serve_with(&options);
}

#endif
