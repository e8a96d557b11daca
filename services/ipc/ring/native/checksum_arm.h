/* SPDX-License-Identifier: Apache-2.0 */
/* The checksum by the CRC32 instructions of ARMv8. Included by checksum.h. */
#ifndef AETHER_CHECKSUM_ARM_H
#define AETHER_CHECKSUM_ARM_H

#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>

static inline int aether_has_armcrc(void)
{
	return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
}

AETHER_TARGET("+crc")
static inline uint32_t aether_checksum_armcrc(const struct aether_words *words, uint8_t *target,
					      const uint8_t *source, size_t length)
{
	uint32_t crc = __crc32w(0xFFFFFFFFu, words->length);
	size_t done = 0;
	crc = __crc32w(crc, words->type);
	crc = __crc32w(crc, words->sequence);
	for (; done + 8 <= length; done += 8) {
		uint64_t eight;
		memcpy(&eight, source + done, sizeof(eight));
		if (target)
			memcpy(target + done, &eight, sizeof(eight));
		crc = __crc32d(crc, eight);
	}
	for (; done < length; done++) {
		uint8_t byte = *(const volatile uint8_t *)(source + done);
		if (target)
			target[done] = byte;
		crc = __crc32b(crc, byte);
	}
	return ~crc;
}

#endif
