/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for a record on any of a server's inputs: spin, then sleep. For serve.h. */
#ifndef AETHER_IDLE_H
#define AETHER_IDLE_H

#include "server.h"

#include <sys/epoll.h>
#include <sys/uio.h>

#define HEAR_AFTER 20000000u /* ns of spinning until the caller hears the service */
#define LONGEST_NAP 1000 /* ms; a bell is never missed, but a caller has other things to see to */
#define EVENTS 8
#define MOST_RINGS 512 /* bytes read from a pipe; an eventfd gives 8 */

/* Return a source that has something, or is damaged; the one after the last comes first. */
static struct source *find_record(Server *server)
{
	for (size_t looked = 0; looked < server->source_count; looked++) {
		size_t place = (server->turn + looked) % server->source_count;
		struct source *source = &server->sources[place];
		if (aether_ready(&source->end->ring) != AETHER_EMPTY) {
			server->turn = place + 1;
			return source;
		}
	}
	return NULL;
}

static bool stirs(const struct source *source)
{
	return aether_load_index(&source->end->ring, AETHER_PRODUCED_OFFSET) != source->mark ||
	       aether_is_closed(&source->end->ring);
}

/* Look until a time, or until something stirs; needs no interpreter's lock. */
static bool spin_until(const Server *server, uint64_t until)
{
	do {
		for (int turn = 0; turn < 64; turn++) {
			for (size_t place = 0; place < server->source_count; place++)
				if (stirs(&server->sources[place]))
					return true;
			aether_pause();
		}
	} while (aether_now() < until);
	return false;
}

static void mark_sources(Server *server)
{
	for (size_t place = 0; place < server->source_count; place++)
		server->sources[place].mark = server->sources[place].end->ring.other;
}

/* Look for less than a microsecond, with the interpreter's lock. */
static bool glance(Server *server)
{
	mark_sources(server);
	for (size_t looked = 0; looked < AETHER_GLANCES; looked += server->source_count)
		for (size_t place = 0; place < server->source_count; place++)
			if (stirs(&server->sources[place]))
				return true;
	return false;
}

/* Spin for a slice without the interpreter's lock; tell whether something stirs. */
static bool spin_slice(Server *server, uint64_t limit)
{
	bool stirred;
	uint64_t slice = aether_now() + SPIN_SLICE;
	mark_sources(server);
	Py_BEGIN_ALLOW_THREADS stirred = spin_until(server, earlier(slice, limit));
	Py_END_ALLOW_THREADS return stirred;
}

/* Ask for every bell: true when all sources are empty. */
static bool doze_all(Server *server)
{
	bool idle = true;
	for (size_t place = 0; place < server->source_count; place++) {
		struct aether_wish wish = {&server->sources[place].end->ring, 0};
		idle &= aether_waits(aether_doze(&wish, AETHER_ON_DOORBELL));
	}
	return idle;
}

/* Note that a source's bell has rung; false when it is none's. */
static bool note_bell(Server *server, int descriptor)
{
	for (size_t place = 0; place < server->source_count; place++)
		if (server->sources[place].wake == descriptor)
			return server->sources[place].has_rung = true;
	return false;
}

/* Read the bells that have rung; that can wait until their records are handled. */
static void quiet_bells(Server *server)
{
	char rings[MOST_RINGS];
	struct iovec into = {rings, sizeof(rings)};
	if (server->stopped)
		return; /* they may be closed, and their numbers be others' */
	for (size_t place = 0; place < server->source_count; place++) {
		struct source *source = &server->sources[place];
		if (!source->has_rung)
			continue;
		/* Others may have its flags, O_NONBLOCK as well, or have heard it. */
		syscall(SYS_preadv2, source->wake, &into, 1L, -1L, -1L, (long)RWF_NOWAIT);
		source->has_rung = false;
	}
}

/* Sleep until a bell rings; false when it was, or may have been, something else. */
static bool nap(Server *server)
{
	struct epoll_event events[EVENTS];
	int count;
	bool bells_only = true;
	Py_BEGIN_ALLOW_THREADS count = epoll_wait(server->poll, events, EVENTS, LONGEST_NAP);
	Py_END_ALLOW_THREADS for (int place = 0; place < count; place++) bells_only &=
		note_bell(server, events[place].data.fd);
	server->idle_since = 0;
	return count > 0 && bells_only;
}

/* GO_ON with a record; else the caller has to see what stirs. */
static enum aether_next_step go_on_or(Server *server, enum aether_next_step other)
{
	return find_record(server) ? GO_ON : other;
}

static enum aether_next_step sleep_on_bells(Server *server)
{
	if (PyErr_CheckSignals() < 0)
		return FAILED;
	if (server->stopped)
		return HEAR; /* by a signal's handler */
	quiet_bells(server);
	if (!doze_all(server))
		return go_on_or(server, LOOK);
	return nap(server) ? go_on_or(server, HEAR) : HEAR;
}

/* Spin, then sleep: GO_ON when there is a record; HEAR, LOOK or FAILED for the caller. */
static enum aether_next_step await_record(Server *server, uint64_t spin)
{
	if (spin && glance(server))
		return go_on_or(server, LOOK);
	uint64_t now = aether_now(), hear = now + HEAR_AFTER;
	if (!server->idle_since)
		server->idle_since = now;
	for (uint64_t limit = server->idle_since + spin; now < limit; now = aether_now()) {
		if (PyErr_CheckSignals() < 0)
			return FAILED;
		if (PyObject_Size(server->sleepers) || now >= hear)
			return HEAR;
		if (spin_slice(server, limit))
			return go_on_or(server, LOOK);
	}
	return sleep_on_bells(server);
}

#endif
