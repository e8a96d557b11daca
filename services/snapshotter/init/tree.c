// SPDX-License-Identifier: Apache-2.0
/* The end of a tree: killed until it is dead, its connections and writable layers gone. */
#include "init.h"

#include <time.h>
#include <unistd.h>

#define KILL_AGAIN_MS 2
#define RESETS_WITHIN_MS 5

static const struct spec *sandbox;
static struct source again = {.fd = -1};

/*
 * A process of a restore under way was seen to survive a kill, alive and listening (2 to 5 of 300
 * late restores; why is not known), and never a second one: so it is repeated until all are reaped.
 * SAFETY: the group holds the tree and CRIU only; the init lies outside.
 */
void tree_kill(void)
{
	if (write(sandbox->kill, "1", 1) != 1)
		die("cgroup.kill: errno %d", errno);
	timer_at(&again, now_ns() + KILL_AGAIN_MS * MILLISECOND);
}

static void on_again(struct source *source)
{
	if (timer_fired(source) && machine.state == CLEARING)
		tree_kill();
}

/* An orphaned connection of the old tree could keep the next from listening. */
void tree_forget(void)
{
	if (sockets_end_all())
		last_words("ending connections: %s", failure.detail);
	if (layers_drop(sandbox) || layers_make(sandbox))
		die("renewing the layers: %s", failure.detail);
}

/* The kernel inside takes sent frames up a little later, and not at all once the gate is closed. */
void tree_await_resets(uint64_t count)
{
	struct timespec pause = {.tv_nsec = 50 * 1000};
	uint64_t limit = now_ns() + RESETS_WITHIN_MS * MILLISECOND;

	while (sockets_resets() < count && now_ns() < limit)
		nanosleep(&pause, NULL);
}

void tree_open(const struct spec *spec)
{
	sandbox = spec;
	timer_open(&again, on_again);
}
