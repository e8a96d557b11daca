/* SPDX-License-Identifier: Apache-2.0 */
/* aetherless_ring._native: the ring for CPython, with the interface of reference.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef Py_GIL_DISABLED
#error "the rings rely on the interpreter's lock; free-threaded builds take the reference"
#endif

#include <pthread.h>

#include "waiting.h"

#define PAGE 4096u
#define LONGEST_SLEEP 50000000u /* ns; then Python's signals are looked at */
#define LONG_COPY (128u << 10)	/* bytes; from there on other threads may run meanwhile */
#define GLANCE_TURNS 64
#define NANOSECONDS 1000000000.0

static const struct aether_checksum_way *chosen_way;
static PyObject *error_full, *error_empty, *error_large, *error_corrupt, *error_closed;

/*
 * Both ends of a ring. Operations are exclusive by the interpreter's lock; those that let go of it
 * hold the mutex and are busy meanwhile.
 */
typedef struct {
	PyObject_HEAD struct aether_ring ring;
	Py_buffer memory;
	pthread_mutex_t mutex;
	int busy;
	int doorbell;
	PyObject *slot; /* a reservation or a peeked record that is not finished; borrowed */
} End;

/* A payload in the ring: reserved by a producer, or peeked at by a consumer. */
typedef struct {
	PyObject_HEAD End *end; /* NULL once it is finished */
	struct aether_record record;
	int writable;
} Slot;

static PyObject *slot_type;

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
	end->ring.checksum = chosen_way->function;
}

static const struct aether_checksum_way *find_way(const char *name)
{
	for (size_t place = 0; place < AETHER_CHECKSUM_WAYS; place++)
		if (strcmp(aether_checksum_ways[place].name, name) == 0 &&
		    aether_checksum_ways[place].available())
			return &aether_checksum_ways[place];
	return NULL;
}

static int end_init(End *end, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"memory", "direction", "ring_bytes", "doorbell", "checksum", NULL};
	unsigned direction;
	unsigned long long size;
	const char *way = NULL;
	end->doorbell = -1;
	if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "w*IK|iz", names, &end->memory,
					 &direction, &size, &end->doorbell, &way))
		return -1;
	if (direction > 1 || !is_ring_size(size) ||
	    (unsigned long long)end->memory.len != 3 * PAGE + 2 * size ||
	    (uintptr_t)end->memory.buf % AETHER_ALIGNMENT) {
		PyErr_SetString(PyExc_ValueError, "memory is no region with rings of this size");
		return -1;
	}
	point_into(end, direction, size);
	if (way) {
		const struct aether_checksum_way *found = find_way(way);
		if (!found) {
			PyErr_Format(PyExc_ValueError, "no way %s to compute the checksum here",
				     way);
			return -1;
		}
		end->ring.checksum = found->function;
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

static PyObject *make_slot(End *end, const struct aether_record *record, int writable)
{
	Slot *slot = PyObject_New(Slot, (PyTypeObject *)slot_type);
	if (!slot)
		return NULL;
	slot->end = (End *)Py_NewRef((PyObject *)end);
	slot->record = *record;
	slot->writable = writable;
	end->slot = (PyObject *)slot;
	return (PyObject *)slot;
}

/* Waiting */

static uint64_t later(uint64_t now, double seconds)
{
	return seconds <= 0 ? now : now + (uint64_t)(seconds * NANOSECONDS);
}

/* Spin for about a microsecond without letting go of the interpreter's lock. */
static enum aether_result glance(const struct aether_wish *wish)
{
	enum aether_result result = aether_fulfilled(wish);
	for (int turn = 0; aether_waits(result) && turn < GLANCE_TURNS; turn++) {
		aether_pause();
		result = aether_fulfilled(wish);
	}
	return result;
}

/* Wait for room or a record, letting go of the interpreter's lock: OK, TIMED_OUT or what ends it.
 * EMPTY when an exception is set. */
static enum aether_result wait_for(End *end, uint32_t length, double timeout, double spin)
{
	struct aether_wish wish = {&end->ring, length};
	if (begin(end) < 0)
		return AETHER_EMPTY;
	enum aether_result result = spin > 0 ? glance(&wish) : aether_fulfilled(&wish);
	uint64_t now = aether_now(), until = later(now, timeout);
	uint64_t spin_until = later(now, spin < timeout ? spin : timeout);
	while (aether_waits(result)) {
		if (begin(end) < 0 || PyErr_CheckSignals() < 0)
			return AETHER_EMPTY;
		BUSY(end)
		result = aether_wait(&wish, spin_until, until, LONGEST_SLEEP);
		IDLE(end)
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

/* The producer */

static void wake_consumer(End *end)
{
	aether_wake(&end->ring, aether_publish(&end->ring), AETHER_CONSUMER_ASLEEP, end->doorbell);
}

/* Put one payload in, not yet visible. */
static enum aether_result put(End *end, const Py_buffer *payload, uint32_t type)
{
	uint8_t *place;
	uint32_t length =
		payload->len > (Py_ssize_t)UINT32_MAX ? UINT32_MAX : (uint32_t)payload->len;
	enum aether_result result = aether_reserve(&end->ring, length, &place);
	if (result != AETHER_OK)
		return result;
	if (length < LONG_COPY) {
		aether_fill(&end->ring, place, payload->buf, length, type);
		return AETHER_OK;
	}
	BUSY(end)
	aether_fill(&end->ring, place, payload->buf, length, type);
	IDLE(end)
	return AETHER_OK;
}

static int read_type(PyObject *const *arguments, Py_ssize_t count, uint32_t *type)
{
	*type = 0;
	if (count < 1 || count > 2) {
		PyErr_SetString(PyExc_TypeError, "takes one or two arguments");
		return -1;
	}
	if (count == 2) {
		unsigned long value = PyLong_AsUnsignedLong(arguments[1]);
		if (PyErr_Occurred())
			return -1;
		if (value > UINT32_MAX) {
			PyErr_SetString(PyExc_ValueError, "type has 32 bits");
			return -1;
		}
		*type = (uint32_t)value;
	}
	return 0;
}

PyDoc_STRVAR(publish_doc,
	     "publish(payload, kind=0, /)\n--\n\nPut a record in and wake the consumer.");

static PyObject *producer_publish(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	End *end = (End *)self;
	Py_buffer payload;
	uint32_t type;
	if (read_type(arguments, count, &type) < 0 || begin(end) < 0)
		return NULL;
	if (PyObject_GetBuffer(arguments[0], &payload, PyBUF_SIMPLE) < 0)
		return NULL;
	enum aether_result result = put(end, &payload, type);
	PyBuffer_Release(&payload);
	if (result != AETHER_OK)
		return raise_result(&end->ring, result);
	wake_consumer(end);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(publish_many_doc, "publish_many(payloads, kind=0, /)\n--\n\n"
			       "Put records in while there is room; return how many.");

static PyObject *producer_publish_many(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	End *end = (End *)self;
	uint32_t type;
	if (read_type(arguments, count, &type) < 0 || begin(end) < 0)
		return NULL;
	if (!PyList_Check(arguments[0])) {
		PyErr_SetString(PyExc_TypeError, "payloads must be a list");
		return NULL;
	}
	Py_ssize_t done = 0;
	enum aether_result result = AETHER_OK;
	for (; done < PyList_Size(arguments[0]); done++) {
		Py_buffer payload;
		if (PyObject_GetBuffer(PyList_GetItem(arguments[0], done), &payload, PyBUF_SIMPLE) <
		    0)
			break;
		result = put(end, &payload, type);
		PyBuffer_Release(&payload);
		if (result != AETHER_OK)
			break;
	}
	if (done)
		wake_consumer(end);
	if (PyErr_Occurred())
		return NULL;
	if (result != AETHER_OK && result != AETHER_FULL)
		return raise_result(&end->ring, result);
	return PyLong_FromSsize_t(done);
}

PyDoc_STRVAR(reserve_doc, "reserve(length, /)\n--\n\n"
			  "Return a slot: a writable buffer in the ring, to be committed.");

static PyObject *producer_reserve(PyObject *self, PyObject *argument)
{
	End *end = (End *)self;
	struct aether_record record = {0};
	unsigned long length = PyLong_AsUnsignedLong(argument);
	if (PyErr_Occurred() || begin(end) < 0)
		return NULL;
	record.length = length > UINT32_MAX ? UINT32_MAX : (uint32_t)length;
	enum aether_result result = aether_reserve(&end->ring, record.length, &record.payload);
	if (result != AETHER_OK)
		return raise_result(&end->ring, result);
	return make_slot(end, &record, 1);
}

/* The consumer */

static void wake_producer(End *end)
{
	aether_wake(&end->ring, aether_release(&end->ring), AETHER_PRODUCER_ASLEEP, end->doorbell);
}

/* Take the next record out, copied and checked; its place is not given back yet. */
static PyObject *take(End *end, enum aether_result *result)
{
	struct aether_record record;
	*result = aether_next(&end->ring, &record);
	if (*result != AETHER_OK)
		return NULL;
	PyObject *payload = PyBytes_FromStringAndSize(NULL, record.length);
	if (!payload)
		return NULL;
	uint8_t *target = (uint8_t *)PyBytes_AsString(payload);
	if (record.length < LONG_COPY) {
		*result = aether_check(&end->ring, &record, target);
	} else {
		BUSY(end)
		*result = aether_check(&end->ring, &record, target);
		IDLE(end)
	}
	PyObject *type = *result == AETHER_OK ? PyLong_FromUnsignedLong(record.type) : NULL;
	PyObject *taken = type ? PyTuple_Pack(2, type, payload) : NULL;
	Py_XDECREF(type);
	Py_DECREF(payload);
	if (taken)
		aether_pass(&end->ring, &record);
	return taken;
}

PyDoc_STRVAR(receive_doc, "receive(timeout=0.0, spin=0.0, /)\n--\n\n"
			  "Take a record out: its type and its payload, copied and checked.\n\n"
			  "Waits for one up to timeout, spinning first; both in seconds.");

/* Read the times of a wait; they stay as they are when there are none. */
static int read_times(PyObject *const *arguments, Py_ssize_t count, double times[2])
{
	if (count > 2) {
		PyErr_SetString(PyExc_TypeError, "takes at most two arguments");
		return -1;
	}
	for (Py_ssize_t place = 0; place < count; place++) {
		times[place] = PyFloat_AsDouble(arguments[place]);
		if (times[place] == -1.0 && PyErr_Occurred())
			return -1;
	}
	return 0;
}

static PyObject *consumer_receive(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	End *end = (End *)self;
	enum aether_result result = AETHER_OK;
	double times[2] = {0, 0};
	if (read_times(arguments, count, times) < 0 || begin(end) < 0)
		return NULL;
	if (times[0] > 0) {
		result = wait_for(end, 0, times[0], times[1]);
		if (PyErr_Occurred())
			return NULL;
		if (result != AETHER_OK)
			return raise_result(&end->ring,
					    result == AETHER_TIMED_OUT ? AETHER_EMPTY : result);
	}
	PyObject *taken = take(end, &result);
	if (taken)
		wake_producer(end);
	else if (result != AETHER_OK)
		return raise_result(&end->ring, result);
	return taken;
}

PyDoc_STRVAR(receive_many_doc, "receive_many(limit, /)\n--\n\n"
			       "Take up to limit records out; an empty list when there are none.");

static PyObject *consumer_receive_many(PyObject *self, PyObject *argument)
{
	End *end = (End *)self;
	Py_ssize_t limit = PyLong_AsSsize_t(argument);
	if (PyErr_Occurred() || begin(end) < 0)
		return NULL;
	PyObject *all = PyList_New(0);
	enum aether_result result = AETHER_OK;
	while (all && PyList_Size(all) < limit) {
		PyObject *taken = take(end, &result);
		if (!taken || PyList_Append(all, taken) < 0) {
			Py_XDECREF(taken);
			break;
		}
		Py_DECREF(taken);
	}
	if (all && PyList_Size(all))
		wake_producer(end);
	/* Damage is told once what came before it has been handed out. */
	if (PyErr_Occurred() || (result == AETHER_CORRUPT && PyList_Size(all) == 0)) {
		Py_XDECREF(all);
		return PyErr_Occurred() ? NULL : raise_result(&end->ring, result);
	}
	return all;
}

PyDoc_STRVAR(peek_doc,
	     "peek()\n--\n\n"
	     "Return a slot: the next record as a read-only buffer in the ring, to be released.\n\n"
	     "It is checked now; a producer that is not trusted can change it afterwards.");

static PyObject *consumer_peek(PyObject *self, PyObject *unused)
{
	(void)unused;
	End *end = (End *)self;
	struct aether_record record;
	if (begin(end) < 0)
		return NULL;
	enum aether_result result = aether_next(&end->ring, &record);
	if (result == AETHER_OK)
		result = aether_check(&end->ring, &record, NULL);
	if (result != AETHER_OK)
		return raise_result(&end->ring, result);
	return make_slot(end, &record, 0);
}

/* Waits and counts */

PyDoc_STRVAR(producer_wait_doc,
	     "wait(length, timeout, spin=0.0)\n--\n\n"
	     "Wait for room for a payload, spinning first; both times in seconds.");

static PyObject *producer_wait(PyObject *self, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"length", "timeout", "spin", NULL};
	unsigned length;
	double timeout, spin = 0;
	if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "Id|d", names, &length, &timeout,
					 &spin))
		return NULL;
	if (length == 0)
		return raise_result(&((End *)self)->ring, AETHER_TOO_LARGE);
	return waited((End *)self, wait_for((End *)self, length, timeout, spin));
}

PyDoc_STRVAR(consumer_wait_doc, "wait(timeout, spin=0.0)\n--\n\n"
				"Wait for a record, spinning first; both times in seconds.");

static PyObject *consumer_wait(PyObject *self, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"timeout", "spin", NULL};
	double timeout, spin = 0;
	if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "d|d", names, &timeout, &spin))
		return NULL;
	return waited((End *)self, wait_for((End *)self, 0, timeout, spin));
}

PyDoc_STRVAR(doze_doc, "doze()\n--\n\n"
		       "Ask to be woken by the doorbell; False when a record is there already.");

static PyObject *consumer_doze(PyObject *self, PyObject *unused)
{
	(void)unused;
	End *end = (End *)self;
	struct aether_wish wish = {&end->ring, 0};
	if (begin(end) < 0)
		return NULL;
	enum aether_result result = aether_doze(&wish, AETHER_ON_DOORBELL);
	if (aether_waits(result))
		Py_RETURN_TRUE;
	if (result == AETHER_OK)
		Py_RETURN_FALSE;
	return raise_result(&end->ring, result);
}

PyDoc_STRVAR(counts_doc, "counts()\n--\n\nReturn what this end has done, by name.");

static PyObject *end_counts(PyObject *self, PyObject *unused)
{
	(void)unused;
	const struct aether_counts *counts = &((End *)self)->ring.counts;
	enter((End *)self);
	return Py_BuildValue("{sKsKsKsKsKsK}", "records", counts->records, "bytes", counts->bytes,
			     "waits", counts->waits, "sleeps", counts->sleeps, "wakes",
			     counts->wakes, "refusals", counts->refusals);
}

/* Slots */

static int slot_buffer(PyObject *self, Py_buffer *view, int flags)
{
	Slot *slot = (Slot *)self;
	if (!slot->end) {
		PyErr_SetString(PyExc_BufferError, "the record is finished");
		view->obj = NULL;
		return -1;
	}
	return PyBuffer_FillInfo(view, self, slot->record.payload, slot->record.length,
				 !slot->writable, flags);
}

static void finish(Slot *slot)
{
	slot->end->slot = NULL;
	Py_CLEAR(slot->end);
}

static void slot_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	if (((Slot *)self)->end)
		finish((Slot *)self);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

static int check_open(const Slot *slot, int writable)
{
	if (!slot->end)
		PyErr_SetString(PyExc_ValueError, "the record is finished");
	else if (slot->writable != writable)
		PyErr_SetString(PyExc_TypeError, writable ? "it was peeked at" : "it was reserved");
	else
		return 0;
	return -1;
}

PyDoc_STRVAR(commit_doc,
	     "commit(length=None, kind=0)\n--\n\n"
	     "Finish a reserved record, of its first length bytes, and wake the consumer.");

static PyObject *slot_commit(PyObject *self, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"length", "kind", NULL};
	Slot *slot = (Slot *)self;
	PyObject *given = Py_None;
	unsigned type = 0;
	if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|OI", names, &given, &type) ||
	    check_open(slot, 1) < 0)
		return NULL;
	unsigned long length =
		given == Py_None ? slot->record.length : PyLong_AsUnsignedLong(given);
	if (PyErr_Occurred())
		return NULL;
	if (length == 0 || length > slot->record.length) {
		PyErr_Format(PyExc_ValueError, "length must be 1 to %u", slot->record.length);
		return NULL;
	}
	aether_commit(&slot->end->ring, slot->record.payload, (uint32_t)length, type);
	wake_consumer(slot->end);
	finish(slot);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(release_doc, "release()\n--\n\n"
			  "Give a peeked record's place back, or a reserved one up.");

static PyObject *slot_release(PyObject *self, PyObject *unused)
{
	(void)unused;
	Slot *slot = (Slot *)self;
	if (!slot->end)
		Py_RETURN_NONE;
	if (!slot->writable) {
		aether_pass(&slot->end->ring, &slot->record);
		wake_producer(slot->end);
	}
	finish(slot);
	Py_RETURN_NONE;
}

static PyObject *slot_enter(PyObject *self, PyObject *unused)
{
	(void)unused;
	return Py_NewRef(self);
}

static PyObject *slot_exit(PyObject *self, PyObject *unused)
{
	(void)unused;
	return slot_release(self, NULL);
}

static PyObject *slot_get_type(PyObject *self, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLong(((Slot *)self)->record.type);
}

static PyObject *slot_get_view(PyObject *self, void *unused)
{
	(void)unused;
	return PyMemoryView_FromObject(self);
}

static PyMethodDef slot_methods[] = {
	{"commit", (PyCFunction)(void (*)(void))slot_commit, METH_VARARGS | METH_KEYWORDS,
	 commit_doc},
	{"release", slot_release, METH_NOARGS, release_doc},
	{"__enter__", slot_enter, METH_NOARGS, NULL},
	{"__exit__", slot_exit, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef slot_fields[] = {
	{"type", slot_get_type, NULL, "The type of a peeked record.", NULL},
	{"view", slot_get_view, NULL, "The payload as a memoryview.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slot_slots[] = {
	{Py_tp_doc, "A payload in the ring, as a buffer; a context manager that releases it."},
	{Py_tp_dealloc, slot_dealloc},
	{Py_tp_methods, slot_methods},
	{Py_tp_getset, slot_fields},
	{Py_bf_getbuffer, slot_buffer},
	{0, NULL},
};

static PyMethodDef producer_methods[] = {
	{"publish", (PyCFunction)(void (*)(void))producer_publish, METH_FASTCALL, publish_doc},
	{"publish_many", (PyCFunction)(void (*)(void))producer_publish_many, METH_FASTCALL,
	 publish_many_doc},
	{"reserve", producer_reserve, METH_O, reserve_doc},
	{"wait", (PyCFunction)(void (*)(void))producer_wait, METH_VARARGS | METH_KEYWORDS,
	 producer_wait_doc},
	{"counts", end_counts, METH_NOARGS, counts_doc},
	{NULL, NULL, 0, NULL},
};

static PyMethodDef consumer_methods[] = {
	{"receive", (PyCFunction)(void (*)(void))consumer_receive, METH_FASTCALL, receive_doc},
	{"receive_many", consumer_receive_many, METH_O, receive_many_doc},
	{"peek", consumer_peek, METH_NOARGS, peek_doc},
	{"wait", (PyCFunction)(void (*)(void))consumer_wait, METH_VARARGS | METH_KEYWORDS,
	 consumer_wait_doc},
	{"doze", consumer_doze, METH_NOARGS, doze_doc},
	{"counts", end_counts, METH_NOARGS, counts_doc},
	{NULL, NULL, 0, NULL},
};

#define END_SLOTS(doc, methods)                                                 \
	{                                                                       \
		{Py_tp_doc, doc}, {Py_tp_new, end_new}, {Py_tp_init, end_init}, \
			{Py_tp_dealloc, end_dealloc}, {Py_tp_methods, methods}, \
		{                                                               \
			0, NULL                                                 \
		}                                                               \
	}

static PyType_Slot producer_slots[] = END_SLOTS("The end that puts records in.", producer_methods);
static PyType_Slot consumer_slots[] =
	END_SLOTS("The end that takes records out.", consumer_methods);

static PyType_Spec slot_spec = {"aetherless_ring._native.Slot", sizeof(Slot), 0,
				Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slot_slots};
static PyType_Spec producer_spec = {"aetherless_ring._native.Producer", sizeof(End), 0,
				    Py_TPFLAGS_DEFAULT, producer_slots};
static PyType_Spec consumer_spec = {"aetherless_ring._native.Consumer", sizeof(End), 0,
				    Py_TPFLAGS_DEFAULT, consumer_slots};

/* The module */

PyDoc_STRVAR(checksum_doc, "checksum(words, payload, way, /)\n--\n\n"
			   "Return the checksum of a record's words and payload by one way.");

static PyObject *module_checksum(PyObject *module, PyObject *arguments)
{
	(void)module;
	struct aether_words words;
	Py_buffer payload;
	const char *name;
	if (!PyArg_ParseTuple(arguments, "(III)y*s", &words.length, &words.type, &words.sequence,
			      &payload, &name))
		return NULL;
	const struct aether_checksum_way *way = find_way(name);
	uint32_t result = way ? way->function(&words, NULL, payload.buf, (size_t)payload.len) : 0;
	PyBuffer_Release(&payload);
	if (way)
		return PyLong_FromUnsignedLong(result);
	PyErr_Format(PyExc_ValueError, "no way %s to compute the checksum here", name);
	return NULL;
}

static PyMethodDef module_methods[] = {
	{"checksum", module_checksum, METH_VARARGS, checksum_doc},
	{NULL, NULL, 0, NULL},
};

/* Take the exceptions from the Python module that both implementations share. */
static int find_errors(void)
{
	PyObject *errors = PyImport_ImportModule("aetherless_ring.errors");
	if (!errors)
		return -1;
	error_full = PyObject_GetAttrString(errors, "RingFullError");
	error_empty = PyObject_GetAttrString(errors, "RingEmptyError");
	error_large = PyObject_GetAttrString(errors, "PayloadTooLargeError");
	error_corrupt = PyObject_GetAttrString(errors, "RingCorruptError");
	error_closed = PyObject_GetAttrString(errors, "RingClosedError");
	Py_DECREF(errors);
	return error_full && error_empty && error_large && error_corrupt && error_closed ? 0 : -1;
}

static int add_type(PyObject *module, const char *name, PyType_Spec *spec)
{
	PyObject *type = PyType_FromSpec(spec);
	int added = type ? PyModule_AddObjectRef(module, name, type) : -1;
	Py_XDECREF(type);
	return added;
}

static PyObject *ways_here(void)
{
	PyObject *names = PyList_New(0);
	for (size_t place = 0; names && place < AETHER_CHECKSUM_WAYS; place++) {
		if (!aether_checksum_ways[place].available())
			continue;
		PyObject *name = PyUnicode_FromString(aether_checksum_ways[place].name);
		if (!name || PyList_Append(names, name) < 0)
			Py_CLEAR(names);
		Py_XDECREF(name);
	}
	return names;
}

static int fill_module(PyObject *module)
{
	chosen_way = aether_choose_checksum();
	if (find_errors() < 0)
		return -1;
	slot_type = PyType_FromSpec(&slot_spec);
	PyObject *ways = ways_here();
	int failed = !slot_type || !ways ||
		     PyModule_AddObjectRef(module, "CHECKSUM_WAYS", ways) < 0 ||
		     add_type(module, "Producer", &producer_spec) < 0 ||
		     add_type(module, "Consumer", &consumer_spec) < 0;
	Py_XDECREF(ways);
	return failed ? -1 : 0;
}

static struct PyModuleDef definition = {
	.m_base = PyModuleDef_HEAD_INIT,
	.m_name = "_native",
	.m_doc = "The ring in C.",
	.m_size = -1, /* its exceptions and types are the process's */
	.m_methods = module_methods,
};

PyMODINIT_FUNC PyInit__native(void)
{
	PyObject *module = PyModule_Create(&definition);
	if (module && fill_module(module) < 0)
		Py_CLEAR(module);
	return module;
}
