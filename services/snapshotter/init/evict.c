// SPDX-License-Identifier: Apache-2.0
/* Ending a running tree while nobody waits for it: on command, and after it was idle. */
#include "init.h"

#define IDLE_LOOK_MS 1000
#define IDLE_LOOK_LEAST_MS 10

#define LAST_LOOK_MS 2

static struct source idle = {.fd = -1}, last = {.fd = -1};
static uint64_t idle_since, activity, last_until;

static int in_flight(bool held)
{
	struct survey survey = {0};

	if (sockets_survey(policy.port, (uint64_t)policy.tie_ms, held, &survey))
		return -1;
	errno = 0;
	return survey.in_flight ? fail("in-flight", "%s", survey.in_flight) : 0;
}

/* The tree goes on, and hears what was held. */
static int keep_running(void)
{
	struct failure why = failure;

	if (gate_open())
		die("opening the gate: %s", failure.detail);
	tap_release(true);
	failure = why;
	return -1;
}

static void end(bool by_idleness)
{
	if (sockets_end_all() || tap_hold())
		last_words("ending connections: %s", failure.detail);
	machine_evicted(by_idleness);
}

/*
 * Between the filter and the gate a client may still reach the old tree; what clients send after
 * the gate closed is held. The second look, and one at what is held, find those that would lose
 * by an end: the tree goes on. Else only first packets are held, and they wake the next instance.
 */
static int try_to_evict(bool by_idleness)
{
	uint64_t closed_ns;

	if (last_until)
		return fail("in-flight", "it is ending already");
	if (in_flight(false) || tap_hold_all() || gate_close())
		return -1;
	closed_ns = now_ns();
	if (in_flight(false))
		return keep_running();
	errno = 0;
	if (tap_heard_old_clients(closed_ns) && fail("in-flight", "a client sends"))
		return keep_running();
	end(by_idleness);
	return 0;
}

static void on_last_look(struct source *source)
{
	if (!timer_fired(source) || !last_until || machine.state != RUNNING)
		return;
	if (now_ns() < last_until && in_flight(true)) {
		timer_at(&last, now_ns() + LAST_LOOK_MS * MILLISECOND);
		return;
	}
	end(false);
}

/*
 * Takes no further request: what clients send is held from here on, what was taken is answered as
 * long as there is time, and then the connections end. So a request that is not answered was not
 * worked on either, unless it took longer.
 */
static enum evicted begin_to_end(long hold_ms)
{
	if (last_until)
		return REFUSED;
	/* The client's acknowledgements do not arrive, either: an answer may not wait for one. */
	if (tap_hold_all() || gate_close()) {
		keep_running();
		return REFUSED;
	}
	if (sockets_hurry())
		last_words("sending answers at once: %s", failure.detail);
	last_until = now_ns() + (uint64_t)hold_ms * MILLISECOND;
	timer_at(&last, now_ns() + LAST_LOOK_MS * MILLISECOND);
	return ENDING;
}

/* On command; with the failure when it is refused and the tree goes on. */
enum evicted evict(long hold_ms)
{
	if (!try_to_evict(false))
		return EVICTED;
	return hold_ms > 0 ? begin_to_end(hold_ms) : REFUSED;
}

static uint64_t idle_look_ns(void)
{
	long look = policy.idle_ms / 4 < IDLE_LOOK_MS ? policy.idle_ms / 4 : IDLE_LOOK_MS;

	return (uint64_t)(look < IDLE_LOOK_LEAST_MS ? IDLE_LOOK_LEAST_MS : look) * MILLISECOND;
}

void idle_watch(void)
{
	idle_since = now_ns();
	activity = sockets_activity();
	if (policy.idle_ms)
		timer_at(&idle, now_ns() + idle_look_ns());
}

/* Somebody has seen activity that is no connection's. */
void idle_touch(void)
{
	idle_since = now_ns();
}

static void on_idle_look(struct source *source)
{
	struct survey survey = {0};
	uint64_t now = now_ns(), seen;

	if (!timer_fired(source) || machine.state != RUNNING)
		return;
	seen = sockets_activity();
	if (seen != activity ||
	    sockets_survey(policy.port, (uint64_t)policy.tie_ms, false, &survey) ||
	    survey.connections || survey.in_flight)
		idle_since = now;
	activity = seen;
	if (now - idle_since >= (uint64_t)policy.idle_ms * MILLISECOND && !try_to_evict(true))
		return;
	timer_at(&idle, now + idle_look_ns());
}

void idle_stop(void)
{
	timer_at(&idle, 0);
	timer_at(&last, 0);
	last_until = 0;
}

void idle_open(void)
{
	timer_open(&idle, on_idle_look);
	timer_open(&last, on_last_look);
}
