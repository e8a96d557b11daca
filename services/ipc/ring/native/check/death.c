/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Death at every instruction: one end of a ring works in a child process, step by step, and after
 * each instruction the region is looked at as the other side would find it had the child died
 * there: a copy of it, for that is all that a death leaves. The other side finds whole records in
 * order and nothing else, and can go on: a producer until the ring is full, a consumer that takes
 * the dead one's place with whatever was not given back. Prints the number of instructions of each
 * side's work; exits 0 or aborts.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "../waiting.h"

#define PAGE 4096u
#define SIZE 65536u
#define REGION (3 * PAGE + 2 * SIZE)
#define LENGTH 200u
#define RECORDS 3 /* of a child's work, the last of them behind the end of the buffer */

static const struct aether_checksum_way *way;
static uint8_t payload[LENGTH];

static void expect(int truth, const char *what)
{
	if (!truth) {
		fprintf(stderr, "death: %s\n", what);
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

static enum aether_result put(struct aether_ring *producer, uint32_t type)
{
	uint8_t *place;
	enum aether_result result = aether_reserve(producer, LENGTH, &place);
	if (result == AETHER_OK) {
		aether_fill(producer, place, payload, LENGTH, type);
		aether_wake(producer, aether_publish(producer), AETHER_CONSUMER_ASLEEP, -1);
	}
	return result;
}

/* Take a record out; its type, or -1 when there is none. */
static int take(struct aether_ring *consumer)
{
	uint8_t target[LENGTH];
	struct aether_record record;
	enum aether_result result = aether_next(consumer, &record);
	if (result == AETHER_EMPTY)
		return -1;
	expect(result == AETHER_OK && record.length == LENGTH, "a record that can't be");
	expect(aether_check(consumer, &record, target) == AETHER_OK, "a damaged record");
	expect(memcmp(target, payload, LENGTH) == 0, "another payload");
	aether_pass(consumer, &record);
	aether_wake(consumer, aether_release(consumer), AETHER_PRODUCER_ASLEEP, -1);
	return (int)record.type;
}

/* Bring both ends to where only two records more fit before the end of the buffer. */
static void advance(struct aether_ring *producer, struct aether_ring *consumer)
{
	while (producer->own + 2 * aether_stride(LENGTH) + AETHER_ALIGNMENT < SIZE) {
		expect(put(producer, 0) == AETHER_OK, "no room");
		expect(take(consumer) == 0, "no record");
	}
}

static void work(struct aether_ring *end, int produces)
{
	for (int number = 0; number < RECORDS; number++)
		if (produces)
			put(end, (uint32_t)number);
		else
			take(end);
}

/* A producer is dead: whole records in order, then none; the consumer's wait ends in time. */
static int survive_producer(uint8_t *region, struct aether_ring consumer)
{
	struct aether_wish wish = {&consumer, 0};
	int number = 0, found;
	consumer.control = region + PAGE;
	consumer.data = region + 3 * PAGE;
	consumer.closed = region + AETHER_CLOSED_OFFSET;
	while ((found = take(&consumer)) >= 0)
		expect(found == number++, "a record out of order");
	expect(aether_wait(&wish, 0, 0, 0) == AETHER_TIMED_OUT, "no end of a wait");
	return number;
}

/* A consumer is dead: the next one finds what was not given back, and the ring goes on. */
static int survive_consumer(uint8_t *region, struct aether_ring producer)
{
	struct aether_ring next = end_of(region);
	int last = -1, number = 0, found;
	expect(aether_resume(&next) == AETHER_OK, "a ring that can't be resumed");
	for (; (found = take(&next)) >= 0; last = found, number++)
		expect(number == 0 || found == last + 1, "a record out of order");
	expect(number == 0 || last == RECORDS - 1, "a record was lost");
	producer.control = region + PAGE;
	producer.data = region + 3 * PAGE;
	producer.closed = region + AETHER_CLOSED_OFFSET;
	while (put(&producer, 0) == AETHER_OK)
		;
	expect(producer.fault == AETHER_FAULT_NONE, "the producer can't go on");
	expect(take(&next) == 0, "no record after the death");
	return RECORDS - number;
}

static pid_t start_work(struct aether_ring *end, int produces)
{
	int status;
	pid_t child = fork();
	expect(child >= 0, "no process");
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		work(end, produces);
		_exit(0);
	}
	expect(waitpid(child, &status, 0) == child && WIFSTOPPED(status), "no stop");
	return child;
}

/* Step through one side's work; returns its instructions. */
static long step_through(uint8_t *region, uint8_t *copy, int produces)
{
	struct aether_ring producer = end_of(region), consumer = end_of(region);
	int status = 0, finished = 0, before = 0;
	long instructions = 0;
	advance(&producer, &consumer);
	for (int number = 0; !produces && number < RECORDS; number++)
		expect(put(&producer, (uint32_t)number) == AETHER_OK, "no room");
	pid_t child = start_work(produces ? &producer : &consumer, produces);
	for (;; instructions++) {
		expect(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0, "no step");
		expect(waitpid(child, &status, 0) == child, "no child");
		memcpy(copy, region, REGION);
		finished = produces ? survive_producer(copy, consumer)
				    : survive_consumer(copy, producer);
		expect(finished == before || finished == before + 1, "a record too many");
		before = finished;
		if (!WIFSTOPPED(status))
			break;
	}
	expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the work failed");
	expect(finished == RECORDS, "a record too few");
	return instructions;
}

static uint8_t *map_region(void)
{
	uint8_t *region =
		mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect(region != MAP_FAILED, "no memory");
	return region;
}

int main(void)
{
	uint8_t *copy = map_region();
	way = aether_choose_checksum();
	memset(payload, 0x5A, sizeof(payload));
	printf("producer: %ld instructions\n", step_through(map_region(), copy, 1));
	printf("consumer: %ld instructions\n", step_through(map_region(), copy, 0));
	return 0;
}
