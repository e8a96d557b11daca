/* SPDX-License-Identifier: Apache-2.0 */
/* Several records where they lie, finished by one store. Included by module.c. */
#ifndef AETHER_BATCH_H
#define AETHER_BATCH_H

#include "slots.h"

static PyObject *batch_type;

/* A member of a batch; a producer's begins at an index, a consumer's was passed already. */
struct member {
	struct aether_record record;
	uint64_t index;
};

/*
 * Reserved or peeked records that lie one behind the other. The end is as it was before them once
 * the batch is given up: before is its state then.
 */
typedef struct {
	PyObject_HEAD End *end;
	PyObject *views; /* a list of memoryviews, one for each member */
	struct member *members;
	size_t count;
	size_t room; /* of members */
	struct aether_ring before;
	int writable;
	int open;
} Batch;

static Batch *new_batch(End *end, size_t room, int writable)
{
	Batch *batch = PyObject_New(Batch, (PyTypeObject *)batch_type);
	if (!batch)
		return NULL;
	batch->end = (End *)Py_NewRef((PyObject *)end);
	batch->views = PyList_New(0);
	batch->members = calloc(room ? room : 1, sizeof(*batch->members));
	batch->count = 0;
	batch->room = room;
	batch->before = end->ring;
	batch->writable = writable;
	batch->open = 1;
	end->slot = (PyObject *)batch;
	if (batch->views && batch->members)
		return batch;
	Py_DECREF((PyObject *)batch);
	return (Batch *)PyErr_NoMemory();
}

/* Add a record with a view of it; -1 with an exception set. */
static int add_member(Batch *batch, const struct aether_record *record, uint64_t index)
{
	Slot *slot = new_slot(batch->end, record, batch->writable);
	PyObject *view = slot ? PyMemoryView_FromObject((PyObject *)slot) : NULL;
	int added = view ? PyList_Append(batch->views, view) : -1;
	Py_XDECREF(view);
	Py_XDECREF((PyObject *)slot);
	if (added == 0)
		batch->members[batch->count++] = (struct member){*record, index};
	return added;
}

static void close_batch(Batch *batch)
{
	batch->open = 0;
	batch->end->slot = NULL;
}

/* Give it up: the end is where it was, but for what was counted and what was found damaged. */
static void give_up(Batch *batch)
{
	struct aether_ring *ring = &batch->end->ring, now = *ring;
	*ring = batch->before;
	ring->counts.refusals = now.counts.refusals;
	ring->fault = now.fault;
	ring->expected = now.expected;
	ring->actual = now.actual;
	close_batch(batch);
}

static void batch_dealloc(PyObject *self)
{
	Batch *batch = (Batch *)self;
	PyTypeObject *type = Py_TYPE(self);
	if (batch->open)
		give_up(batch);
	Py_XDECREF(batch->views);
	free(batch->members);
	Py_DECREF((PyObject *)batch->end);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

/* Reserve one record more: OK, FULL, TOO_LARGE or CORRUPT; OK with an exception set. */
static enum aether_result reserve_member(Batch *batch, uint32_t length)
{
	struct aether_ring *ring = &batch->end->ring;
	struct aether_record record = {.length = length};
	enum aether_result result = aether_reserve(ring, length, &record.payload);
	if (result != AETHER_OK)
		return result;
	record.sequence = ring->sequence;
	if (add_member(batch, &record, ring->own) < 0)
		return AETHER_OK;
	ring->own += aether_stride(length);
	ring->sequence++;
	return AETHER_OK;
}

static uint32_t length_of(PyObject *number)
{
	unsigned long length = PyLong_AsUnsignedLong(number);
	return length > UINT32_MAX ? UINT32_MAX : (uint32_t)length;
}

static PyObject *reserve_batch(End *end, PyObject *lengths)
{
	enum aether_result result = AETHER_OK;
	Batch *batch = new_batch(end, (size_t)PyList_Size(lengths), 1);
	if (!batch)
		return NULL;
	for (size_t place = 0; place < batch->room && result == AETHER_OK; place++) {
		uint32_t length = length_of(PyList_GetItem(lengths, (Py_ssize_t)place));
		if (!PyErr_Occurred())
			result = reserve_member(batch, length);
		if (PyErr_Occurred())
			break;
	}
	if (!PyErr_Occurred() && (result == AETHER_OK || result == AETHER_FULL))
		return (PyObject *)batch;
	if (!PyErr_Occurred())
		raise_result(&end->ring, result);
	Py_DECREF((PyObject *)batch);
	return NULL;
}

/* Look at one record more: OK, EMPTY or CORRUPT; OK with an exception set. */
static enum aether_result peek_member(Batch *batch)
{
	struct aether_ring *ring = &batch->end->ring;
	struct aether_record record;
	enum aether_result result = aether_next(ring, &record);
	if (result == AETHER_OK)
		result = aether_check(ring, &record, NULL);
	if (result == AETHER_OK && add_member(batch, &record, ring->own) == 0)
		aether_pass(ring, &record);
	return result;
}

/* Damage is told once what came before it has been handed out. */
static PyObject *peek_batch(End *end, size_t limit)
{
	size_t most = end->ring.size / AETHER_ALIGNMENT;
	enum aether_result result = AETHER_OK;
	Batch *batch = new_batch(end, limit < most ? limit : most, 0);
	if (!batch)
		return NULL;
	while (batch->count < batch->room && result == AETHER_OK && !PyErr_Occurred())
		result = peek_member(batch);
	if (!PyErr_Occurred() && (result != AETHER_CORRUPT || batch->count))
		return (PyObject *)batch;
	if (!PyErr_Occurred())
		raise_result(&end->ring, result);
	Py_DECREF((PyObject *)batch);
	return NULL;
}

PyDoc_STRVAR(batch_commit_doc, "commit(kind=0, /)\n--\n\n"
			       "Finish the reserved records and wake the consumer, once for all.");

static PyObject *batch_commit(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	Batch *batch = (Batch *)self;
	struct aether_ring *ring = &batch->end->ring;
	uint32_t type = 0;
	if (count > 1) {
		PyErr_SetString(PyExc_TypeError, "takes at most one argument");
		return NULL;
	}
	if (count == 1 && read_type(arguments[0], &type) < 0)
		return NULL;
	if (!batch->open || !batch->writable) {
		PyErr_SetString(batch->open ? PyExc_TypeError : PyExc_ValueError,
				batch->open ? "they were peeked at" : "the records are finished");
		return NULL;
	}
	enter(batch->end);
	for (size_t place = 0; place < batch->count; place++) {
		const struct member *member = &batch->members[place];
		ring->own = member->index;
		ring->sequence = member->record.sequence;
		aether_commit(ring, member->record.payload, member->record.length, type);
	}
	if (batch->count)
		wake_consumer(batch->end);
	close_batch(batch);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(batch_release_doc, "release()\n--\n\n"
				"Give peeked records' places back, or reserved ones up.");

static PyObject *batch_release(PyObject *self, PyObject *unused)
{
	(void)unused;
	Batch *batch = (Batch *)self;
	if (!batch->open)
		Py_RETURN_NONE;
	enter(batch->end);
	if (batch->writable) {
		give_up(batch);
		Py_RETURN_NONE;
	}
	if (batch->count)
		wake_producer(batch->end, batch->end->ring.own);
	close_batch(batch);
	Py_RETURN_NONE;
}

static PyObject *batch_exit(PyObject *self, PyObject *unused)
{
	(void)unused;
	return batch_release(self, NULL);
}

static Py_ssize_t batch_length(PyObject *self)
{
	return (Py_ssize_t)((Batch *)self)->count;
}

static PyObject *batch_get_views(PyObject *self, void *unused)
{
	(void)unused;
	return Py_NewRef(((Batch *)self)->views);
}

static PyObject *batch_get_types(PyObject *self, void *unused)
{
	(void)unused;
	const Batch *batch = (Batch *)self;
	PyObject *types = PyList_New((Py_ssize_t)batch->count);
	for (size_t place = 0; types && place < batch->count; place++) {
		PyObject *type = PyLong_FromUnsignedLong(batch->members[place].record.type);
		if (!type || PyList_SetItem(types, (Py_ssize_t)place, type) < 0)
			Py_CLEAR(types);
	}
	return types;
}

static PyMethodDef batch_methods[] = {
	{"commit", (PyCFunction)(void (*)(void))batch_commit, METH_FASTCALL, batch_commit_doc},
	{"release", batch_release, METH_NOARGS, batch_release_doc},
	{"__enter__", slot_enter, METH_NOARGS, NULL},
	{"__exit__", batch_exit, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef batch_fields[] = {
	{"views", batch_get_views, NULL, "The payloads as memoryviews.", NULL},
	{"types", batch_get_types, NULL, "The types of peeked records.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot batch_slots[] = {
	{Py_tp_doc, "Payloads in the ring; a context manager that releases them together."},
	{Py_tp_dealloc, batch_dealloc},
	{Py_tp_methods, batch_methods},
	{Py_tp_getset, batch_fields},
	{Py_sq_length, batch_length},
	{0, NULL},
};

static PyType_Spec batch_spec = {"aetherless_ring._native.Batch", sizeof(Batch), 0,
				 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
				 batch_slots};

#endif
