// SPDX-License-Identifier: Apache-2.0
/* Failures with their step and error number, and the last words a later reader finds. */
#include "init.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct failure failure;
static int words_fd = -1;

void last_words_to(int fd)
{
	words_fd = fd;
}

/* Remembers errno and the step; always returns -1, so that callers can return it. */
int fail(const char *step, const char *format, ...)
{
	int errnum = errno;
	size_t length;
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(failure.detail, sizeof(failure.detail), format, arguments);
	va_end(arguments);
	length = strlen(failure.detail);
	if (errnum)
		snprintf(failure.detail + length, sizeof(failure.detail) - length, ": %s",
			 strerror(errnum));
	snprintf(failure.step, sizeof(failure.step), "%s", step);
	failure.errnum = errnum;
	return -1;
}

static void write_words(const char *format, va_list arguments)
{
	char words[512];
	int length = vsnprintf(words, sizeof(words) - 1, format, arguments);

	if (length > (int)sizeof(words) - 2)
		length = sizeof(words) - 2;
	words[length++] = '\n';
	if (words_fd >= 0 && write(words_fd, words, length) < 0)
		words_fd = -1; /* nowhere left to say it */
}

void last_words(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	write_words(format, arguments);
	va_end(arguments);
}

/* Ends the sandbox: the kernel ends all processes of the namespace with its pid 1. */
void die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	write_words(format, arguments);
	va_end(arguments);
	_exit(1);
}
