/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What JavaScript can't do itself: receive descriptors, map memory, wait on an eventfd, wake.
 *
 * Everything else, the ring above all, is JavaScript. Node-API and libuv's poll handles only.
 */
#define _GNU_SOURCE
#define NAPI_VERSION 8
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <node_api.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#define LONGEST_MESSAGE 1024
#define DESCRIPTORS 3
#define ANSWER_TIMEOUT_S 5
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define MOST_ARGUMENTS 4

/* A descriptor that the loop waits on, and the function that is called then. */
struct watch {
	uv_poll_t poll;
	napi_env env;
	napi_ref callback;
	napi_async_context context;
	int descriptor;
	bool drains; /* it is an eventfd, to be read before the call */
};

static napi_value thrown(napi_env env, int failed)
{
	napi_throw_error(env, uv_err_name(-failed), strerror(failed));
	return NULL;
}

static void arguments(napi_env env, napi_callback_info info, napi_value *values)
{
	size_t count = MOST_ARGUMENTS;
	napi_get_cb_info(env, info, &count, values, NULL, NULL);
}

static int64_t number(napi_env env, napi_value value)
{
	int64_t result = -1;
	napi_get_value_int64(env, value, &result);
	return result;
}

static int connect_to(const struct sockaddr_un *address)
{
	const struct timeval limit = {ANSWER_TIMEOUT_S, 0};
	int control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (control < 0)
		return -1;
	setsockopt(control, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(control, (const struct sockaddr *)address, sizeof(*address)) == 0)
		return control;
	int failed = errno;
	close(control);
	errno = failed;
	return -1;
}

/* Receive a message and its descriptors; returns its bytes or -1. */
static ssize_t hear(int control, char *said, int descriptors[DESCRIPTORS], int flags)
{
	union {
		char bytes[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
		struct cmsghdr aligned;
	} ancillary;
	struct iovec part = {said, LONGEST_MESSAGE};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = &ancillary,
				 .msg_controllen = sizeof(ancillary)};
	ssize_t length;
	do
		length = recvmsg(control, &message, MSG_CMSG_CLOEXEC | flags);
	while (length < 0 && errno == EINTR);
	struct cmsghdr *rights = length > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (rights && rights->cmsg_type == SCM_RIGHTS)
		memcpy(descriptors, CMSG_DATA(rights), rights->cmsg_len - CMSG_LEN(0));
	if (length == 0)
		errno = ECONNRESET;
	return length == 0 ? -1 : length;
}

/* connect(path) -> the side socket */
static napi_value connect_side(napi_env env, napi_callback_info info)
{
	napi_value values[MOST_ARGUMENTS], result;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = 0;
	arguments(env, info, values);
	napi_get_value_string_utf8(env, values[0], NULL, 0, &length);
	if (length >= sizeof(address.sun_path))
		return thrown(env, ENAMETOOLONG);
	napi_get_value_string_utf8(env, values[0], address.sun_path, sizeof(address.sun_path),
				   &length);
	int control = connect_to(&address);
	if (control < 0)
		return thrown(env, errno);
	napi_create_int32(env, control, &result);
	return result;
}

/*
 * hear(control, waits) -> [text, descriptor...], or undefined when nothing is there and it does not
 * wait; ECONNRESET at the end
 */
static napi_value hear_side(napi_env env, napi_callback_info info)
{
	napi_value values[MOST_ARGUMENTS], result, item;
	char said[LONGEST_MESSAGE];
	int descriptors[DESCRIPTORS] = {-1, -1, -1};
	bool waits = false;
	arguments(env, info, values);
	napi_get_value_bool(env, values[1], &waits);
	ssize_t heard =
		hear((int)number(env, values[0]), said, descriptors, waits ? 0 : MSG_DONTWAIT);
	if (heard < 0 && errno == EAGAIN && !waits)
		return NULL;
	if (heard < 0)
		return thrown(env, errno);
	napi_create_array(env, &result);
	napi_create_string_utf8(env, said, (size_t)heard, &item);
	napi_set_element(env, result, 0, item);
	for (uint32_t place = 0; place < DESCRIPTORS && descriptors[place] >= 0; place++) {
		napi_create_int32(env, descriptors[place], &item);
		napi_set_element(env, result, place + 1, item);
	}
	return result;
}

/* isSealed(region): whether it can't lose its pages */
static napi_value is_sealed(napi_env env, napi_callback_info info)
{
	napi_value values[MOST_ARGUMENTS], result;
	arguments(env, info, values);
	int seals = fcntl((int)number(env, values[0]), F_GET_SEALS);
	napi_get_boolean(env, seals >= 0 && (seals & SEALS) == SEALS, &result);
	return result;
}

/* map(region) -> ArrayBuffer over all of it; to be given back by unmap */
static napi_value map(napi_env env, napi_callback_info info)
{
	napi_value values[MOST_ARGUMENTS], result;
	struct stat about;
	arguments(env, info, values);
	int region = (int)number(env, values[0]);
	if (fstat(region, &about))
		return thrown(env, errno);
	size_t bytes = (size_t)about.st_size;
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, region, 0);
	if (memory == MAP_FAILED)
		return thrown(env, errno);
	if (napi_create_external_arraybuffer(env, memory, bytes, NULL, NULL, &result) == napi_ok)
		return result;
	munmap(memory, bytes);
	return thrown(env, ENOTSUP);
}

/* unmap(buffer): detach it, so that views of it are empty, then unmap its memory */
static napi_value unmap(napi_env env, napi_callback_info info)
{
	napi_value values[MOST_ARGUMENTS];
	void *memory = NULL;
	size_t bytes = 0;
	arguments(env, info, values);
	napi_get_arraybuffer_info(env, values[0], &memory, &bytes);
	/* SAFETY: only what can't be reached any more is unmapped. */
	if (bytes && napi_detach_arraybuffer(env, values[0]) == napi_ok)
		munmap(memory, bytes);
	return NULL;
}

/* ringBell(bell): write the number 1; a bell that is full has been rung */
static napi_value ring_bell(napi_env env, napi_callback_info info)
{
	const uint64_t one = 1;
	napi_value values[MOST_ARGUMENTS];
	arguments(env, info, values);
	if (write((int)number(env, values[0]), &one, sizeof(one)) < 0 && errno != EAGAIN)
		return thrown(env, errno);
	return NULL;
}

/* wakeFutex(buffer, offset): wake who sleeps on a word of a mapped region */
static napi_value wake_futex(napi_env env, napi_callback_info info)
{
	napi_value values[MOST_ARGUMENTS];
	void *memory = NULL;
	size_t bytes = 0;
	arguments(env, info, values);
	napi_get_arraybuffer_info(env, values[0], &memory, &bytes);
	int64_t offset = number(env, values[1]);
	if (offset >= 0 && (size_t)offset + sizeof(uint32_t) <= bytes)
		syscall(SYS_futex, (char *)memory + offset, FUTEX_WAKE, 1, NULL, NULL, 0);
	return NULL;
}

static void readable(uv_poll_t *poll, int status, int events)
{
	struct watch *watch = poll->data;
	uint64_t count;
	napi_handle_scope scope;
	napi_value callback, receiver;
	(void)status;
	(void)events;
	if (watch->drains && read(watch->descriptor, &count, sizeof(count)) < 0 && errno == EAGAIN)
		return;
	napi_open_handle_scope(watch->env, &scope);
	napi_get_reference_value(watch->env, watch->callback, &callback);
	napi_get_global(watch->env, &receiver);
	napi_make_callback(watch->env, watch->context, receiver, callback, 0, NULL, NULL);
	napi_close_handle_scope(watch->env, scope);
}

/* watch(descriptor, drains, callback) -> handle for unwatch */
static napi_value begin_watch(napi_env env, napi_callback_info info)
{
	napi_value values[MOST_ARGUMENTS], result, name;
	uv_loop_t *loop;
	struct watch *watch = calloc(1, sizeof(*watch));
	if (!watch)
		return thrown(env, ENOMEM);
	arguments(env, info, values);
	watch->env = env;
	watch->descriptor = (int)number(env, values[0]);
	napi_get_value_bool(env, values[1], &watch->drains);
	napi_get_uv_event_loop(env, &loop);
	int failed = uv_poll_init(loop, &watch->poll, watch->descriptor);
	if (failed) {
		free(watch);
		return thrown(env, -failed);
	}
	napi_create_reference(env, values[2], 1, &watch->callback);
	napi_create_string_utf8(env, "aetherless", NAPI_AUTO_LENGTH, &name);
	napi_async_init(env, NULL, name, &watch->context);
	watch->poll.data = watch;
	uv_poll_start(&watch->poll, UV_READABLE | UV_DISCONNECT, readable);
	napi_create_external(env, watch, NULL, NULL, &result);
	return result;
}

static void unwatched(uv_handle_t *handle)
{
	free(handle->data);
}

/* unwatch(handle): once; before its descriptor is closed */
static napi_value end_watch(napi_env env, napi_callback_info info)
{
	napi_value values[MOST_ARGUMENTS];
	struct watch *watch = NULL;
	arguments(env, info, values);
	if (napi_get_value_external(env, values[0], (void **)&watch) != napi_ok)
		return thrown(env, EINVAL);
	uv_poll_stop(&watch->poll);
	napi_delete_reference(env, watch->callback);
	napi_async_destroy(env, watch->context);
	uv_close((uv_handle_t *)&watch->poll, unwatched);
	return NULL;
}

NAPI_MODULE_INIT()
{
	const napi_property_descriptor functions[] = {
		{"connect", NULL, connect_side, NULL, NULL, NULL, napi_default, NULL},
		{"hear", NULL, hear_side, NULL, NULL, NULL, napi_default, NULL},
		{"isSealed", NULL, is_sealed, NULL, NULL, NULL, napi_default, NULL},
		{"map", NULL, map, NULL, NULL, NULL, napi_default, NULL},
		{"unmap", NULL, unmap, NULL, NULL, NULL, napi_default, NULL},
		{"ringBell", NULL, ring_bell, NULL, NULL, NULL, napi_default, NULL},
		{"wakeFutex", NULL, wake_futex, NULL, NULL, NULL, napi_default, NULL},
		{"watch", NULL, begin_watch, NULL, NULL, NULL, napi_default, NULL},
		{"unwatch", NULL, end_watch, NULL, NULL, NULL, napi_default, NULL},
	};
	napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
	return exports;
}
