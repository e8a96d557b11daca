/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checksum of a record, computed while its payload is copied.
 *
 * It is zlib's CRC-32 (polynomial 0x04C11DB7, reflected) over the record's bytes 4 to 16 + length:
 * the words length, type and sequence, then the payload. Each word of the payload is loaded once,
 * and what was loaded is what is stored and checked, so that a peer that writes meanwhile can't
 * have bytes handed out that were not checked.
 *
 * Folding with carry-less multiplication: V. Gopal et al., "Fast CRC Computation for Generic
 * Polynomials Using PCLMULQDQ Instruction", Intel, 2009. The constants are x^n mod P, reflected,
 * for the n given beside each.
 */
#ifndef AETHER_CHECKSUM_H
#define AETHER_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The words of a record that its checksum covers, in their order in memory. */
struct aether_words {
	uint32_t length;
	uint32_t type;
	uint32_t sequence;
};

/*
 * Return the checksum of a record with these words and this payload; copy the payload to target
 * unless that is NULL. The words and integers are little-endian in the checksum's view.
 */
typedef uint32_t (*aether_checksum)(const struct aether_words *words, uint8_t *target,
				    const uint8_t *source, size_t length);

#define AETHER_TARGET(features) __attribute__((target(features)))

/* Plain C: eight tables of 256 words (M. Kounavis, F. Berry, "Slicing-by-8", 2005). */

static uint32_t aether_tables[8][256];

static inline void aether_fill_tables(void)
{
	for (uint32_t byte = 0; byte < 256; byte++) {
		uint32_t crc = byte;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
		aether_tables[0][byte] = crc;
	}
	for (int table = 1; table < 8; table++)
		for (int byte = 0; byte < 256; byte++) {
			uint32_t before = aether_tables[table - 1][byte];
			aether_tables[table][byte] =
				(before >> 8) ^ aether_tables[0][before & 0xFF];
		}
}

static inline uint32_t aether_crc_byte(uint32_t crc, uint8_t byte)
{
	return (crc >> 8) ^ aether_tables[0][(crc ^ byte) & 0xFF];
}

static inline uint32_t aether_crc_word(uint32_t crc, uint32_t word)
{
	for (int shift = 0; shift < 32; shift += 8)
		crc = aether_crc_byte(crc, (uint8_t)(word >> shift));
	return crc;
}

static inline uint32_t aether_crc_eight(uint32_t crc, uint64_t eight)
{
	uint64_t mixed = eight ^ crc;
	uint32_t result = 0;
	for (int place = 0; place < 8; place++)
		result ^= aether_tables[7 - place][(mixed >> (8 * place)) & 0xFF];
	return result;
}

static inline uint32_t aether_crc_words(const struct aether_words *words)
{
	uint32_t crc = aether_crc_word(0xFFFFFFFFu, words->length);
	crc = aether_crc_word(crc, words->type);
	return aether_crc_word(crc, words->sequence);
}

static inline uint32_t aether_checksum_plain(const struct aether_words *words, uint8_t *target,
					     const uint8_t *source, size_t length)
{
	uint32_t crc = aether_crc_words(words);
	size_t done = 0;
	for (; done + 8 <= length; done += 8) {
		uint64_t eight;
		memcpy(&eight, source + done, sizeof(eight));
		if (target)
			memcpy(target + done, &eight, sizeof(eight));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
		eight = __builtin_bswap64(eight);
#endif
		crc = aether_crc_eight(crc, eight);
	}
	for (; done < length; done++) {
		uint8_t byte = *(const volatile uint8_t *)(source + done);
		if (target)
			target[done] = byte;
		crc = aether_crc_byte(crc, byte);
	}
	return ~crc;
}

#if defined(__x86_64__)
#include "checksum_x86.h"
#elif defined(__aarch64__)
#include "checksum_arm.h"
#endif

/* A way to compute the checksum, and whether this processor can. */
struct aether_checksum_way {
	const char *name;
	aether_checksum function;
	int (*available)(void);
};

static inline int aether_always(void)
{
	return 1;
}

/* All ways that this build has, the fastest first. */
static const struct aether_checksum_way aether_checksum_ways[] = {
#if defined(__x86_64__)
	{"vpclmul", aether_checksum_vpclmul, aether_has_vpclmul},
	{"pclmul", aether_checksum_pclmul, aether_has_pclmul},
#elif defined(__aarch64__)
	{"armcrc", aether_checksum_armcrc, aether_has_armcrc},
#endif
	{"plain", aether_checksum_plain, aether_always},
};

#define AETHER_CHECKSUM_WAYS (sizeof(aether_checksum_ways) / sizeof(aether_checksum_ways[0]))

/* Return the fastest way that this processor has. Call once, before any use. */
static inline const struct aether_checksum_way *aether_choose_checksum(void)
{
	size_t place = 0;
	aether_fill_tables();
	while (!aether_checksum_ways[place].available())
		place++;
	return &aether_checksum_ways[place];
}

#endif
