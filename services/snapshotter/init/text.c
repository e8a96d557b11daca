// SPDX-License-Identifier: Apache-2.0
/* Lines of words: parsing in place, and building. */
#include "init.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static int decode(char *value)
{
	char *to = value;

	for (char *from = value; *from; from++) {
		if (*from != '%') {
			*to++ = *from;
			continue;
		}
		int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);

		if (low < 0)
			return -1;
		*to++ = (char)(high << 4 | low);
		from += 2;
	}
	*to = 0;
	return 0;
}

/* Cuts the bytes into words in place; the line points into them. */
int line_parse(char *bytes, struct line *line)
{
	char *rest = NULL, *word;

	errno = 0;
	line->count = 0;
	line->verb = strtok_r(bytes, " ", &rest);
	if (!line->verb)
		return fail("parse", "an empty line");
	while ((word = strtok_r(NULL, " ", &rest))) {
		char *equals = strchr(word, '=');

		if (!equals || line->count == ARRAY_SIZE(line->pairs))
			return fail("parse", "not key=value, or too many: %.40s", word);
		*equals = 0;
		if (decode(equals + 1))
			return fail("parse", "bad %%XX in the value of %.40s", word);
		line->pairs[line->count].key = word;
		line->pairs[line->count++].value = equals + 1;
	}
	return 0;
}

/* Returns NULL when the line has no such key. */
const char *line_value(const struct line *line, const char *key)
{
	for (size_t i = 0; i < line->count; i++)
		if (!strcmp(line->pairs[i].key, key))
			return line->pairs[i].value;
	return NULL;
}

long line_number(const struct line *line, const char *key, long otherwise)
{
	const char *value = line_value(line, key);

	return value ? strtol(value, NULL, 10) : otherwise;
}

/* Appends; what does not fit is cut off. */
void text_add(struct text *text, const char *format, ...)
{
	size_t room = sizeof(text->bytes) - text->length;
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(text->bytes + text->length, room, format, arguments);
	va_end(arguments);
	if (length > 0)
		text->length += (size_t)length < room ? (size_t)length : room - 1;
}

void text_pair(struct text *text, const char *key, const char *value)
{
	text_add(text, "%s%s=", text->length ? " " : "", key);
	for (const char *c = value; *c; c++) {
		unsigned char byte = (unsigned char)*c;

		if (byte > ' ' && byte <= '~' && byte != '%')
			text_add(text, "%c", byte);
		else
			text_add(text, "%%%02X", byte);
	}
}
