/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of a channel: a ring in shared memory with one producer and one consumer.
 *
 * ../README.md has the layout. A side's own index is kept here and is authoritative; what the
 * other side wrote is read once, checked for distance and alignment, and never trusted: whatever
 * it writes, nothing outside the data area is touched and no unchecked byte is handed out by
 * aether_receive. Nothing here allocates, blocks or has state beside struct aether_ring.
 */
#ifndef AETHER_RING_H
#define AETHER_RING_H

#include <stdbool.h>

#include "checksum.h"

#define AETHER_HEAD 16u		   /* bytes of a record before its payload */
#define AETHER_ALIGNMENT 64u	   /* of a record */
#define AETHER_SKIP 0xFFFFFFFFu	   /* the length of a record that closes the end of the buffer */
#define AETHER_LARGEST (16u << 20) /* bytes of a payload, or a quarter of the ring if less */
#define AETHER_CLOSED_OFFSET 12	   /* in the header page: u32 */
#define AETHER_PRODUCED_OFFSET 0   /* in a control block: u64, of the producer */
#define AETHER_CONSUMED_OFFSET 128 /* u64, of the consumer */
#define AETHER_PRODUCER_ASLEEP 256 /* u32, of the producer; the consumer may clear it */
#define AETHER_CONSUMER_ASLEEP 384 /* u32, of the consumer; the producer may clear it */
#define AETHER_PUSHED 1024u	   /* bytes of a record that are pushed at most */

/* How a side that sleeps wants to be woken. */
enum aether_sleep { AETHER_AWAKE = 0, AETHER_ON_FUTEX = 1, AETHER_ON_DOORBELL = 2 };

enum aether_result {
	AETHER_OK = 0,
	AETHER_FULL,
	AETHER_EMPTY,
	AETHER_TOO_LARGE,
	AETHER_CORRUPT,
	AETHER_CLOSED,
	AETHER_TIMED_OUT,
};

/* What can be damaged; fault says it, expected and actual are its values. */
enum aether_fault {
	AETHER_FAULT_NONE = 0,
	AETHER_FAULT_INDEX,
	AETHER_FAULT_LENGTH,
	AETHER_FAULT_SEQUENCE,
	AETHER_FAULT_CHECKSUM,
};

struct aether_counts {
	uint64_t records;
	uint64_t bytes;	   /* of payloads */
	uint64_t waits;	   /* that did not find what they waited for at once */
	uint64_t sleeps;   /* of them, those that the spinning did not end */
	uint64_t wakes;	   /* of the other side */
	uint64_t refusals; /* full, empty or too large */
};

struct aether_ring {
	uint8_t *control; /* this direction's control block */
	uint8_t *data;	  /* its data area, aligned to a page */
	uint8_t *closed;  /* the header's closed word */
	aether_checksum checksum;
	uint64_t size;	/* of the data area, a power of two */
	uint64_t own;	/* this side's index */
	uint64_t other; /* the other side's, as last checked */
	uint64_t
		given; /* a consumer's index as the producer sees it: records from there are held */
	uint32_t sequence;
	bool push;		 /* a producer's choice: see aether_push */
	bool any_sequence;	 /* the next record's is taken as it is: after aether_resume */
	enum aether_fault fault; /* once set, the ring is of no more use */
	uint64_t expected;
	uint64_t actual;
	struct aether_counts counts;
};

/* A record where it lies. */
struct aether_record {
	uint8_t *payload;
	uint32_t length;
	uint32_t type;
	uint32_t sequence;
	uint32_t checksum; /* as its producer wrote it */
	uint64_t stride;   /* from this side's index to the next record */
};

static inline uint64_t aether_stride(uint32_t length)
{
	return ((uint64_t)length + AETHER_HEAD + AETHER_ALIGNMENT - 1) &
	       ~(uint64_t)(AETHER_ALIGNMENT - 1);
}

static inline uint32_t aether_largest(const struct aether_ring *ring)
{
	return ring->size / 4 < AETHER_LARGEST ? (uint32_t)(ring->size / 4) : AETHER_LARGEST;
}

static inline uint64_t aether_load_index(const struct aether_ring *ring, size_t offset)
{
	return __atomic_load_n((uint64_t *)(ring->control + offset), __ATOMIC_ACQUIRE);
}

static inline void aether_store_index(struct aether_ring *ring, size_t offset, uint64_t index)
{
	__atomic_store_n((uint64_t *)(ring->control + offset), index, __ATOMIC_RELEASE);
}

static inline uint32_t *aether_word(const struct aether_ring *ring, size_t offset)
{
	return (uint32_t *)(ring->control + offset);
}

static inline bool aether_is_closed(const struct aether_ring *ring)
{
	return __atomic_load_n((uint32_t *)ring->closed, __ATOMIC_ACQUIRE) != 0;
}

static inline enum aether_result aether_damaged(struct aether_ring *ring, enum aether_fault fault,
						uint64_t expected, uint64_t actual)
{
	ring->fault = fault;
	ring->expected = expected;
	ring->actual = actual;
	return AETHER_CORRUPT;
}

static inline enum aether_result aether_refused(struct aether_ring *ring, enum aether_result result)
{
	ring->counts.refusals++;
	return result;
}

/* The producer */

/*
 * Hand the lines of a small record on to the cache that all cores share, where the processor can
 * (CLDEMOTE; others do nothing). A consumer that spins on another core then need not fetch them
 * from this core's own cache; one on the same core has to fetch them back.
 */
static inline void aether_push(const uint8_t *head, uint64_t stride)
{
#if defined(__x86_64__)
	for (uint64_t done = 0; done < stride && done < AETHER_PUSHED; done += AETHER_ALIGNMENT)
		__asm__ volatile("cldemote %0" : : "m"(head[done]));
#else
	(void)head;
	(void)stride;
#endif
}

/* Ask for the next record's first lines, to be written soon. */
static inline void aether_fetch_place(const struct aether_ring *ring)
{
	const uint8_t *place = ring->data + (ring->own & (ring->size - 1));
#if defined(__x86_64__)
	__asm__ volatile("prefetchw %0" : : "m"(place[0]));
	__asm__ volatile("prefetchw %0" : : "m"(place[AETHER_ALIGNMENT]));
#else
	__builtin_prefetch(place, 1);
	__builtin_prefetch(place + AETHER_ALIGNMENT, 1);
#endif
}

/* Read the consumer's index again; it may only go on, up to the producer's. */
static inline enum aether_result aether_see_consumed(struct aether_ring *ring)
{
	uint64_t consumed = aether_load_index(ring, AETHER_CONSUMED_OFFSET);
	if (consumed - ring->other > ring->own - ring->other || consumed % AETHER_ALIGNMENT)
		return aether_damaged(ring, AETHER_FAULT_INDEX, ring->other, consumed);
	ring->other = consumed;
	return AETHER_OK;
}

/* Bytes from the producer's index to the end of the buffer that a record can't use. */
static inline uint64_t aether_skipped(const struct aether_ring *ring, uint64_t stride)
{
	uint64_t left = ring->size - (ring->own & (ring->size - 1));
	return stride > left ? left : 0;
}

/* Tell whether there is room for a payload; RING_FULL's answer without its refusal being counted.
 */
static inline enum aether_result aether_room(struct aether_ring *ring, uint32_t length)
{
	uint64_t stride = aether_stride(length);
	uint64_t needed = stride + aether_skipped(ring, stride);
	if (ring->fault)
		return AETHER_CORRUPT;
	if (length == 0 || length > aether_largest(ring))
		return AETHER_TOO_LARGE;
	if (ring->own + needed - ring->other <= ring->size)
		return AETHER_OK;
	enum aether_result seen = aether_see_consumed(ring);
	if (seen != AETHER_OK)
		return seen;
	return ring->own + needed - ring->other <= ring->size ? AETHER_OK : AETHER_FULL;
}

static inline void aether_write_head(uint8_t *head, uint32_t checksum,
				     const struct aether_words *words)
{
	memcpy(head, &checksum, sizeof(checksum));
	memcpy(head + sizeof(checksum), words, sizeof(*words));
}

/* Close the end of the buffer with a record that is skipped. */
static inline void aether_write_skip(struct aether_ring *ring, uint64_t skipped)
{
	struct aether_words words = {AETHER_SKIP, 0, ring->sequence};
	uint8_t *head = ring->data + (ring->own & (ring->size - 1));
	aether_write_head(head, ring->checksum(&words, NULL, head, 0), &words);
	ring->own += skipped;
	ring->sequence++;
}

/*
 * Find a place for a payload of 1 to aether_largest() bytes; nothing is visible before a commit.
 * FULL, TOO_LARGE, CORRUPT. Several may be reserved and committed before they are made visible.
 */
static inline enum aether_result aether_reserve(struct aether_ring *ring, uint32_t length,
						uint8_t **payload)
{
	enum aether_result room = aether_room(ring, length);
	if (room != AETHER_OK)
		return room == AETHER_CORRUPT ? room : aether_refused(ring, room);
	uint64_t skipped = aether_skipped(ring, aether_stride(length));
	if (skipped)
		aether_write_skip(ring, skipped);
	*payload = ring->data + (ring->own & (ring->size - 1)) + AETHER_HEAD;
	return AETHER_OK;
}

static inline void aether_advance(struct aether_ring *ring, uint32_t length)
{
	if (ring->push)
		aether_push(ring->data + (ring->own & (ring->size - 1)), aether_stride(length));
	ring->own += aether_stride(length);
	ring->sequence++;
	ring->counts.records++;
	ring->counts.bytes += length;
}

/* Finish a reserved record whose payload was written in place; length is at most the reserved. */
static inline void aether_commit(struct aether_ring *ring, uint8_t *payload, uint32_t length,
				 uint32_t type)
{
	struct aether_words words = {length, type, ring->sequence};
	aether_write_head(payload - AETHER_HEAD, ring->checksum(&words, NULL, payload, length),
			  &words);
	aether_advance(ring, length);
}

/* Finish a reserved record with a payload from elsewhere: copied and checked in one pass. */
static inline void aether_fill(struct aether_ring *ring, uint8_t *payload, const uint8_t *source,
			       uint32_t length, uint32_t type)
{
	struct aether_words words = {length, type, ring->sequence};
	aether_write_head(payload - AETHER_HEAD, ring->checksum(&words, payload, source, length),
			  &words);
	aether_advance(ring, length);
}

/*
 * Make all finished records visible. Returns how the consumer sleeps and wants to be woken; it is
 * marked awake by this, so that it is woken once. The fence pairs with the one in aether_doze: of
 * two sides that write first and then look, one sees the other.
 */
static inline enum aether_sleep aether_publish(struct aether_ring *ring)
{
	aether_store_index(ring, AETHER_PRODUCED_OFFSET, ring->own);
	aether_fetch_place(ring);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	uint32_t *asleep = aether_word(ring, AETHER_CONSUMER_ASLEEP);
	if (__atomic_load_n(asleep, __ATOMIC_RELAXED) == AETHER_AWAKE)
		return AETHER_AWAKE;
	return (enum aether_sleep)__atomic_exchange_n(asleep, AETHER_AWAKE, __ATOMIC_SEQ_CST);
}

/* The consumer */

/*
 * Go on where the consumer before this one let go, in a region that its producer still writes to:
 * OK or CORRUPT. The first record's sequence is taken as it is; its checksum covers it.
 */
static inline enum aether_result aether_resume(struct aether_ring *ring)
{
	uint64_t consumed = aether_load_index(ring, AETHER_CONSUMED_OFFSET);
	uint64_t produced = aether_load_index(ring, AETHER_PRODUCED_OFFSET);
	if (consumed % AETHER_ALIGNMENT || produced % AETHER_ALIGNMENT || consumed > produced ||
	    produced - consumed > ring->size)
		return aether_damaged(ring, AETHER_FAULT_INDEX, produced, consumed);
	ring->own = ring->other = ring->given = consumed;
	ring->any_sequence = true;
	__atomic_store_n(aether_word(ring, AETHER_CONSUMER_ASLEEP), AETHER_AWAKE, __ATOMIC_RELAXED);
	return AETHER_OK;
}

/* Read the producer's index again; it may only go on, to the ring's size above what was given. */
static inline enum aether_result aether_see_produced(struct aether_ring *ring)
{
	uint64_t produced = aether_load_index(ring, AETHER_PRODUCED_OFFSET);
	if (produced - ring->given < ring->other - ring->given ||
	    produced - ring->given > ring->size || produced % AETHER_ALIGNMENT)
		return aether_damaged(ring, AETHER_FAULT_INDEX, ring->other, produced);
	if (produced != ring->other) {
		const uint8_t *place = ring->data + (ring->own & (ring->size - 1));
		__builtin_prefetch(place);
		__builtin_prefetch(place + AETHER_ALIGNMENT);
	}
	ring->other = produced;
	return AETHER_OK;
}

/* Tell whether a record is there: OK, EMPTY or CORRUPT. */
static inline enum aether_result aether_ready(struct aether_ring *ring)
{
	if (ring->fault)
		return AETHER_CORRUPT;
	if (ring->own != ring->other)
		return AETHER_OK;
	enum aether_result seen = aether_see_produced(ring);
	if (seen != AETHER_OK)
		return seen;
	return ring->own != ring->other ? AETHER_OK : AETHER_EMPTY;
}

/* Read a record's words, once, and check them against what lies before the producer's index. */
static inline enum aether_result aether_read_head(struct aether_ring *ring,
						  struct aether_record *record)
{
	uint64_t place = ring->own & (ring->size - 1);
	uint64_t left = ring->size - place, there = ring->other - ring->own;
	uint32_t words[4];
	memcpy(words, ring->data + place, sizeof(words));
	__asm__ volatile("" : : "r"(words) : "memory"); /* the words are not read again */
	*record = (struct aether_record){
		ring->data + place + AETHER_HEAD, words[1], words[2], words[3], words[0], 0};
	record->stride = record->length == AETHER_SKIP ? left : aether_stride(record->length);
	if (record->length != AETHER_SKIP &&
	    (record->length == 0 || record->length > aether_largest(ring) || record->stride > left))
		return aether_damaged(ring, AETHER_FAULT_LENGTH, aether_largest(ring),
				      record->length);
	if (record->stride > there)
		return aether_damaged(ring, AETHER_FAULT_LENGTH, there, record->stride);
	if (ring->any_sequence)
		ring->sequence = record->sequence;
	if (record->sequence != ring->sequence)
		return aether_damaged(ring, AETHER_FAULT_SEQUENCE, ring->sequence,
				      record->sequence);
	return AETHER_OK;
}

/* Check a record's payload, and copy it unless target is NULL. */
static inline enum aether_result aether_check(struct aether_ring *ring,
					      const struct aether_record *record, uint8_t *target)
{
	struct aether_words words = {record->length, record->type, record->sequence};
	uint32_t length = record->length == AETHER_SKIP ? 0 : record->length;
	uint32_t checksum = ring->checksum(&words, target, record->payload, length);
	if (checksum != record->checksum)
		return aether_damaged(ring, AETHER_FAULT_CHECKSUM, record->checksum, checksum);
	return AETHER_OK;
}

static inline void aether_pass(struct aether_ring *ring, const struct aether_record *record)
{
	ring->own += record->stride;
	ring->sequence++;
	ring->any_sequence = false;
	if (record->length != AETHER_SKIP) {
		ring->counts.records++;
		ring->counts.bytes += record->length;
	}
}

/*
 * Find the next record, without checking its payload: OK, EMPTY or CORRUPT. Its payload lies in
 * the ring until aether_pass and aether_release; its producer may still change it.
 */
static inline enum aether_result aether_next(struct aether_ring *ring, struct aether_record *record)
{
	for (;;) {
		enum aether_result result = aether_ready(ring);
		if (result == AETHER_EMPTY)
			return aether_refused(ring, result);
		if (result == AETHER_OK)
			result = aether_read_head(ring, record);
		if (result != AETHER_OK || record->length != AETHER_SKIP)
			return result;
		result = aether_check(ring, record, NULL);
		if (result != AETHER_OK)
			return result;
		aether_pass(ring, record);
	}
}

/*
 * Give the place of the passed records back up to an index: this side's after one of them. As
 * aether_publish, for the producer. Records that were passed and not given back are held: they stay
 * in the ring, and a consumer that resumes finds them again.
 */
static inline enum aether_sleep aether_release_to(struct aether_ring *ring, uint64_t index)
{
	ring->given = index;
	aether_store_index(ring, AETHER_CONSUMED_OFFSET, index);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	uint32_t *asleep = aether_word(ring, AETHER_PRODUCER_ASLEEP);
	if (__atomic_load_n(asleep, __ATOMIC_RELAXED) == AETHER_AWAKE)
		return AETHER_AWAKE;
	return (enum aether_sleep)__atomic_exchange_n(asleep, AETHER_AWAKE, __ATOMIC_SEQ_CST);
}

/* Give the place of all passed records back. */
static inline enum aether_sleep aether_release(struct aether_ring *ring)
{
	return aether_release_to(ring, ring->own);
}

#endif
