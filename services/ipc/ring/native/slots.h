/* SPDX-License-Identifier: Apache-2.0 */
/* Records where they lie: one, or a batch of them. Included by module.c. */
#ifndef AETHER_SLOTS_H
#define AETHER_SLOTS_H

#include "end.h"

/*
 * A payload in the ring: reserved by a producer, or peeked at by a consumer. It keeps the end, and
 * with it the memory, for as long as anybody has a view of it; what a view shows once the record is
 * finished is whatever lies there.
 */
typedef struct {
	PyObject_HEAD End *end;
	struct aether_record record;
	int writable;
	int open; /* not finished; never set in a batch */
} Slot;

static PyObject *slot_type;

static Slot *new_slot(End *end, const struct aether_record *record, int writable)
{
	Slot *slot = PyObject_New(Slot, (PyTypeObject *)slot_type);
	if (!slot)
		return NULL;
	slot->end = (End *)Py_NewRef((PyObject *)end);
	slot->record = *record;
	slot->writable = writable;
	slot->open = 0;
	return slot;
}

static PyObject *make_slot(End *end, const struct aether_record *record, int writable)
{
	Slot *slot = new_slot(end, record, writable);
	if (!slot)
		return NULL;
	slot->open = 1;
	end->slot = (PyObject *)slot;
	return (PyObject *)slot;
}

static int slot_buffer(PyObject *self, Py_buffer *view, int flags)
{
	Slot *slot = (Slot *)self;
	return PyBuffer_FillInfo(view, self, slot->record.payload, slot->record.length,
				 !slot->writable, flags);
}

static void finish(Slot *slot)
{
	slot->end->slot = NULL;
	slot->open = 0;
}

static void slot_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	if (((Slot *)self)->open)
		finish((Slot *)self);
	Py_DECREF((PyObject *)((Slot *)self)->end);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

static int check_open(const Slot *slot, int writable)
{
	if (!slot->open)
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
	enter(slot->end);
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
	if (!slot->open)
		Py_RETURN_NONE;
	enter(slot->end);
	if (!slot->writable) {
		aether_pass(&slot->end->ring, &slot->record);
		wake_producer(slot->end, slot->end->ring.own);
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

static PyType_Spec slot_spec = {"aetherless_ring._native.Slot", sizeof(Slot), 0,
				Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slot_slots};

#endif
