/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for a record or for room: spin for a while, then sleep on a futex.
 *
 * A side that is about to sleep says so, then looks once more. The other side writes its index,
 * then looks whether somebody sleeps. With a full fence between the two steps on both sides one of
 * them sees the other, so that no wake is lost.
 */
#ifndef AETHER_WAITING_H
#define AETHER_WAITING_H

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

#define AETHER_GLANCES 256

/* What a side waits for. */
struct aether_wish {
	struct aether_ring *ring;
	uint32_t length; /* of a payload to have room for; zero waits for a record */
};

static inline uint64_t aether_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void aether_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Tell whether the wish is fulfilled: OK, or FULL or EMPTY to go on waiting, or what ends it. */
static inline enum aether_result aether_fulfilled(const struct aether_wish *wish)
{
	enum aether_result result =
		wish->length ? aether_room(wish->ring, wish->length) : aether_ready(wish->ring);
	if ((result == AETHER_FULL || result == AETHER_EMPTY) && aether_is_closed(wish->ring))
		return AETHER_CLOSED;
	return result;
}

static inline bool aether_waits(enum aether_result result)
{
	return result == AETHER_FULL || result == AETHER_EMPTY;
}

/* Where the waiting side says that it sleeps. */
static inline uint32_t *aether_bed(const struct aether_wish *wish)
{
	return aether_word(wish->ring,
			   wish->length ? AETHER_PRODUCER_ASLEEP : AETHER_CONSUMER_ASLEEP);
}

/* Say how this side sleeps, and look once more: FULL or EMPTY means that it may. */
static inline enum aether_result aether_doze(const struct aether_wish *wish, enum aether_sleep how)
{
	__atomic_store_n(aether_bed(wish), (uint32_t)how, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	enum aether_result result = aether_fulfilled(wish);
	if (!aether_waits(result))
		__atomic_store_n(aether_bed(wish), AETHER_AWAKE, __ATOMIC_RELAXED);
	return result;
}

/*
 * Look again and again for less than a microsecond, without the pauses: one of them takes as long
 * as a line needs from another core.
 */
static inline enum aether_result aether_glance(const struct aether_wish *wish)
{
	enum aether_result result = aether_fulfilled(wish);
	for (int turn = 0; aether_waits(result) && turn < AETHER_GLANCES; turn++)
		result = aether_fulfilled(wish);
	return result;
}

static inline enum aether_result aether_spin(const struct aether_wish *wish, uint64_t until)
{
	enum aether_result result = aether_glance(wish);
	if (!aether_waits(result))
		return result;
	do {
		for (int turn = 0; turn < 64; turn++) {
			result = aether_fulfilled(wish);
			if (!aether_waits(result))
				return result;
			aether_pause();
		}
	} while (aether_now() < until);
	return result;
}

static inline void aether_futex_wait(uint32_t *word, uint32_t expected, uint64_t nanoseconds)
{
	struct timespec limit = {(time_t)(nanoseconds / 1000000000u),
				 (long)(nanoseconds % 1000000000u)};
	syscall(SYS_futex, word, FUTEX_WAIT, expected, &limit, NULL, 0);
}

static inline void aether_futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/*
 * Wait until a time of CLOCK_MONOTONIC, or a little longer; the spinning ends at spin_until.
 * OK, TIMED_OUT, CLOSED, CORRUPT or TOO_LARGE; FULL or EMPTY when a signal or an idle moment of
 * the sleep asks the caller to look around and wait again.
 */
static inline enum aether_result aether_wait(const struct aether_wish *wish, uint64_t spin_until,
					     uint64_t until, uint64_t longest_sleep)
{
	enum aether_result result = aether_fulfilled(wish);
	if (!aether_waits(result))
		return result;
	wish->ring->counts.waits++;
	result = aether_spin(wish, spin_until);
	if (!aether_waits(result))
		return result;
	uint64_t now = aether_now();
	if (now >= until)
		return AETHER_TIMED_OUT;
	result = aether_doze(wish, AETHER_ON_FUTEX);
	if (!aether_waits(result))
		return result;
	wish->ring->counts.sleeps++;
	aether_futex_wait(aether_bed(wish), AETHER_ON_FUTEX,
			  until - now < longest_sleep ? until - now : longest_sleep);
	__atomic_store_n(aether_bed(wish), AETHER_AWAKE, __ATOMIC_RELAXED);
	result = aether_fulfilled(wish);
	return aether_waits(result) && aether_now() >= until ? AETHER_TIMED_OUT : result;
}

/* Wake the other side as it asked for; doorbell is a descriptor of an eventfd or pipe, or -1. */
static inline void aether_wake(struct aether_ring *ring, enum aether_sleep how, size_t bed,
			       int doorbell)
{
	const uint64_t one = 1;
	if (how == AETHER_AWAKE)
		return;
	ring->counts.wakes++;
	if (how == AETHER_ON_FUTEX)
		aether_futex_wake(aether_word(ring, bed));
	else if (doorbell >= 0 && write(doorbell, &one, sizeof(one)) < 0)
		return; /* full: whoever sleeps on it has been rung for */
}

#endif
