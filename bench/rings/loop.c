/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread puts a record in and takes it out: ns per record by payload size, as JSON, with the
 * spread over the rounds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "../../services/ipc/ring/native/waiting.h"

#define PAGE 4096u
#define SIZE (1u << 20)
#define ROUNDS 7

static uint64_t pass(struct aether_ring *producer, struct aether_ring *consumer,
		     const uint8_t *source, uint8_t *target, uint32_t length, int count)
{
	uint64_t began = aether_now();
	for (int number = 0; number < count; number++) {
		struct aether_record record;
		uint8_t *payload;
		if (aether_reserve(producer, length, &payload) != AETHER_OK)
			abort();
		aether_fill(producer, payload, source, length, 0);
		aether_publish(producer);
		if (aether_next(consumer, &record) != AETHER_OK ||
		    aether_check(consumer, &record, target) != AETHER_OK)
			abort();
		aether_pass(consumer, &record);
		aether_release(consumer);
	}
	return aether_now() - began;
}

static int compare(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;
	return (a > b) - (a < b);
}

int main(void)
{
	static const uint32_t lengths[] = {64, 1024, 4096, 16384, 65536};
	static uint8_t source[65536], target[65536];
	uint8_t *region = mmap(NULL, 3 * PAGE + 2 * SIZE, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (region == MAP_FAILED)
		return 1;
	struct aether_ring end = {.control = region + PAGE,
				  .data = region + 3 * PAGE,
				  .closed = region + AETHER_CLOSED_OFFSET,
				  .checksum = aether_choose_checksum()->function,
				  .size = SIZE};
	struct aether_ring producer = end, consumer = end;
	for (int place = 0; place < 5; place++) {
		int count = (int)(60000000u / (lengths[place] + 600));
		double took[ROUNDS];
		for (int round = 0; round < ROUNDS; round++)
			took[round] = (double)pass(&producer, &consumer, source, target,
						   lengths[place], count) /
				      count;
		qsort(took, ROUNDS, sizeof(took[0]), compare);
		printf("%s\"%u\": {\"median\": %.1f, \"low\": %.1f, \"high\": %.1f}",
		       place ? ", " : "{", lengths[place], took[ROUNDS / 2], took[0],
		       took[ROUNDS - 1]);
	}
	puts("}");
	return 0;
}
