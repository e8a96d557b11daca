/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of a ring against a peer that writes what it likes: `fuzz SEED ROUNDS`.
 *
 * Each round is a fresh region between two pages that nobody may touch. One end works as it should;
 * between its steps, and from another thread during them, bytes of the region are changed: indices,
 * lengths, checksums, the header, payloads. Whatever is handed out must fit its checksum, and every
 * call must return. Built with the address and undefined-behaviour sanitizers; exits 0 or aborts.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "../waiting.h"

#define PAGE 4096u
#define SIZE 65536u
#define REGION (3 * PAGE + 2 * SIZE)
#define STEPS 200
#define WAIT 20000u /* ns */

static const struct aether_checksum_way *way;

struct peer {
	uint8_t *region;
	uint64_t chance;
	int stop;
};

static uint64_t next_chance(uint64_t *state)
{
	*state ^= *state << 13; /* G. Marsaglia, "Xorshift RNGs", 2003 */
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Make values that are likely to matter: small, aligned, near the ring's size, or anything. */
static uint64_t likely_value(uint64_t *chance)
{
	uint64_t value = next_chance(chance);
	switch (value % 6) {
	case 0:
		return value >> 56;
	case 1:
		return (value >> 40) & ~63ull;
	case 2:
		return SIZE + (value >> 57) - 64;
	case 3:
		return AETHER_SKIP;
	case 4:
		return 0 - (value >> 58);
	default:
		return value;
	}
}

static void damage(uint8_t *region, uint64_t *chance)
{
	static const size_t words[] = {AETHER_CLOSED_OFFSET, PAGE, PAGE + 128, PAGE + 256,
				       PAGE + 384};
	uint64_t value = likely_value(chance), choice = next_chance(chance) % 8;
	size_t place = 3 * PAGE + next_chance(chance) % (SIZE / 64) * 64; /* a record's head */
	if (choice < 5)
		place = words[choice];
	else if (choice == 6)
		place += 16 + next_chance(chance) % 48;
	size_t width = choice < 3 ? 8 : choice == 6 ? 1 : 4;
	memcpy(region + place + (choice == 5 ? 4 * (next_chance(chance) % 4) : 0), &value, width);
}

/* The other thread: its writes race with the end's reads, which is what is tried. */
__attribute__((no_sanitize("thread"))) static void *interfere(void *given)
{
	struct peer *peer = given;
	while (!__atomic_load_n(&peer->stop, __ATOMIC_RELAXED))
		damage(peer->region, &peer->chance);
	return NULL;
}

static void expect(int truth, const char *what)
{
	if (!truth) {
		fprintf(stderr, "fuzz: %s\n", what);
		abort();
	}
}

static struct aether_ring end_of(uint8_t *region)
{
	return (struct aether_ring){.control = region + PAGE,
				    .data = region + 3 * PAGE,
				    .closed = region + AETHER_CLOSED_OFFSET,
				    .checksum = way->function,
				    .size = SIZE};
}

static int produce(struct aether_ring *ring, uint64_t *chance, const uint8_t *source)
{
	uint32_t length = (uint32_t)(next_chance(chance) % 3 ? next_chance(chance) % 300
							     : next_chance(chance) % SIZE);
	uint8_t *payload;
	struct aether_wish wish = {ring, length ? length : 1};
	if (next_chance(chance) % 8 == 0)
		aether_wait(&wish, 0, aether_now() + WAIT, WAIT);
	enum aether_result result = aether_reserve(ring, length, &payload);
	if (result == AETHER_OK) {
		if (next_chance(chance) % 2)
			aether_commit(ring, payload, length, 1);
		else
			aether_fill(ring, payload, source, length, 1);
		aether_wake(ring, aether_publish(ring), AETHER_CONSUMER_ASLEEP, -1);
	}
	return result != AETHER_CORRUPT;
}

/* Take a record out; what is handed out must fit the checksum that was read with its words. */
static int consume(struct aether_ring *ring, uint64_t *chance, uint8_t *target)
{
	struct aether_record record;
	struct aether_wish wish = {ring, 0};
	if (next_chance(chance) % 8 == 0)
		aether_wait(&wish, 0, aether_now() + WAIT, WAIT);
	enum aether_result result = aether_next(ring, &record);
	if (result == AETHER_OK)
		result = aether_check(ring, &record, target);
	if (result == AETHER_OK) {
		struct aether_words words = {record.length, record.type, record.sequence};
		expect(record.length && record.length <= aether_largest(ring),
		       "a length out of bounds");
		expect(aether_checksum_plain(&words, NULL, target, record.length) ==
			       record.checksum,
		       "unchecked bytes were handed out");
		aether_pass(ring, &record);
		if (next_chance(chance) % 4) /* else it is held */
			aether_wake(ring, aether_release(ring), AETHER_PRODUCER_ASLEEP, -1);
	}
	return result != AETHER_CORRUPT;
}

static uint8_t *map_region(void)
{
	uint8_t *all = mmap(NULL, REGION + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	expect(all != MAP_FAILED, "no memory");
	expect(mprotect(all + PAGE, REGION, PROT_READ | PROT_WRITE) == 0, "no memory");
	return all + PAGE;
}

/* Take a dead consumer's place; a consumer that is told of damage there is none. */
static int resume(struct aether_ring *consumer, uint8_t *region)
{
	struct aether_ring next = end_of(region);
	if (aether_resume(&next) != AETHER_OK)
		return 0;
	expect(next.own % AETHER_ALIGNMENT == 0, "an index between two records");
	*consumer = next;
	return 1;
}

/* Work until damage is told, or for STEPS steps; returns whether it was told. */
static int run_round(uint64_t *chance, int raced)
{
	static uint8_t source[SIZE], target[SIZE];
	uint8_t *region = map_region();
	struct aether_ring producer = end_of(region), consumer = end_of(region);
	struct peer peer = {region, next_chance(chance) | 1, 0};
	pthread_t thread;
	int whole = 1;
	if (raced)
		expect(pthread_create(&thread, NULL, interfere, &peer) == 0, "no thread");
	for (int step = 0; step < STEPS && whole; step++) {
		if (!raced && next_chance(chance) % 16 == 0)
			damage(region, chance);
		uint64_t turn = next_chance(chance) % 32;
		whole = turn == 0  ? resume(&consumer, region)
			: turn % 2 ? produce(&producer, chance, source)
				   : consume(&consumer, chance, target);
	}
	if (raced) {
		__atomic_store_n(&peer.stop, 1, __ATOMIC_RELAXED);
		pthread_join(thread, NULL);
	}
	munmap(region - PAGE, REGION + 2 * PAGE);
	return !whole;
}

int main(int count, char **arguments)
{
	uint64_t chance = count > 1 ? strtoull(arguments[1], NULL, 0) | 1 : 1;
	int rounds = count > 2 ? atoi(arguments[2]) : 1000, told = 0;
	aether_choose_checksum();
	for (int round = 0; round < rounds; round++) {
		do
			way = &aether_checksum_ways[next_chance(&chance) % AETHER_CHECKSUM_WAYS];
		while (!way->available());
		told += run_round(&chance, round % 2);
	}
	printf("%d rounds, damage told in %d\n", rounds, told);
	return told > rounds / 4 ? 0 : 1; /* a fuzzer whose damage nobody notices fuzzes nothing */
}
