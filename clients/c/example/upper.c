/* SPDX-License-Identifier: Apache-2.0 */
/* A function without an HTTP server: it makes text large, or has another function do that. */
#define _GNU_SOURCE
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "aetherless.h"

static enum aether_status upper(const struct aether_request *request, struct aether_answer *answer)
{
	if (request->length > answer->room)
		return AETHER_FAILED;
	for (uint32_t place = 0; place < request->length; place++)
		answer->data[place] = (uint8_t)toupper(request->data[place]);
	answer->length = request->length;
	return AETHER_RESULT;
}

static enum aether_status fail(struct aether_answer *answer, const char *format, ...)
{
	va_list values;
	va_start(values, format);
	answer->length = (uint32_t)vsnprintf((char *)answer->data, answer->room, format, values);
	va_end(values);
	return AETHER_FAILED;
}

/* Answer "NAME text" with what the function NAME, which may_call has to name, makes of the text. */
static enum aether_status via(const struct aether_request *request, struct aether_answer *answer)
{
	char name[65];
	struct aether_reply reply;
	const uint8_t *space = memchr(request->data, ' ', request->length);
	size_t length = space ? (size_t)(space - request->data) : sizeof(name);
	if (length >= sizeof(name))
		return fail(answer, "say a function's name and a text");
	snprintf(name, sizeof(name), "%.*s", (int)length, (const char *)request->data);
	enum aether_status status = aether_call(request->client, request, name, space + 1,
						request->length - (uint32_t)length - 1, 0, &reply);
	if (status == AETHER_RESULT && reply.length <= answer->room)
		memcpy(answer->data, reply.data, answer->length = reply.length);
	aether_free_reply(&reply);
	return status == AETHER_RESULT
		       ? AETHER_RESULT
		       : fail(answer, "calling %s ended with status %d", name, status);
}

static enum aether_status handle(const struct aether_request *request, struct aether_answer *answer,
				 void *context)
{
	(void)context;
	if (request->method_length == 0)
		return upper(request, answer);
	if (request->method_length == 3 && memcmp(request->method, "via", 3) == 0)
		return via(request, answer);
	return AETHER_NO_METHOD;
}

int main(void)
{
	int failed = aether_serve(NULL, handle, NULL);
	fprintf(stderr, "upper: %s\n", strerror(failed));
	return 1;
}
