/* SPDX-License-Identifier: Apache-2.0 */
/* The stages of pipelines that a process is: their edges, and the records that reach them. */
#ifndef AETHERLESS_STAGES_H
#define AETHERLESS_STAGES_H

#include <stdio.h>

#include "records.h"

#define AETHER_NAME 65	      /* of a pipeline or a stage, terminated */
#define AETHER_METHOD 256     /* of a handler's method, terminated */
#define AETHER_SLOTS 256      /* runs that an at-most-once consumer notes */
#define AETHER_SLOTS_AT 512   /* in a control block */
#define AETHER_LET_GO_AT 2560 /* the generation of the consumer that let go */
#define AETHER_FINISHED 4096  /* runs that a stage with several inputs remembers */

struct aether_stage {
	struct aether_stage *next;
	char pipeline[AETHER_NAME], name[AETHER_NAME], method[AETHER_METHOD];
	uint32_t number, inputs, outputs;
	bool at_most_once;
	bool dropped;
	uint64_t finished[AETHER_FINISHED];
	uint32_t finished_count; /* modulo their number: where the next goes */
};

/* A record of an input that is not let go of. Those that were are kept until older ones were too.
 */
struct aether_held {
	struct aether_held *next;
	struct aether_taken *taken; /* NULL once it was let go of */
	struct aether_request request;
	uint64_t end;
	uint32_t slot; /* of at-most-once */
	bool at_work;
};

/* One region of an edge, of which this process is either end. */
struct aether_edge {
	struct aether_edge *next;
	struct aether_stage *stage;
	struct aether_region region;
	struct aether_ring ring;
	char other[AETHER_NAME]; /* the stage at the other end */
	bool consumes;
	bool dropped; /* to be let go of when no handler runs */
	uint64_t number;
	uint64_t generation, seen;
	uint32_t place;		  /* which of the stage's inputs */
	struct aether_held *held; /* oldest first */
};

struct aether_stages {
	struct aether_stage *stages;
	struct aether_edge *edges;
	char damaged[2 * AETHER_NAME + AETHER_NAME]; /* the edge to be told of; empty for none */
};

static inline struct aether_stage *aether_find_stage(struct aether_stages *all,
						     const char *pipeline, size_t length,
						     const char *name, size_t name_length)
{
	for (struct aether_stage *stage = all->stages; stage; stage = stage->next)
		if (!stage->dropped && strlen(stage->pipeline) == length &&
		    strlen(stage->name) == name_length &&
		    memcmp(stage->pipeline, pipeline, length) == 0 &&
		    memcmp(stage->name, name, name_length) == 0)
			return stage;
	return NULL;
}

/* Find the stage that a record's method, "pipeline/stage", names. */
static inline struct aether_stage *aether_stage_of(struct aether_stages *all,
						   const struct aether_request *request)
{
	const char *slash = memchr(request->method, '/', request->method_length);
	if (!slash)
		return NULL;
	size_t length = (size_t)(slash - request->method);
	return aether_find_stage(all, request->method, length, slash + 1,
				 request->method_length - length - 1);
}

/* Holding records and letting go of them */

static inline void aether_set_word(struct aether_edge *edge, size_t offset, uint64_t value)
{
	aether_store_index(&edge->ring, offset, value);
}

/* A slot of an at-most-once consumer that is free; AETHER_SLOTS when none is. */
static inline uint32_t aether_free_slot(const struct aether_edge *edge)
{
	uint32_t slot = 0;
	while (slot < AETHER_SLOTS && aether_load_index(&edge->ring, AETHER_SLOTS_AT + 8 * slot))
		slot++;
	return slot;
}

static inline void aether_give_back(struct aether_edge *edge, uint64_t end)
{
	aether_wake(&edge->ring, aether_release_to(&edge->ring, end), AETHER_PRODUCER_ASLEEP,
		    edge->region.descriptors[2]);
}

static inline void aether_free_held(struct aether_edge *edge, struct aether_held *held)
{
	struct aether_held **link = &edge->held;
	while (*link != held)
		link = &(*link)->next;
	*link = held->next;
	free(held->taken);
	free(held);
}

/* Take note that a record was handled, and give the places of the oldest back. */
static inline void aether_let_go(struct aether_edge *edge, struct aether_held *held)
{
	if (edge->stage->at_most_once) {
		aether_set_word(edge, AETHER_SLOTS_AT + 8 * held->slot, 0);
		aether_free_held(edge, held);
		return;
	}
	uint64_t end = 0;
	bool any = false;
	free(held->taken);
	held->taken = NULL;
	held->at_work = false;
	while (edge->held && !edge->held->taken) {
		end = edge->held->end;
		any = true;
		aether_free_held(edge, edge->held);
	}
	if (any)
		aether_give_back(edge, end);
}

/* Keep a record that was taken; with at-most-once its place is given back now. */
static inline struct aether_held *aether_keep(struct aether_edge *edge, struct aether_taken *taken,
					      uint32_t slot)
{
	struct aether_held *held = calloc(1, sizeof(*held));
	if (!held)
		return NULL;
	held->taken = taken;
	held->end = taken->end;
	held->slot = slot;
	bool whole = aether_parse(taken->payload, taken->length, &held->request);
	uint64_t begin = taken->end - aether_stride(taken->length);
	if (!edge->stage->at_most_once && begin < edge->seen)
		held->request.attempt++;
	struct aether_held **link = &edge->held;
	while (*link)
		link = &(*link)->next;
	*link = held;
	if (edge->stage->at_most_once) {
		aether_set_word(edge, AETHER_SLOTS_AT + 8 * slot, held->request.id);
		aether_give_back(edge, held->end);
	}
	if (whole)
		return held;
	aether_let_go(edge, held);
	return NULL;
}

/* Take the next record of an input: NULL and EMPTY when there is none, NULL and OK for a malformed
 * one, which is passed over. */
static inline struct aether_held *aether_take_held(struct aether_edge *edge,
						   enum aether_result *result)
{
	struct aether_record record;
	uint32_t slot = edge->stage->at_most_once ? aether_free_slot(edge) : 0;
	*result = slot == AETHER_SLOTS ? AETHER_EMPTY : aether_next(&edge->ring, &record);
	if (*result != AETHER_OK)
		return NULL;
	struct aether_taken *taken = aether_copy(&edge->ring, &record, result);
	return taken ? aether_keep(edge, taken, slot) : NULL;
}

/* Edges that come and go */

/* Let go of an edge's region now; what waited in it is for its next consumer. */
static inline void aether_close_edge(struct aether_stages *all, struct aether_edge *edge)
{
	struct aether_edge **link = &all->edges;
	while (*link != edge)
		link = &(*link)->next;
	*link = edge->next;
	while (edge->held)
		aether_free_held(edge, edge->held);
	if (edge->consumes && edge->ring.control)
		aether_set_word(edge, AETHER_LET_GO_AT, edge->generation);
	aether_unmap(&edge->region);
	free(edge);
}

/* Whether an edge has the name "pipeline/from/to". */
static inline bool aether_is_named(const struct aether_edge *edge, const char *name)
{
	char own[3 * AETHER_NAME];
	const char *from = edge->consumes ? edge->other : edge->stage->name;
	const char *to = edge->consumes ? edge->stage->name : edge->other;
	snprintf(own, sizeof(own), "%s/%s/%s", edge->stage->pipeline, from, to);
	return strcmp(own, name) == 0;
}

/* Have an edge's regions let go of: of one role and number, or all. */
static inline void aether_drop_named(struct aether_stages *all, const char *name, const char *role,
				     uint64_t number)
{
	for (struct aether_edge *edge = all->edges; edge; edge = edge->next)
		if (aether_is_named(edge, name) &&
		    (!role || (edge->consumes == (role[0] == 'c') && edge->number == number)))
			edge->dropped = true;
}

/* Let go of an edge whose ring is damaged; the service is told before the next sleep. */
static inline void aether_become_damaged(struct aether_stages *all, const char *name)
{
	char copy[3 * AETHER_NAME];
	snprintf(copy, sizeof(copy), "%s", name);
	aether_drop_named(all, copy, NULL, 0);
	memcpy(all->damaged, copy, sizeof(all->damaged));
}

static inline void aether_edge_damaged(struct aether_stages *all, const struct aether_edge *edge)
{
	char name[3 * AETHER_NAME];
	snprintf(name, sizeof(name), "%s/%s/%s", edge->stage->pipeline,
		 edge->consumes ? edge->other : edge->stage->name,
		 edge->consumes ? edge->stage->name : edge->other);
	aether_become_damaged(all, name);
}

/* Map an edge's region and make this process's end of it; 0 or EINVAL. */
static inline int aether_open_edge(struct aether_edge *edge, uint64_t ring_bytes)
{
	int failed = aether_map(&edge->region, ring_bytes);
	if (failed)
		return failed;
	edge->ring = aether_end(edge->region.memory, ring_bytes, AETHER_TO_PEER);
	return edge->consumes && aether_resume(&edge->ring) != AETHER_OK ? EINVAL : 0;
}

/* The stage of this process that an edge "pipeline/from/to" belongs to; the other end's name. */
static inline struct aether_stage *aether_owner(struct aether_stages *all, const char *name,
						bool consumes, char other[AETHER_NAME])
{
	const char *from = strchr(name, '/');
	const char *to = from ? strchr(from + 1, '/') : NULL;
	if (!to)
		return NULL;
	const char *own = consumes ? to + 1 : from + 1;
	size_t from_length = (size_t)(to - from - 1), to_length = strlen(to + 1);
	snprintf(other, AETHER_NAME, "%.*s", (int)(consumes ? from_length : to_length),
		 consumes ? from + 1 : to + 1);
	return aether_find_stage(all, name, (size_t)(from - name), own,
				 consumes ? to_length : from_length);
}

/* Take on an end of an edge's region; the descriptors are its own. */
static inline void aether_add_edge(struct aether_stages *all, const char *said, int descriptors[3])
{
	char name[3 * AETHER_NAME], role[16], other[AETHER_NAME];
	bool known = aether_text(said, "name", name, sizeof(name)) &&
		     aether_text(said, "role", role, sizeof(role));
	bool consumes = known && strcmp(role, "consumer") == 0;
	known = known && (consumes || strcmp(role, "producer") == 0);
	struct aether_stage *stage = known ? aether_owner(all, name, consumes, other) : NULL;
	struct aether_edge *edge = stage ? calloc(1, sizeof(*edge)) : NULL;
	if (!edge) {
		aether_close_all(descriptors);
		return;
	}
	edge->stage = stage;
	edge->consumes = consumes;
	edge->number = aether_number(said, "region");
	edge->generation = aether_number(said, "generation");
	edge->seen = aether_number(said, "seen");
	edge->place = (uint32_t)aether_number(said, "input");
	snprintf(edge->other, sizeof(edge->other), "%s", other);
	memcpy(edge->region.descriptors, descriptors, sizeof(edge->region.descriptors));
	aether_drop_named(all, name, role, edge->number);
	edge->next = all->edges;
	all->edges = edge;
	if (aether_open_edge(edge, aether_number(said, "ring_bytes")))
		aether_become_damaged(all, name);
}

/* Stages that come and go */

static inline void aether_add_stage(struct aether_stages *all, const char *said)
{
	char pipeline[AETHER_NAME], name[AETHER_NAME], delivery[16] = "";
	if (!aether_text(said, "pipeline", pipeline, sizeof(pipeline)) ||
	    !aether_text(said, "stage", name, sizeof(name)))
		return;
	struct aether_stage *stage =
		aether_find_stage(all, pipeline, strlen(pipeline), name, strlen(name));
	if (!stage) {
		stage = calloc(1, sizeof(*stage));
		if (!stage)
			return;
		stage->next = all->stages;
		all->stages = stage;
	}
	memcpy(stage->pipeline, pipeline, sizeof(pipeline));
	memcpy(stage->name, name, sizeof(name));
	stage->method[0] = 0;
	aether_text(said, "method", stage->method, sizeof(stage->method));
	aether_text(said, "delivery", delivery, sizeof(delivery));
	stage->at_most_once = strcmp(delivery, "at-most-once") == 0;
	stage->number = (uint32_t)aether_number(said, "number");
	stage->inputs = (uint32_t)aether_number(said, "inputs");
	stage->outputs = (uint32_t)aether_number(said, "outputs");
}

/* Have every edge of a stage let go of, and forget it. */
static inline void aether_drop_stage(struct aether_stages *all, const char *said)
{
	char pipeline[AETHER_NAME], name[AETHER_NAME];
	if (!aether_text(said, "pipeline", pipeline, sizeof(pipeline)) ||
	    !aether_text(said, "stage", name, sizeof(name)))
		return;
	struct aether_stage *stage =
		aether_find_stage(all, pipeline, strlen(pipeline), name, strlen(name));
	if (!stage)
		return;
	stage->dropped = true;
	for (struct aether_edge *edge = all->edges; edge; edge = edge->next)
		if (edge->stage == stage)
			edge->dropped = true;
}

static inline bool aether_has_edges(const struct aether_stages *all,
				    const struct aether_stage *stage)
{
	for (const struct aether_edge *edge = all->edges; edge; edge = edge->next)
		if (edge->stage == stage)
			return true;
	return false;
}

/* Let go of what was dropped and is not at work; with `all_of_it` of everything. Not while a
 * handler runs. */
static inline void aether_purge(struct aether_stages *all, bool all_of_it)
{
	struct aether_edge *edge = all->edges, *next;
	for (; edge; edge = next) {
		next = edge->next;
		if (all_of_it || edge->dropped)
			aether_close_edge(all, edge);
	}
	struct aether_stage **link = &all->stages;
	while (*link) {
		struct aether_stage *stage = *link;
		if (!all_of_it && (!stage->dropped || aether_has_edges(all, stage))) {
			link = &stage->next;
			continue;
		}
		*link = stage->next;
		free(stage);
	}
}

/* Do what the service says of stages and edges; the descriptors are ours. */
static inline void aether_hear_stages(struct aether_stages *all, const char *said,
				      int descriptors[3])
{
	char name[3 * AETHER_NAME], role[16];
	if (aether_says(said, "edge")) {
		aether_add_edge(all, said, descriptors);
		return;
	}
	aether_close_all(descriptors);
	if (aether_says(said, "stage"))
		aether_add_stage(all, said);
	else if (aether_says(said, "stage-drop"))
		aether_drop_stage(all, said);
	else if (aether_says(said, "edge-drop") && aether_text(said, "name", name, sizeof(name)) &&
		 aether_text(said, "role", role, sizeof(role)))
		aether_drop_named(all, name, role, aether_number(said, "region"));
}

/* Several inputs */

/* Find the oldest record of a run that waits in one of a stage's inputs. */
static inline struct aether_held *aether_find_part(struct aether_stages *all,
						   const struct aether_stage *stage, uint32_t place,
						   uint64_t run, struct aether_edge **owner)
{
	for (struct aether_edge *edge = all->edges; edge; edge = edge->next) {
		if (!edge->consumes || edge->dropped || edge->stage != stage ||
		    edge->place != place)
			continue;
		for (struct aether_held *held = edge->held; held; held = held->next)
			if (held->taken && held->request.id == run) {
				*owner = edge;
				return held;
			}
	}
	return NULL;
}

static inline bool aether_is_finished(const struct aether_stage *stage, uint64_t run)
{
	for (uint32_t place = 0; place < AETHER_FINISHED; place++)
		if (stage->finished[place] == run)
			return true;
	return false;
}

static inline void aether_finish(struct aether_stage *stage, uint64_t run)
{
	stage->finished[stage->finished_count++ % AETHER_FINISHED] = run;
}

/* Let go of a run's parts in a stage; it is over. */
static inline void aether_forget_run(struct aether_stages *all, struct aether_stage *stage,
				     uint64_t run)
{
	struct aether_edge *edge;
	aether_finish(stage, run);
	for (uint32_t place = 0; place < stage->inputs; place++) {
		struct aether_held *held = aether_find_part(all, stage, place, run, &edge);
		if (held && !held->at_work)
			aether_let_go(edge, held);
	}
}

/* Let go of parts whose deadline has passed. */
static inline void aether_sweep(struct aether_stages *all)
{
	uint64_t now = aether_real_now();
	for (struct aether_edge *edge = all->edges; edge; edge = edge->next) {
		if (!edge->consumes || edge->stage->inputs < 2)
			continue;
		struct aether_held *held = edge->held, *next;
		for (; held; held = next) {
			uint64_t deadline = held->request.deadline_ns;
			next = held->next;
			if (held->taken && !held->at_work && deadline && deadline <= now) {
				aether_forget_run(all, edge->stage, held->request.id);
				next = edge->held; /* what was let go of is freed */
			}
		}
	}
}

#endif
