/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way to compute the checksum that this processor has, over standard input:
 * `checksum LENGTH TYPE SEQUENCE` prints a line per way: its name and what it gives. The copy that
 * it makes must be the input. For processors that the extension's tests don't run on.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../checksum.h"

int main(int count, char **arguments)
{
	static uint8_t source[1 << 20], target[1 << 20];
	if (count != 4)
		return 2;
	struct aether_words words = {(uint32_t)strtoul(arguments[1], NULL, 0),
				     (uint32_t)strtoul(arguments[2], NULL, 0),
				     (uint32_t)strtoul(arguments[3], NULL, 0)};
	size_t length = fread(source, 1, sizeof(source), stdin);
	aether_choose_checksum();
	for (size_t place = 0; place < AETHER_CHECKSUM_WAYS; place++) {
		const struct aether_checksum_way *way = &aether_checksum_ways[place];
		if (!way->available())
			continue;
		memset(target, 0, length);
		printf("%s %u\n", way->name, way->function(&words, target, source, length));
		if (memcmp(source, target, length))
			return 1;
	}
	return 0;
}
