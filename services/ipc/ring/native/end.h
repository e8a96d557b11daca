/* SPDX-License-Identifier: Apache-2.0 */
/* An end of a ring as a Python object: its memory, its lock, its waits. Included by module.c. */
#ifndef AETHER_END_H
#define AETHER_END_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef Py_GIL_DISABLED
#error "the rings rely on the interpreter's lock: a free-threaded build is refused"
#endif

#include <pthread.h>

#include "doorbell.h"
#include "waiting.h"

#define PAGE 4096u
#define LONGEST_SLEEP 50000000u /* ns; then Python's signals are looked at */
#define SPIN_SLICE 1000000u	/* ns of spinning, likewise */
#define LONGEST_WAIT 3e9	/* seconds; what is longer, also infinity, is a hundred years */
#define LONG_COPY (128u << 10)	/* bytes; from there on other threads may run meanwhile */
#define NANOSECONDS 1000000000.0

static const struct aether_checksum_way *chosen_way;
static PyTypeObject *producer_type, *consumer_type;
static PyObject *error_full, *error_empty, *error_large, *error_corrupt, *error_closed;

/*
 * An end of a ring. Operations are exclusive by the interpreter's lock; those that let go of it
 * hold the mutex and are busy meanwhile.
 */
typedef struct {
	PyObject_HEAD struct aether_ring ring;
	Py_buffer memory;
	pthread_mutex_t mutex;
	int busy;
	int doorbell;
	PyObject *slot; /* reserved or peeked records that are not finished; borrowed */
} End;

/* Let no other thread be inside this end; the interpreter's lock is held before and after. */
static void enter(End *end)
{
	while (end->busy) {
		Py_BEGIN_ALLOW_THREADS pthread_mutex_lock(&end->mutex);
		pthread_mutex_unlock(&end->mutex);
		Py_END_ALLOW_THREADS
	}
}

#define BUSY(end)                                  \
	{                                          \
		pthread_mutex_lock(&(end)->mutex); \
		(end)->busy = 1;                   \
		Py_BEGIN_ALLOW_THREADS
#define IDLE(end)                            \
	Py_END_ALLOW_THREADS(end)->busy = 0; \
	pthread_mutex_unlock(&(end)->mutex); \
	}

static PyObject *raise_corrupt(const struct aether_ring *ring)
{
	static const char *const faults[] = {"", "index", "length", "sequence", "checksum"};
	PyObject *error = PyObject_CallFunction(error_corrupt, "sKK", faults[ring->fault],
						(unsigned long long)ring->expected,
						(unsigned long long)ring->actual);
	if (error) {
		PyErr_SetObject(error_corrupt, error);
		Py_DECREF(error);
	}
	return NULL;
}

static PyObject *raise_result(const struct aether_ring *ring, enum aether_result result)
{
	switch (result) {
	case AETHER_FULL:
		PyErr_SetNone(error_full);
		return NULL;
	case AETHER_EMPTY:
		PyErr_SetNone(error_empty);
		return NULL;
	case AETHER_TOO_LARGE:
		PyErr_Format(error_large, "a payload has 1 to %u bytes", aether_largest(ring));
		return NULL;
	case AETHER_CLOSED:
		PyErr_SetNone(error_closed);
		return NULL;
	default:
		return raise_corrupt(ring);
	}
}

/* Give a tuple its items, references that become its own; NULL, and none is left, if one is. */
static PyObject *fill_tuple(PyObject *tuple, PyObject *const *items, Py_ssize_t count)
{
	int whole = tuple != NULL;
	for (Py_ssize_t place = 0; place < count; place++) {
		whole = whole && items[place];
		if (tuple)
			PyTuple_SetItem(tuple, place, items[place]);
		else
			Py_XDECREF(items[place]);
	}
	if (!whole)
		Py_CLEAR(tuple);
	return tuple;
}

/* Making and unmaking */

static int is_ring_size(unsigned long long size)
{
	return size >= 65536 && size <= (1u << 30) && (size & (size - 1)) == 0;
}

static void point_into(End *end, unsigned direction, unsigned long long size)
{
	uint8_t *base = end->memory.buf;
	end->ring.control = base + PAGE + direction * PAGE;
	end->ring.data = base + 3 * (size_t)PAGE + direction * size;
	end->ring.closed = base + AETHER_CLOSED_OFFSET;
	end->ring.size = size;
}

static const struct aether_checksum_way *find_way(const char *name)
{
	for (size_t place = 0; place < AETHER_CHECKSUM_WAYS; place++)
		if (strcmp(aether_checksum_ways[place].name, name) == 0 &&
		    aether_checksum_ways[place].available())
			return &aether_checksum_ways[place];
	return NULL;
}

/* Point an end into the region; the checksum is the fastest unless one is named. */
static int set_up(End *end, unsigned direction, unsigned long long size, const char *way)
{
	const struct aether_checksum_way *chosen = way ? find_way(way) : chosen_way;
	if (direction > 1 || !is_ring_size(size) ||
	    (unsigned long long)end->memory.len != 3 * PAGE + 2 * size ||
	    (uintptr_t)end->memory.buf % AETHER_ALIGNMENT) {
		PyErr_SetString(PyExc_ValueError, "memory is no region with rings of this size");
		return -1;
	}
	if (!chosen) {
		PyErr_Format(PyExc_ValueError, "no way %s to compute the checksum here", way);
		return -1;
	}
	point_into(end, direction, size);
	end->ring.checksum = chosen->function;
	return 0;
}

static int producer_init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"memory",   "direction", "ring_bytes", "doorbell",
				"checksum", "push",	 NULL};
	End *end = (End *)self;
	unsigned direction;
	unsigned long long size;
	const char *way = NULL;
	int push = 0;
	end->doorbell = -1;
	if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "w*IK|iz$p", names, &end->memory,
					 &direction, &size, &end->doorbell, &way, &push))
		return -1;
	end->ring.push = push;
	return set_up(end, direction, size, way);
}

static int consumer_init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"memory",   "direction", "ring_bytes", "doorbell",
				"checksum", "resume",	 NULL};
	End *end = (End *)self;
	unsigned direction;
	unsigned long long size;
	const char *way = NULL;
	int resume = 0;
	end->doorbell = -1;
	if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "w*IK|iz$p", names, &end->memory,
					 &direction, &size, &end->doorbell, &way, &resume) ||
	    set_up(end, direction, size, way) < 0)
		return -1;
	if (resume && aether_resume(&end->ring) != AETHER_OK) {
		raise_corrupt(&end->ring);
		return -1;
	}
	return 0;
}

static PyObject *end_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
	(void)arguments;
	(void)keywords;
	allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	End *end = (End *)allocate(type, 0);
	if (end)
		pthread_mutex_init(&end->mutex, NULL);
	return (PyObject *)end;
}

static void end_dealloc(PyObject *self)
{
	End *end = (End *)self;
	PyTypeObject *type = Py_TYPE(self);
	if (end->memory.obj)
		PyBuffer_Release(&end->memory);
	pthread_mutex_destroy(&end->mutex);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

/* Refuse a use while a slot is open, or of an end that was not made whole. */
static int begin(End *end)
{
	enter(end);
	if (!end->memory.obj) {
		PyErr_SetString(PyExc_ValueError, "this end was not made");
		return -1;
	}
	if (end->slot) {
		PyErr_SetString(PyExc_RuntimeError, "a reserved or peeked record is not finished");
		return -1;
	}
	return 0;
}

/* Arguments */

/* Read a record's type; -1 with an exception set. */
static int read_type(PyObject *argument, uint32_t *type)
{
	unsigned long value = PyLong_AsUnsignedLong(argument);
	if (PyErr_Occurred())
		return -1;
	if (value > UINT32_MAX) {
		PyErr_SetString(PyExc_ValueError, "type has 32 bits");
		return -1;
	}
	*type = (uint32_t)value;
	return 0;
}

/* As PyObject_GetBuffer, faster for bytes. */
static int open_payload(PyObject *payload, Py_buffer *source)
{
	if (!PyBytes_CheckExact(payload))
		return PyObject_GetBuffer(payload, source, PyBUF_SIMPLE);
	source->buf = PyBytes_AsString(payload);
	source->len = PyBytes_Size(payload);
	source->obj = Py_NewRef(payload);
	return 0;
}

static void close_payload(Py_buffer *source)
{
	if (PyBytes_CheckExact(source->obj))
		Py_CLEAR(source->obj);
	else
		PyBuffer_Release(source);
}

/* Waiting */

/* Return a time so many seconds from now: now if they are not positive, at most a lifetime. */
static uint64_t later(uint64_t now, double seconds)
{
	if (!(seconds > 0))
		return now;
	return now + (seconds < LONGEST_WAIT ? (uint64_t)(seconds * NANOSECONDS)
					     : (uint64_t)LONGEST_WAIT * (uint64_t)NANOSECONDS);
}

static uint64_t earlier(uint64_t one, uint64_t other)
{
	return one < other ? one : other;
}

/* Say that this side sleeps, and sleep until it is woken, at most so long. */
static enum aether_result sleep_for(End *end, const struct aether_wish *wish, uint64_t limit)
{
	enum aether_result result = aether_doze(wish, AETHER_ON_FUTEX);
	if (!aether_waits(result))
		return result;
	end->ring.counts.sleeps++;
	Py_BEGIN_ALLOW_THREADS aether_futex_wait(aether_bed(wish), AETHER_ON_FUTEX,
						 earlier(limit, LONGEST_SLEEP));
	Py_END_ALLOW_THREADS enter(end);
	__atomic_store_n(aether_bed(wish), AETHER_AWAKE, __ATOMIC_RELAXED);
	return aether_fulfilled(wish);
}

/*
 * Wait for room or a record, letting go of the interpreter's lock: OK, TIMED_OUT or what ends it;
 * EMPTY when an exception is set. Other threads may use the end while this one sleeps.
 */
static enum aether_result wait_for(End *end, uint32_t length, double timeout, double spin)
{
	struct aether_wish wish = {&end->ring, length};
	if (begin(end) < 0)
		return AETHER_EMPTY;
	enum aether_result result = spin > 0 ? aether_glance(&wish) : aether_fulfilled(&wish);
	if (!aether_waits(result))
		return result;
	uint64_t now = aether_now(), until = later(now, timeout);
	uint64_t spin_until = later(now, spin < timeout ? spin : timeout);
	end->ring.counts.waits++;
	while (aether_waits(result)) {
		if (PyErr_CheckSignals() < 0)
			return AETHER_EMPTY;
		enter(end); /* a signal's handler may have let others in */
		if (now < spin_until) {
			BUSY(end)
			result = aether_spin(&wish, earlier(now + SPIN_SLICE, spin_until));
			IDLE(end)
		} else if (now < until) {
			result = sleep_for(end, &wish, until - now);
		} else {
			return AETHER_TIMED_OUT;
		}
		now = aether_now();
	}
	return result;
}

static PyObject *waited(End *end, enum aether_result result)
{
	if (PyErr_Occurred())
		return NULL;
	if (result == AETHER_OK)
		Py_RETURN_TRUE;
	if (result == AETHER_TIMED_OUT)
		Py_RETURN_FALSE;
	return raise_result(&end->ring, result);
}

/* Wake the other side as it asked for. */
static void wake(End *end, enum aether_sleep how, size_t bed)
{
	if (aether_belfry && how == AETHER_ON_DOORBELL && aether_ring_warily(end->doorbell) == 0)
		end->ring.counts.wakes++;
	else /* also a pipe, of which the other side has an end of its own */
		aether_wake(&end->ring, how, bed, end->doorbell);
}

static void wake_consumer(End *end)
{
	wake(end, aether_publish(&end->ring), AETHER_CONSUMER_ASLEEP);
}

/* Give the places before an index back. */
static void wake_producer(End *end, uint64_t index)
{
	wake(end, aether_release_to(&end->ring, index), AETHER_PRODUCER_ASLEEP);
}

#endif
