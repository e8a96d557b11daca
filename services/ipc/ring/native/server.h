/* SPDX-License-Identifier: Apache-2.0 */
/* What serves in C: its inputs, its ways, the request at work; made from Python. For serve.h. */
#ifndef AETHER_SERVER_H
#define AETHER_SERVER_H

#include "parcel.h"

#define BUSY_RECORDS 64u /* until the caller hears the service although there is always another */
#define SLOTS 256
#define SLOTS_OFFSET 512 /* in a control block: the runs that an at-most-once consumer has, u64 */

/* What serve returns beside a request that is not done with. */
enum aether_next_step { LOOK = 0, HEAR = 1, GO_ON = 2, FAILED = 3 };

/* One ring of requests; the first is the channel's. */
struct source {
	End *end;
	int wake;
	bool has_rung;	 /* and was not read since */
	uint64_t seen;	 /* records that begin below may have been handled before */
	PyObject *free;	 /* at most once: a list of free slots; else NULL */
	struct way *way; /* of an edge; NULL leaves its records to the caller */
	uint64_t mark;	 /* the producer's index when it was last looked at */
};

/* The request that is being handled; a server that is not at work has none. */
struct work {
	PyObject *request; /* NULL for none */
	struct source *source;
	const struct way *way;
	uint64_t end;	/* the index after its record */
	PyObject *slot; /* at most once: its number; else NULL */
};

typedef struct {
	PyObject_HEAD PyObject *kept; /* the arguments; what is below is borrowed from them */
	End *reply;
	PyTypeObject *request_type;
	PyObject *show, *unshow; /* the request, to who asks for it in the handler */
	PyObject *find, *handler;
	PyObject *sleepers, *hand_on; /* threads that want the lead */
	int poll;
	struct source *sources;
	size_t source_count;
	struct way *ways;
	size_t way_count;
	struct way plain; /* of a call */
	size_t turn;
	uint64_t idle_since; /* 0 while there are records */
	unsigned records;
	int ready; /* it was made whole */
	int stopped;
	int lent; /* the lead, while the handler runs */
	struct work work;
	PyObject *name; /* the last record's method */
} Server;

/* Making and unmaking */

/* Return an end that was made whole; NULL when it is none of that type. */
static End *as_end(PyObject *object, PyTypeObject *type)
{
	return Py_TYPE(object) == type && ((End *)object)->memory.obj ? (End *)object : NULL;
}

static int fill_source(Server *server, PyObject *given, struct source *source)
{
	PyObject *end, *free_slots;
	Py_ssize_t way;
	unsigned long long seen;
	if (!PyArg_ParseTuple(given, "OiKOn", &end, &source->wake, &seen, &free_slots, &way))
		return -1;
	source->end = as_end(end, consumer_type);
	source->seen = seen;
	source->free = free_slots == Py_None ? NULL : free_slots;
	source->way = way < 0 ? NULL : &server->ways[way];
	if (source->end && way < (Py_ssize_t)server->way_count &&
	    (!source->free || PyList_Check(source->free)))
		return 0;
	PyErr_SetString(PyExc_TypeError, "a source is (consumer, wake, seen, free slots, way)");
	return -1;
}

static int fill_route(PyObject *given, struct route *route)
{
	PyObject *end, *method;
	if (!PyArg_ParseTuple(given, "OS", &end, &method))
		return -1;
	route->producer = as_end(end, producer_type);
	route->method = PyBytes_AsString(method);
	route->length = (uint16_t)PyBytes_Size(method);
	if (route->producer && PyBytes_Size(method) <= UINT16_MAX)
		return 0;
	PyErr_SetString(PyExc_TypeError, "a route is (producer, method)");
	return -1;
}

static int fill_way(PyObject *given, struct way *way)
{
	PyObject *routes;
	if (!PyArg_ParseTuple(given, "SOUIO!", &way->name, &way->owner, &way->method, &way->stage,
			      &PyTuple_Type, &routes))
		return -1;
	way->count = (size_t)PyTuple_Size(routes);
	way->routes = calloc(way->count ? way->count : 1, sizeof(*way->routes));
	if (!way->routes)
		return PyErr_NoMemory(), -1;
	for (size_t place = 0; place < way->count; place++)
		if (fill_route(PyTuple_GetItem(routes, (Py_ssize_t)place), &way->routes[place]) < 0)
			return -1;
	return 0;
}

static int fill_server(Server *server, PyObject *sources, PyObject *ways)
{
	server->way_count = (size_t)PyTuple_Size(ways);
	server->source_count = (size_t)PyTuple_Size(sources);
	server->ways = calloc(server->way_count + 1, sizeof(*server->ways));
	server->sources = calloc(server->source_count + 1, sizeof(*server->sources));
	if (!server->ways || !server->sources)
		return PyErr_NoMemory(), -1;
	for (size_t place = 0; place < server->way_count; place++)
		if (fill_way(PyTuple_GetItem(ways, (Py_ssize_t)place), &server->ways[place]) < 0)
			return -1;
	for (size_t place = 0; place < server->source_count; place++)
		if (fill_source(server, PyTuple_GetItem(sources, (Py_ssize_t)place),
				&server->sources[place]) < 0)
			return -1;
	return 0;
}

/* Read the arguments, and keep them. */
static int read_arguments(Server *server, PyObject *arguments, PyObject *keywords,
			  PyObject *objects[4])
{
	static char *names[] = {"reply", "sources", "ways",	"request_type", "show", "unshow",
				"find",	 "handler", "sleepers", "hand_on",	"poll", NULL};
	if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO!O!O!OOOOOOi", names, &objects[0],
					 &PyTuple_Type, &objects[1], &PyTuple_Type, &objects[2],
					 &PyType_Type, &objects[3], &server->show, &server->unshow,
					 &server->find, &server->handler, &server->sleepers,
					 &server->hand_on, &server->poll))
		return -1;
	server->kept = PyTuple_Pack(10, objects[0], objects[1], objects[2], objects[3],
				    server->show, server->unshow, server->find, server->handler,
				    server->sleepers, server->hand_on);
	return server->kept ? 0 : -1;
}

static int server_init(PyObject *self, PyObject *arguments, PyObject *keywords)
{
	Server *server = (Server *)self;
	PyObject *objects[4];
	if (server->kept) {
		PyErr_SetString(PyExc_ValueError, "a server is made once");
		return -1;
	}
	if (read_arguments(server, arguments, keywords, objects) < 0 ||
	    fill_server(server, objects[1], objects[2]) < 0)
		return -1;
	server->reply = as_end(objects[0], producer_type);
	server->request_type = (PyTypeObject *)objects[3];
	server->plain.owner = Py_None;
	server->ready = server->reply && server->source_count &&
			PyType_IsSubtype(server->request_type, &PyTuple_Type);
	if (!server->ready)
		PyErr_SetString(PyExc_TypeError, "it needs a producer, sources, a kind of tuple");
	return server->ready ? 0 : -1;
}

static PyObject *server_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
	(void)arguments, (void)keywords;
	return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
}

static void forget_work(Server *server)
{
	Py_CLEAR(server->work.request);
	Py_CLEAR(server->work.slot);
}

static void server_dealloc(PyObject *self)
{
	Server *server = (Server *)self;
	PyTypeObject *type = Py_TYPE(self);
	forget_work(server);
	for (size_t place = 0; server->ways && place < server->way_count; place++)
		free(server->ways[place].routes);
	free(server->ways);
	free(server->sources);
	Py_XDECREF(server->name);
	Py_XDECREF(server->kept);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

#endif
