/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checksum by carry-less multiplication, 16 or 64 bytes at a time. Included by checksum.h.
 *
 * The first block is the record's first 16 bytes with zeros in place of the checksum and the
 * length inverted: leading zeros don't change a CRC whose register is zero, and inverting the
 * first word is the same as starting with all ones.
 */
#ifndef AETHER_CHECKSUM_X86_H
#define AETHER_CHECKSUM_X86_H

#include <immintrin.h>

#define AETHER_SSE "pclmul,sse4.1"
#define AETHER_AVX512 "pclmul,sse4.1,avx512f,avx512bw,avx512vl,vpclmulqdq"
#define AETHER_BLOCK 16

static inline int aether_has_pclmul(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

static inline int aether_has_vpclmul(void)
{
	return aether_has_pclmul() && __builtin_cpu_supports("vpclmulqdq") &&
	       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl");
}

/* Shuffles that move bytes: to higher places from 16 - n, to lower ones from 16 + n. */
static const uint8_t aether_moves[48] = {
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0,    1,    2,	  3,	4,    5,    6,	  7,
	8,    9,    10,	  11,	12,   13,   14,	  15,	0x80, 0x80, 0x80, 0x80,
	0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
};

AETHER_TARGET(AETHER_SSE)
static inline __m128i aether_load(const uint8_t *place)
{
	return _mm_loadu_si128((const __m128i *)place);
}

/* Return x^160 and x^96: a block moved on by one block. */
AETHER_TARGET(AETHER_SSE)
static inline __m128i aether_by_one(void)
{
	return _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
}

/* Return x^288 and x^224: a block moved on by two blocks. */
AETHER_TARGET(AETHER_SSE)
static inline __m128i aether_by_two(void)
{
	return _mm_set_epi64x(0x015a546366, 0x00f1da05aa);
}

/* Return x^416 and x^352: a block moved on by three blocks. */
AETHER_TARGET(AETHER_SSE)
static inline __m128i aether_by_three(void)
{
	return _mm_set_epi64x(0x0174359406, 0x003db1ecdc);
}

/* Return x^544 and x^480: a block moved on by four blocks. */
AETHER_TARGET(AETHER_SSE)
static inline __m128i aether_by_four(void)
{
	return _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
}

/* Move a block on by the distance of the constants, and add what lies there. */
AETHER_TARGET(AETHER_SSE)
static inline __m128i aether_fold(__m128i block, __m128i constants, __m128i next)
{
	__m128i low = _mm_clmulepi64_si128(block, constants, 0x00);
	__m128i high = _mm_clmulepi64_si128(block, constants, 0x11);
	return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

/* Add the last 1 to 15 bytes, which lie at the start of rest. */
AETHER_TARGET(AETHER_SSE)
static inline __m128i aether_fold_rest(__m128i block, __m128i rest, size_t length)
{
	__m128i up = aether_load(aether_moves + length);
	__m128i down = aether_load(aether_moves + AETHER_BLOCK + length);
	__m128i before = _mm_shuffle_epi8(block, up);
	__m128i last = _mm_or_si128(_mm_shuffle_epi8(block, down), _mm_shuffle_epi8(rest, up));
	return aether_fold(before, aether_by_one(), last);
}

/* Reduce the last block to the checksum: x^96, x^64, then Barrett's reduction. */
AETHER_TARGET(AETHER_SSE)
static inline uint32_t aether_reduce(__m128i block)
{
	const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
	const __m128i word = _mm_set_epi32(0, -1, 0, -1);
	__m128i folded = _mm_clmulepi64_si128(block, aether_by_one(), 0x10);
	__m128i crc = _mm_xor_si128(_mm_srli_si128(block, 8), folded);
	folded = _mm_srli_si128(crc, 4);
	crc = _mm_clmulepi64_si128(_mm_and_si128(crc, word), _mm_set_epi64x(0, 0x0163cd6124), 0x00);
	crc = _mm_xor_si128(crc, folded);
	folded = _mm_clmulepi64_si128(_mm_and_si128(crc, word), barrett, 0x10);
	folded = _mm_clmulepi64_si128(_mm_and_si128(folded, word), barrett, 0x00);
	return ~(uint32_t)_mm_extract_epi32(_mm_xor_si128(crc, folded), 1);
}

AETHER_TARGET(AETHER_SSE)
static inline __m128i aether_first_block(const struct aether_words *words)
{
	return _mm_set_epi32((int)words->sequence, (int)words->type, (int)~words->length, 0);
}

AETHER_TARGET(AETHER_SSE)
static inline __m128i aether_take(uint8_t *target, const uint8_t *source, size_t place)
{
	__m128i taken = aether_load(source + place);
	if (target)
		_mm_storeu_si128((__m128i *)(target + place), taken);
	return taken;
}

/* Take 1 to 15 bytes, each once. */
AETHER_TARGET(AETHER_SSE)
static inline __m128i aether_take_rest(uint8_t *target, const uint8_t *source, size_t length)
{
	uint8_t taken[AETHER_BLOCK] = {0};
	size_t done = 0;
	for (size_t step = 8; step; step /= 2)
		if (length & step) {
			uint8_t *into = taken + done;
			if (step == 8)
				memcpy(into, source + done, 8);
			else if (step == 4)
				memcpy(into, source + done, 4);
			else if (step == 2)
				memcpy(into, source + done, 2);
			else
				memcpy(into, source + done, 1);
			done += step;
		}
	__m128i result = aether_load(taken);
	if (target)
		memcpy(target, taken, length);
	return result;
}

/* Add four blocks to one, each moved on by itself: for short payloads, no chain of folds. */
AETHER_TARGET(AETHER_SSE)
static inline __m128i aether_fold_four(__m128i block, uint8_t *target, const uint8_t *source)
{
	__m128i second = aether_take(target, source, 0), third = aether_take(target, source, 16);
	__m128i fourth = aether_take(target, source, 32), last = aether_take(target, source, 48);
	__m128i early = aether_fold(block, aether_by_four(),
				    aether_fold(second, aether_by_three(), _mm_setzero_si128()));
	return _mm_xor_si128(early, aether_fold(third, aether_by_two(),
						aether_fold(fourth, aether_by_one(), last)));
}

AETHER_TARGET(AETHER_SSE)
static inline uint32_t aether_checksum_pclmul(const struct aether_words *words, uint8_t *target,
					      const uint8_t *source, size_t length)
{
	__m128i block = aether_first_block(words);
	size_t done = 0;
	if (length >= 7 * AETHER_BLOCK) {
		__m128i second = aether_take(target, source, 0);
		__m128i third = aether_take(target, source, 16);
		__m128i fourth = aether_take(target, source, 32);
		for (done = 48; done + 64 <= length; done += 64) {
			block = aether_fold(block, aether_by_four(),
					    aether_take(target, source, done));
			second = aether_fold(second, aether_by_four(),
					     aether_take(target, source, done + 16));
			third = aether_fold(third, aether_by_four(),
					    aether_take(target, source, done + 32));
			fourth = aether_fold(fourth, aether_by_four(),
					     aether_take(target, source, done + 48));
		}
		block = aether_fold(block, aether_by_one(), second);
		block = aether_fold(block, aether_by_one(), third);
		block = aether_fold(block, aether_by_one(), fourth);
	}
	for (; done + 64 <= length; done += 64)
		block = aether_fold_four(block, target ? target + done : NULL, source + done);
	for (; done + AETHER_BLOCK <= length; done += AETHER_BLOCK)
		block = aether_fold(block, aether_by_one(), aether_take(target, source, done));
	if (done < length) {
		uint8_t *rest = target ? target + done : NULL;
		block = aether_fold_rest(
			block, aether_take_rest(rest, source + done, length - done), length - done);
	}
	return aether_reduce(block);
}

AETHER_TARGET(AETHER_AVX512)
static inline __m512i aether_take_wide(uint8_t *target, const uint8_t *source, size_t place)
{
	__m512i taken = _mm512_loadu_si512(source + place);
	if (target)
		_mm512_storeu_si512(target + place, taken);
	return taken;
}

AETHER_TARGET(AETHER_AVX512)
static inline __m512i aether_fold_wide(__m512i blocks, __m512i constants, __m512i next)
{
	__m512i low = _mm512_clmulepi64_epi128(blocks, constants, 0x00);
	__m512i high = _mm512_clmulepi64_epi128(blocks, constants, 0x11);
	return _mm512_ternarylogic_epi64(low, high, next, 0x96); /* exclusive or of three */
}

/* Fold four groups of four blocks into one block. */
AETHER_TARGET(AETHER_AVX512)
static inline __m128i aether_join_wide(const __m512i groups[4])
{
	const __m512i by_four = _mm512_broadcast_i32x4(aether_by_four());
	__m512i joined = groups[0];
	for (int group = 1; group < 4; group++)
		joined = aether_fold_wide(joined, by_four, groups[group]);
	__m128i block = _mm512_extracti32x4_epi32(joined, 0);
	block = aether_fold(block, aether_by_one(), _mm512_extracti32x4_epi32(joined, 1));
	block = aether_fold(block, aether_by_one(), _mm512_extracti32x4_epi32(joined, 2));
	return aether_fold(block, aether_by_one(), _mm512_extracti32x4_epi32(joined, 3));
}

/* The first 240 bytes fill four groups behind the first block; x^2080 and x^2016 move on by 16. */
AETHER_TARGET(AETHER_AVX512)
static inline __m128i aether_fold_all_wide(__m128i first, uint8_t *target, const uint8_t *source,
					   size_t length, size_t *done)
{
	const __m512i by_sixteen =
		_mm512_broadcast_i32x4(_mm_set_epi64x(0x01322d1430, 0x011542778a));
	__m512i groups[4];
	groups[0] = _mm512_inserti32x4(_mm512_castsi128_si512(first),
				       aether_take(target, source, 0), 1);
	groups[0] = _mm512_inserti32x4(groups[0], aether_take(target, source, 16), 2);
	groups[0] = _mm512_inserti32x4(groups[0], aether_take(target, source, 32), 3);
	for (int group = 1; group < 4; group++)
		groups[group] = aether_take_wide(target, source, 48 + 64 * (size_t)(group - 1));
	for (*done = 240; *done + 256 <= length; *done += 256)
		for (int group = 0; group < 4; group++)
			groups[group] = aether_fold_wide(
				groups[group], by_sixteen,
				aether_take_wide(target, source, *done + 64 * (size_t)group));
	return aether_join_wide(groups);
}

AETHER_TARGET(AETHER_AVX512)
static inline uint32_t aether_checksum_vpclmul(const struct aether_words *words, uint8_t *target,
					       const uint8_t *source, size_t length)
{
	__m128i block = aether_first_block(words);
	size_t done = 0;
	if (length < 496) /* less than two rounds: the narrow way is faster */
		return aether_checksum_pclmul(words, target, source, length);
	block = aether_fold_all_wide(block, target, source, length, &done);
	for (; done + AETHER_BLOCK <= length; done += AETHER_BLOCK)
		block = aether_fold(block, aether_by_one(), aether_take(target, source, done));
	if (done < length) {
		__mmask16 mask = (__mmask16)((1u << (length - done)) - 1);
		__m128i rest = _mm_maskz_loadu_epi8(mask, source + done);
		if (target)
			_mm_mask_storeu_epi8(target + done, mask, rest);
		block = aether_fold_rest(block, rest, length - done);
	}
	return aether_reduce(block);
}

#endif
