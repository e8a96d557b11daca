/* SPDX-License-Identifier: Apache-2.0 */
/* aetherless_ring._native: the ring for CPython, with the interface of reference.py. */

#include "batch.h"
#include "serve.h"

/* The producer */

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

/* Put one object's bytes in, not yet visible; OK with an exception set when it has none. */
static enum aether_result put_object(End *end, PyObject *payload, uint32_t type)
{
	Py_buffer source;
	if (open_payload(payload, &source) < 0)
		return AETHER_OK;
	enum aether_result result = put(end, &source, type);
	close_payload(&source);
	return result;
}

/* Read the arguments of a call that publishes; -1 with an exception set. */
static int begin_to_publish(End *end, PyObject *const *arguments, Py_ssize_t count, uint32_t *type)
{
	*type = 0;
	if (count < 1 || count > 2) {
		PyErr_SetString(PyExc_TypeError, "takes one or two arguments");
		return -1;
	}
	if (count == 2 && read_type(arguments[1], type) < 0)
		return -1;
	return begin(end);
}

PyDoc_STRVAR(publish_doc,
	     "publish(payload, kind=0, /)\n--\n\nPut a record in and wake the consumer.");

static PyObject *producer_publish(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	End *end = (End *)self;
	Py_buffer source;
	uint32_t type;
	if (begin_to_publish(end, arguments, count, &type) < 0 ||
	    open_payload(arguments[0], &source) < 0)
		return NULL;
	enum aether_result result = put(end, &source, type);
	close_payload(&source);
	if (result != AETHER_OK)
		return raise_result(&end->ring, result);
	wake_consumer(end);
	Py_RETURN_NONE;
}

/* Put the items of a list or tuple in while there is room; return how many. */
static Py_ssize_t put_all(End *end, PyObject *payloads, uint32_t type, enum aether_result *result)
{
	int is_list = PyList_Check(payloads);
	for (Py_ssize_t done = 0;; done++) {
		if (done >= (is_list ? PyList_Size(payloads) : PyTuple_Size(payloads)))
			return done;
		PyObject *payload =
			is_list ? PyList_GetItem(payloads, done) : PyTuple_GetItem(payloads, done);
		*result = put_object(end, payload, type);
		if (*result != AETHER_OK || PyErr_Occurred())
			return done;
	}
}

PyDoc_STRVAR(publish_many_doc, "publish_many(payloads, kind=0, /)\n--\n\n"
			       "Put records in while there is room; return how many.");

static PyObject *producer_publish_many(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	End *end = (End *)self;
	uint32_t type;
	enum aether_result result = AETHER_OK;
	if (begin_to_publish(end, arguments, count, &type) < 0)
		return NULL;
	if (!PyList_Check(arguments[0]) && !PyTuple_Check(arguments[0])) {
		PyErr_SetString(PyExc_TypeError, "payloads must be a list or a tuple");
		return NULL;
	}
	Py_ssize_t done = put_all(end, arguments[0], type, &result);
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

PyDoc_STRVAR(reserve_many_doc, "reserve_many(lengths, /)\n--\n\n"
			       "Return a batch: writable buffers in the ring, as many as there is "
			       "room for, to be committed together.");

static PyObject *producer_reserve_many(PyObject *self, PyObject *argument)
{
	PyObject *batch = NULL, *lengths = PySequence_List(argument);
	if (lengths && begin((End *)self) == 0)
		batch = reserve_batch((End *)self, lengths);
	Py_XDECREF(lengths);
	return batch;
}

/* The consumer */

/* Return a record's payload, copied and checked; it is not passed yet. */
static PyObject *copy_out(End *end, const struct aether_record *record, enum aether_result *result)
{
	PyObject *payload = PyBytes_FromStringAndSize(NULL, record->length);
	if (!payload)
		return NULL;
	uint8_t *target = (uint8_t *)PyBytes_AsString(payload);
	if (record->length < LONG_COPY) {
		*result = aether_check(&end->ring, record, target);
	} else {
		BUSY(end)
		*result = aether_check(&end->ring, record, target);
		IDLE(end)
	}
	if (*result == AETHER_OK)
		return payload;
	Py_DECREF(payload);
	return NULL;
}

/* Return the next record's payload; it is not passed yet. */
static PyObject *take(End *end, struct aether_record *record, enum aether_result *result)
{
	*result = aether_next(&end->ring, record);
	return *result == AETHER_OK ? copy_out(end, record, result) : NULL;
}

/* Take the next record out as type and payload; its place is not given back yet. */
static PyObject *take_pair(End *end, enum aether_result *result)
{
	struct aether_record record;
	PyObject *payload = take(end, &record, result);
	if (!payload)
		return NULL;
	PyObject *items[] = {PyLong_FromUnsignedLong(record.type), payload};
	PyObject *pair = fill_tuple(PyTuple_New(2), items, 2);
	if (pair)
		aether_pass(&end->ring, &record);
	return pair;
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

/* Wait for a record as the arguments say; 0, or -1 with an exception set. */
static int await(End *end, PyObject *const *arguments, Py_ssize_t count)
{
	double times[2] = {0, 0};
	if (read_times(arguments, count, times) < 0 || begin(end) < 0)
		return -1;
	if (times[0] <= 0)
		return 0;
	enum aether_result result = wait_for(end, 0, times[0], times[1]);
	if (PyErr_Occurred())
		return -1;
	if (result == AETHER_OK)
		return begin(end); /* others may have used it meanwhile */
	raise_result(&end->ring, result == AETHER_TIMED_OUT ? AETHER_EMPTY : result);
	return -1;
}

static PyObject *consumer_receive(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	End *end = (End *)self;
	enum aether_result result;
	if (await(end, arguments, count) < 0)
		return NULL;
	PyObject *taken = take_pair(end, &result);
	if (taken)
		wake_producer(end, end->ring.own);
	else if (result != AETHER_OK)
		return raise_result(&end->ring, result);
	return taken;
}

PyDoc_STRVAR(hold_doc,
	     "hold(timeout=0.0, spin=0.0, /)\n--\n\n"
	     "Take a record out and keep its place: its type, its payload, and where it ends.\n\n"
	     "It stays in the ring until its end, or a later one's, is given to release.");

static PyObject *consumer_hold(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	End *end = (End *)self;
	struct aether_record record;
	enum aether_result result;
	if (await(end, arguments, count) < 0)
		return NULL;
	PyObject *payload = take(end, &record, &result);
	if (!payload)
		return result == AETHER_OK ? NULL : raise_result(&end->ring, result);
	PyObject *items[] = {PyLong_FromUnsignedLong(record.type), payload,
			     PyLong_FromUnsignedLongLong(end->ring.own + record.stride)};
	PyObject *held = fill_tuple(PyTuple_New(3), items, 3);
	if (held)
		aether_pass(&end->ring, &record);
	return held;
}

PyDoc_STRVAR(give_back_doc, "release(end=None, /)\n--\n\n"
			    "Give the places of held records back: up to one's end, or all.");

static PyObject *consumer_release(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
	End *end = (End *)self;
	const struct aether_ring *ring = &end->ring;
	if (count > 1) {
		PyErr_SetString(PyExc_TypeError, "takes at most one argument");
		return NULL;
	}
	if (begin(end) < 0)
		return NULL;
	uint64_t index = ring->own;
	if (count == 1 && arguments[0] != Py_None)
		index = PyLong_AsUnsignedLongLong(arguments[0]);
	if (PyErr_Occurred())
		return NULL;
	if (index - ring->given > ring->own - ring->given || index % AETHER_ALIGNMENT) {
		PyErr_SetString(PyExc_ValueError, "no held record ends there");
		return NULL;
	}
	wake_producer(end, index);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(receive_many_doc, "receive_many(limit, /)\n--\n\n"
			       "Take up to limit records out; an empty list when there are none.");

/* Tell what came of a batch: the list of what was taken, or an exception. */
static PyObject *end_batch(End *end, PyObject *all, Py_ssize_t got, enum aether_result result)
{
	if (got)
		wake_producer(end, end->ring.own);
	/* Damage is told once what came before it has been handed out. */
	if (!PyErr_Occurred() && (result != AETHER_CORRUPT || got))
		return all;
	Py_XDECREF(all);
	return PyErr_Occurred() ? NULL : raise_result(&end->ring, result);
}

static PyObject *consumer_receive_many(PyObject *self, PyObject *argument)
{
	End *end = (End *)self;
	Py_ssize_t limit = PyLong_AsSsize_t(argument), got = 0;
	if (PyErr_Occurred() || begin(end) < 0)
		return NULL;
	PyObject *all = PyList_New(0);
	enum aether_result result = AETHER_OK;
	for (; all && got < limit; got++) {
		PyObject *taken = take_pair(end, &result);
		if (!taken || PyList_Append(all, taken) < 0) {
			Py_XDECREF(taken);
			break;
		}
		Py_DECREF(taken);
	}
	return end_batch(end, all, got, result);
}

PyDoc_STRVAR(receive_alike_doc,
	     "receive_alike(limit, /)\n--\n\n"
	     "Take up to limit records of one type out: the type, and a list of payloads.\n\n"
	     "The list ends before a record of another type; it is empty when there are none.");

/* Add the next record's payload if it is of the type; 0 when there is no such record. */
static int take_alike(End *end, PyObject *all, uint32_t *type, int first,
		      enum aether_result *result)
{
	struct aether_record record;
	*result = aether_next(&end->ring, &record);
	if (*result != AETHER_OK || (!first && record.type != *type))
		return 0;
	PyObject *payload = copy_out(end, &record, result);
	int added = payload && PyList_Append(all, payload) == 0;
	Py_XDECREF(payload);
	if (added)
		aether_pass(&end->ring, &record);
	*type = record.type;
	return added;
}

static PyObject *consumer_receive_alike(PyObject *self, PyObject *argument)
{
	End *end = (End *)self;
	Py_ssize_t limit = PyLong_AsSsize_t(argument), got = 0;
	if (PyErr_Occurred() || begin(end) < 0)
		return NULL;
	PyObject *all = PyList_New(0);
	uint32_t type = 0;
	enum aether_result result = AETHER_OK;
	while (all && got < limit && take_alike(end, all, &type, !got, &result))
		got++;
	all = end_batch(end, all, got, result);
	if (!all)
		return NULL;
	PyObject *items[] = {PyLong_FromUnsignedLong(type), all};
	return fill_tuple(PyTuple_New(2), items, 2);
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

PyDoc_STRVAR(peek_many_doc, "peek_many(limit, /)\n--\n\n"
			    "Return a batch: up to limit records as read-only buffers in the ring, "
			    "to be released together.");

static PyObject *consumer_peek_many(PyObject *self, PyObject *argument)
{
	Py_ssize_t limit = PyLong_AsSsize_t(argument);
	if (PyErr_Occurred() || begin((End *)self) < 0)
		return NULL;
	return peek_batch((End *)self, limit < 0 ? 0 : (size_t)limit);
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

/* Ask to be woken by the doorbell; False when there is no need to wait. */
static PyObject *doze(End *end, uint32_t length)
{
	struct aether_wish wish = {&end->ring, length};
	if (begin(end) < 0)
		return NULL;
	enum aether_result result = aether_doze(&wish, AETHER_ON_DOORBELL);
	if (aether_waits(result))
		Py_RETURN_TRUE;
	if (result == AETHER_OK)
		Py_RETURN_FALSE;
	return raise_result(&end->ring, result);
}

PyDoc_STRVAR(producer_doze_doc,
	     "doze(length, /)\n--\n\n"
	     "Ask to be woken by the doorbell; False when there is room for a payload already.");

static PyObject *producer_doze(PyObject *self, PyObject *argument)
{
	uint32_t length = length_of(argument);
	if (PyErr_Occurred())
		return NULL;
	if (length == 0)
		return raise_result(&((End *)self)->ring, AETHER_TOO_LARGE);
	return doze((End *)self, length);
}

PyDoc_STRVAR(consumer_doze_doc,
	     "doze()\n--\n\n"
	     "Ask to be woken by the doorbell; False when a record is there already.");

static PyObject *consumer_doze(PyObject *self, PyObject *unused)
{
	(void)unused;
	return doze((End *)self, 0);
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

static PyMethodDef producer_methods[] = {
	{"publish", (PyCFunction)(void (*)(void))producer_publish, METH_FASTCALL, publish_doc},
	{"publish_many", (PyCFunction)(void (*)(void))producer_publish_many, METH_FASTCALL,
	 publish_many_doc},
	{"reserve", producer_reserve, METH_O, reserve_doc},
	{"reserve_many", producer_reserve_many, METH_O, reserve_many_doc},
	{"wait", (PyCFunction)(void (*)(void))producer_wait, METH_VARARGS | METH_KEYWORDS,
	 producer_wait_doc},
	{"doze", producer_doze, METH_O, producer_doze_doc},
	{"counts", end_counts, METH_NOARGS, counts_doc},
	{NULL, NULL, 0, NULL},
};

static PyMethodDef consumer_methods[] = {
	{"receive", (PyCFunction)(void (*)(void))consumer_receive, METH_FASTCALL, receive_doc},
	{"receive_many", consumer_receive_many, METH_O, receive_many_doc},
	{"receive_alike", consumer_receive_alike, METH_O, receive_alike_doc},
	{"hold", (PyCFunction)(void (*)(void))consumer_hold, METH_FASTCALL, hold_doc},
	{"release", (PyCFunction)(void (*)(void))consumer_release, METH_FASTCALL, give_back_doc},
	{"peek", consumer_peek, METH_NOARGS, peek_doc},
	{"peek_many", consumer_peek_many, METH_O, peek_many_doc},
	{"wait", (PyCFunction)(void (*)(void))consumer_wait, METH_VARARGS | METH_KEYWORDS,
	 consumer_wait_doc},
	{"doze", consumer_doze, METH_NOARGS, consumer_doze_doc},
	{"counts", end_counts, METH_NOARGS, counts_doc},
	{NULL, NULL, 0, NULL},
};

#define END_SLOTS(doc, init, methods)                                           \
	{                                                                       \
		{Py_tp_doc, doc}, {Py_tp_new, end_new}, {Py_tp_init, init},     \
			{Py_tp_dealloc, end_dealloc}, {Py_tp_methods, methods}, \
		{                                                               \
			0, NULL                                                 \
		}                                                               \
	}

static PyType_Slot producer_slots[] =
	END_SLOTS("The end that puts records in.", producer_init, producer_methods);
static PyType_Slot consumer_slots[] =
	END_SLOTS("The end that takes records out.", consumer_init, consumer_methods);

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

PyDoc_STRVAR(be_wary_doc,
	     "be_wary()\n--\n\n"
	     "Let no doorbell make this process wait from now on, whatever a peer does to it.\n\n"
	     "OSError when the kernel refuses what that needs.");

static PyObject *module_be_wary(PyObject *self, PyObject *unused)
{
	(void)self, (void)unused;
	if (aether_be_wary() < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(ring_doorbell_doc, "ring_doorbell(doorbell, /)\n--\n\n"
				"Ring an eventfd without waiting, once be_wary was called.");

static PyObject *module_ring_doorbell(PyObject *self, PyObject *argument)
{
	(void)self;
	int doorbell = (int)PyLong_AsLong(argument);
	if (PyErr_Occurred())
		return NULL;
	if (aether_ring_warily(doorbell) < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
	{"be_wary", module_be_wary, METH_NOARGS, be_wary_doc},
	{"checksum", module_checksum, METH_VARARGS, checksum_doc},
	{"ring_doorbell", module_ring_doorbell, METH_O, ring_doorbell_doc},
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

/* Make a type and show it; a borrowed reference, NULL with an exception set. */
static PyTypeObject *add_type(PyObject *module, const char *name, PyType_Spec *spec)
{
	PyObject *type = PyType_FromSpec(spec);
	int added = type ? PyModule_AddObjectRef(module, name, type) : -1;
	Py_XDECREF(type);
	return added < 0 ? NULL : (PyTypeObject *)type;
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
	batch_type = PyType_FromSpec(&batch_spec);
	PyObject *ways = ways_here();
	producer_type = add_type(module, "Producer", &producer_spec);
	consumer_type = add_type(module, "Consumer", &consumer_spec);
	int failed = !slot_type || !batch_type || !ways || !producer_type || !consumer_type ||
		     PyModule_AddObjectRef(module, "CHECKSUM_WAYS", ways) < 0 ||
		     !add_type(module, "Server", &server_spec);
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
