// SPDX-License-Identifier: Apache-2.0
/*
 * Whether the tree met its memory limit: on v1 an eventfd tells of each kill, on v2 a counter in
 * memory.events.
 */
#include "init.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct source event = {.fd = -1};
static int counter_fd = -1;
static long kills_seen;
static bool pending; /* an event was taken and not yet asked for */
static void (*on_event)(void);

static long count_kills(void)
{
	char text[512], *found;
	ssize_t length = counter_fd < 0 ? -1 : pread(counter_fd, text, sizeof(text) - 1, 0);
	long kills = 0;

	if (length <= 0)
		return 0;
	text[length] = 0;
	found = strstr(text, "oom_kill ");
	if (found)
		sscanf(found, "oom_kill %ld", &kills);
	return kills;
}

static bool take_event(void)
{
	struct pollfd poller = {.fd = event.fd, .events = POLLIN};
	uint64_t times;

	return event.fd >= 0 && poll(&poller, 1, 0) == 1 &&
	       read(event.fd, &times, sizeof(times)) > 0;
}

static void hear(struct source *source)
{
	(void)source;
	if (!take_event())
		return;
	pending = true;
	on_event();
	pending = false;
}

/* Whether it happened since this was last asked. */
bool oom_happened(void)
{
	long kills = count_kills();
	bool happened = take_event() || pending || kills > kills_seen;

	kills_seen = kills;
	pending = false;
	return happened;
}

void oom_open(const struct spec *spec, void (*happened)(void))
{
	counter_fd = spec->oom_counter;
	on_event = happened;
	if (spec->oom_event >= 0)
		loop_add(&event, spec->oom_event, hear);
}
