/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serving in C: a request's way from one of several inputs through a handler to where its result
 * goes. Included by module.c.
 *
 * It is the common case of what a client does (../../../../docs/ipc.md) and decides nothing else:
 * a record that is unusual in any way stays where it is for the caller to take, and a request whose
 * result can't be published at once is handed to the caller with that result.
 */
#ifndef AETHER_SERVE_H
#define AETHER_SERVE_H

#include "idle.h"

/* Taking a request */

static bool is_channel(const Server *server, const struct source *source)
{
	return source == server->sources;
}

/* Tell whether the next record of a source may be taken here: nothing of it is held or unsure. */
static bool is_plain(const struct source *source)
{
	const End *end = source->end;
	return !end->busy && !end->slot && end->ring.given == end->ring.own &&
	       end->ring.own >= source->seen && (!source->free || PyList_Size(source->free) > 0);
}

/* Return what becomes of a request; NULL when the caller has to know. */
static const struct way *find_way_of(const Server *server, const struct source *source,
				     const struct parcel *parcel)
{
	if (!is_channel(server, source))
		return source->way;
	if (!memchr(method_of(parcel), '/', parcel->head.method_bytes))
		return &server->plain;
	for (size_t place = 0; place < server->way_count; place++)
		if (is_named(parcel, server->ways[place].name))
			return &server->ways[place];
	return NULL;
}

/* Return the handler of a request, a new reference; NULL without an exception when there is none.
 */
static PyObject *find_handler(const Server *server, const struct way *way, PyObject *name)
{
	if (server->handler != Py_None)
		return Py_NewRef(server->handler);
	PyObject *handler =
		PyObject_CallFunctionObjArgs(server->find, way->method ? way->method : name, NULL);
	if (handler == Py_None)
		Py_CLEAR(handler);
	return handler;
}

/* Read the next record into a parcel and find what is done with it; it is not passed. */
static const struct way *read_request(Server *server, struct source *source, struct parcel *parcel)
{
	if (!is_plain(source) || (!is_channel(server, source) && !source->way) ||
	    !open_parcel(source->end, parcel) ||
	    (is_channel(server, source) && parcel->record.type != REQUEST))
		return NULL;
	if (parcel->head.deadline && parcel->head.deadline <= real_time())
		return NULL;
	return find_way_of(server, source, parcel);
}

/* Write a run into a free slot; -1, perhaps with an exception set, when it can't be. */
static int note_run(Server *server, struct source *source, uint64_t run)
{
	Py_ssize_t last = PyList_Size(source->free) - 1;
	if (last < 0)
		return -1; /* somebody's code took it meanwhile */
	PyObject *slot = Py_NewRef(PyList_GetItem(source->free, last));
	size_t number = PyLong_AsSize_t(slot);
	if (number >= SLOTS || PyList_SetSlice(source->free, last, last + 1, NULL) < 0) {
		Py_DECREF(slot);
		return -1;
	}
	aether_store_index(&source->end->ring, SLOTS_OFFSET + 8 * number, run);
	server->work.slot = slot;
	return 0;
}

/* Take a record that was read; its place is given back now unless it is to be held. */
static int take_on(Server *server, struct source *source, const struct way *way,
		   const struct parcel *parcel, PyObject *request)
{
	struct aether_ring *ring = &source->end->ring;
	if (ring->own != parcel->at || server->stopped)
		return -1; /* somebody's code ran meanwhile */
	if (source->free && note_run(server, source, parcel->head.id) < 0)
		return -1;
	aether_pass(ring, &parcel->record);
	if (source->free || is_channel(server, source))
		wake_producer(source->end, ring->own);
	server->work.request = Py_NewRef(request);
	server->work.source = source;
	server->work.way = way;
	server->work.end = ring->own;
	return 0;
}

/* Letting go of one */

/* Publish a result to where it belongs; false, and nothing is published, when it can't be now. */
static bool publish_result(Server *server, const struct parcel *parcel, PyObject *result)
{
	const struct way *way = server->work.way;
	bool passes = way->count > 0, answers = !passes || is_channel(server, server->work.source);
	struct answer answer = {parcel->head.id, passes ? PASSED_ON : RESULT, way->stage,
				passes ? NULL : result};
	if (!routes_have_room(way, parcel, result) ||
	    (answers && !has_room(server->reply, answer_length(&answer))))
		return false;
	for (size_t place = 0; place < way->count; place++)
		put_request(&way->routes[place], parcel, result);
	if (answers)
		put_answer(server->reply, &answer);
	return true;
}

/* Say that the request is done with. */
static void let_go(Server *server)
{
	struct source *source = server->work.source;
	if (server->work.slot) {
		size_t number = PyLong_AsSize_t(server->work.slot);
		aether_store_index(&source->end->ring, SLOTS_OFFSET + 8 * number, 0);
		if (PyList_Append(source->free, server->work.slot) < 0)
			PyErr_Clear(); /* one slot less */
	} else if (!is_channel(server, source)) {
		wake_producer(source->end, server->work.end);
	}
	forget_work(server);
}

/* Return the exception that is set, with its traceback, and clear it. */
static PyObject *caught(void)
{
	PyObject *type, *value, *trace;
	PyErr_Fetch(&type, &value, &trace);
	PyErr_NormalizeException(&type, &value, &trace);
	if (trace)
		PyException_SetTraceback(value, trace);
	Py_XDECREF(type);
	Py_XDECREF(trace);
	return value;
}

/* Run the handler, the lead lent to whoever wants it; return its result or the exception. */
static PyObject *run_handler(Server *server, PyObject *handler, PyObject *data, int *failed)
{
	PyObject *result = NULL, *woken = NULL;
	server->lent = 1;
	/* None slept when the record was found, but other code may have run since. */
	if (PyObject_Size(server->sleepers) == 0 ||
	    (woken = PyObject_CallFunctionObjArgs(server->hand_on, NULL)))
		result = PyObject_CallFunctionObjArgs(handler, data, NULL);
	Py_XDECREF(woken);
	*failed = result == NULL;
	return result ? result : caught();
}

/* Return what the caller has to go on with: the request, its way, and what the handler did. */
static PyObject *hand_over(Server *server, PyObject *result, int failed)
{
	return Py_BuildValue("(OOOO)", server->work.request, server->work.way->owner, result,
			     failed ? Py_True : Py_False);
}

/*
 * Handle a request that was taken on: NULL with GO_ON when it is done with, a tuple when it is the
 * caller's from now on, else FAILED. The record was let go of if it is done with.
 */
static PyObject *handle(Server *server, const struct parcel *parcel, PyObject *handler,
			PyObject *data, enum aether_next_step *step)
{
	int failed;
	PyObject *token = PyObject_CallFunctionObjArgs(server->show, server->work.request, NULL);
	if (!token)
		return NULL;
	PyObject *result = run_handler(server, handler, data, &failed);
	int kept = server->lent, done = 0;
	server->lent = 0;
	if (kept && !server->stopped && !failed && PyBytes_CheckExact(result))
		done = publish_result(server, parcel, result);
	if (done)
		let_go(server);
	PyObject *handed = done ? NULL : hand_over(server, result, failed);
	*step = done ? GO_ON : FAILED;
	Py_DECREF(result);
	PyObject *restored = PyObject_CallFunctionObjArgs(server->unshow, token, NULL);
	Py_DECREF(token);
	if (!restored)
		Py_CLEAR(handed);
	if (!restored)
		*step = FAILED;
	Py_XDECREF(restored);
	return handed;
}

/* Take a source's next record on and handle it; what is returned is as of handle. */
static PyObject *serve_parcel(Server *server, struct source *source, const struct way *way,
			      const struct parcel *parcel, enum aether_next_step *step)
{
	PyObject *handed = NULL, *data = NULL, *request = NULL;
	PyObject *handler = NULL;
	*step = FAILED;
	if (keep_name(&server->name, parcel) == 0)
		handler = find_handler(server, way, server->name);
	if (handler)
		data = data_of(parcel);
	if (data)
		request = make_request(server->request_type, parcel, server->name, data);
	if (request && take_on(server, source, way, parcel, request) == 0)
		handed = handle(server, parcel, handler, data, step);
	else if (!PyErr_Occurred())
		*step = LOOK;
	Py_XDECREF(request);
	Py_XDECREF(data);
	Py_XDECREF(handler);
	return handed;
}

static PyObject *serve_record(Server *server, struct source *source, enum aether_next_step *step)
{
	struct parcel parcel;
	PyObject *handed = NULL;
	parcel.large = NULL;
	const struct way *way = read_request(server, source, &parcel);
	*step = LOOK;
	if (way)
		handed = serve_parcel(server, source, way, &parcel, step);
	close_parcel(&parcel);
	return handed;
}

/* The calls */

PyDoc_STRVAR(
	serve_doc,
	"serve(spin, /)\n--\n\n"
	"Handle requests until the caller is needed; looks for them for so many seconds before\n"
	"it sleeps.\n\n"
	"0: something has to be taken without it. 1: look at the control socket. Or how a\n"
	"handler ended: the request, its way's owner, the result or exception, and whether it\n"
	"failed; the request is at work until done.");

/* Handle the next record, or wait for it; NULL with GO_ON goes on. */
static PyObject *serve_once(Server *server, uint64_t spin, enum aether_next_step *step)
{
	*step = LOOK;
	if (PyObject_Size(server->sleepers))
		return NULL;
	struct source *source = find_record(server);
	if (!source) {
		*step = await_record(server, spin);
		return NULL;
	}
	server->idle_since = 0;
	PyObject *handed = serve_record(server, source, step);
	if (*step == GO_ON && ++server->records % BUSY_RECORDS == 0)
		*step = HEAR;
	return handed;
}

static PyObject *server_serve(PyObject *self, PyObject *argument)
{
	Server *server = (Server *)self;
	double spin = PyFloat_AsDouble(argument);
	if (PyErr_Occurred())
		return NULL;
	if (!server->ready || server->stopped || server->work.request) {
		PyErr_SetString(PyExc_RuntimeError, "it was not made, was stopped, or is at work");
		return NULL;
	}
	uint64_t limit = spin > 0 ? later(0, spin) : 0;
	enum aether_next_step step = GO_ON;
	PyObject *handed = NULL;
	while (step == GO_ON)
		handed = server->stopped ? (step = HEAR, NULL) : serve_once(server, limit, &step);
	quiet_bells(server); /* who sleeps here next shall not take them for its own */
	return handed || step == FAILED ? handed : PyLong_FromLong(step);
}

PyDoc_STRVAR(stop_doc, "stop()\n--\n\n"
		       "Publish nothing more: what a handler returns is the caller's.");

static PyObject *server_stop(PyObject *self, PyObject *unused)
{
	(void)unused;
	((Server *)self)->stopped = 1;
	Py_RETURN_NONE;
}

PyDoc_STRVAR(at_work_doc,
	     "at_work()\n--\n\n"
	     "Return the request that is not done with: the place of its source, itself, "
	     "the end of its record and its slot; None for none.");

static PyObject *server_at_work(PyObject *self, PyObject *unused)
{
	(void)unused;
	const Server *server = (Server *)self;
	const struct work *work = &server->work;
	if (!work->request)
		Py_RETURN_NONE;
	return Py_BuildValue("(nOKO)", (Py_ssize_t)(work->source - server->sources), work->request,
			     (unsigned long long)work->end, work->slot ? work->slot : Py_None);
}

PyDoc_STRVAR(done_doc, "done()\n--\n\nForget the request that was at work; it is the caller's.");

static PyObject *server_done(PyObject *self, PyObject *unused)
{
	(void)unused;
	forget_work((Server *)self);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(is_lent_doc,
	     "is_lent()\n--\n\n"
	     "Tell whether a handler runs while the caller leads, and nobody took the lead.");

static PyObject *server_is_lent(PyObject *self, PyObject *unused)
{
	(void)unused;
	return PyBool_FromLong(((Server *)self)->lent);
}

PyDoc_STRVAR(take_lead_doc, "take_lead()\n--\n\nTake the lead if it is lent; tell whether it was.");

static PyObject *server_take_lead(PyObject *self, PyObject *unused)
{
	(void)unused;
	Server *server = (Server *)self;
	int lent = server->lent;
	server->lent = 0;
	return PyBool_FromLong(lent);
}

static PyMethodDef server_methods[] = {
	{"serve", server_serve, METH_O, serve_doc},
	{"stop", server_stop, METH_NOARGS, stop_doc},
	{"at_work", server_at_work, METH_NOARGS, at_work_doc},
	{"done", server_done, METH_NOARGS, done_doc},
	{"is_lent", server_is_lent, METH_NOARGS, is_lent_doc},
	{"take_lead", server_take_lead, METH_NOARGS, take_lead_doc},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot server_slots[] = {
	{Py_tp_doc, "Serves requests from several rings in C, in the common case."},
	{Py_tp_new, server_new},
	{Py_tp_init, server_init},
	{Py_tp_dealloc, server_dealloc},
	{Py_tp_methods, server_methods},
	{0, NULL},
};

static PyType_Spec server_spec = {"aetherless_ring._native.Server", sizeof(Server), 0,
				  Py_TPFLAGS_DEFAULT, server_slots};

#endif
