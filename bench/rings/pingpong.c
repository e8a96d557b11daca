/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Half round trips between two processes that spin, in C: a word in a cache line of its own each
 * way, which no transport through memory can beat here, and the ring with records of 64 bytes.
 * Prints median and 99th percentile of each in ns, as JSON.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "../../services/ipc/ring/native/waiting.h"

#define PAGE 4096u
#define SIZE (1u << 20)
#define REGION (3 * PAGE + 2 * SIZE)
#define TRIPS 100000
#define WARM_UP 10000
#define LENGTH 64u
#define GIVE_UP 10000000000u /* ns */
#define LIMIT 60	     /* seconds */

static uint8_t *region;
static aether_checksum checksum;

static struct aether_ring end_of(unsigned direction)
{
	return (struct aether_ring){.control = region + PAGE + direction * PAGE,
				    .data = region + 3 * PAGE + direction * SIZE,
				    .closed = region + AETHER_CLOSED_OFFSET,
				    .checksum = checksum,
				    .size = SIZE,
				    .push = true};
}

static void send_record(struct aether_ring *producer, const uint8_t *payload)
{
	uint8_t *place;
	if (aether_reserve(producer, LENGTH, &place) != AETHER_OK)
		abort();
	aether_fill(producer, place, payload, LENGTH, 0);
	aether_publish(producer);
}

static void take_record(struct aether_ring *consumer, uint8_t *target)
{
	struct aether_record record;
	struct aether_wish wish = {consumer, 0};
	if (aether_spin(&wish, aether_now() + GIVE_UP) != AETHER_OK ||
	    aether_next(consumer, &record) != AETHER_OK ||
	    aether_check(consumer, &record, target) != AETHER_OK)
		abort();
	aether_pass(consumer, &record);
	aether_release(consumer);
}

static void trip_words(int answers)
{
	static uint64_t number;
	uint64_t *there = (uint64_t *)(region + PAGE), *back = (uint64_t *)(region + PAGE + 1024);
	number++;
	if (!answers)
		__atomic_store_n(there, number, __ATOMIC_RELEASE);
	while (__atomic_load_n(answers ? there : back, __ATOMIC_ACQUIRE) != number)
		;
	if (answers)
		__atomic_store_n(back, number, __ATOMIC_RELEASE);
}

static void trip_records(int answers)
{
	static struct aether_ring out, in;
	static uint8_t payload[LENGTH];
	if (!out.size) {
		out = end_of(answers ? 1 : 0);
		in = end_of(answers ? 0 : 1);
	}
	if (!answers)
		send_record(&out, payload);
	take_record(&in, payload);
	if (answers)
		send_record(&out, payload);
}

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
	return (a > b) - (a < b);
}

static void measure(const char *name, void (*trip)(int))
{
	static uint64_t took[TRIPS];
	pid_t child = fork();
	if (child < 0)
		exit(1);
	alarm(LIMIT); /* neither side outlives the other for ever */
	for (int number = 0; number < WARM_UP + TRIPS; number++) {
		uint64_t began = aether_now();
		trip(child == 0);
		if (number >= WARM_UP)
			took[number - WARM_UP] = aether_now() - began;
	}
	if (child == 0)
		_exit(0);
	waitpid(child, NULL, 0);
	qsort(took, TRIPS, sizeof(took[0]), compare);
	printf("\"%s\": {\"p50\": %.1f, \"p99\": %.1f}", name, (double)took[TRIPS / 2] / 2,
	       (double)took[TRIPS * 99 / 100] / 2);
}

int main(void)
{
	region = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (region == MAP_FAILED)
		return 1;
	checksum = aether_choose_checksum()->function;
	fputs("{", stdout);
	fflush(stdout);
	measure("a word", trip_words);
	fputs(", ", stdout);
	memset(region, 0, REGION);
	fflush(stdout);
	measure("ring in C", trip_records);
	puts("}");
	return 0;
}
