// SPDX-License-Identifier: Apache-2.0
'use strict';

/** What a ring, a channel or attaching refuses; `code` is the contract's word for it. */
class AetherlessError extends Error {
  constructor(code, message = code) {
    super(message);
    this.name = 'AetherlessError';
    this.code = code;
  }
}

/** What of the other side's writing can't be; the ring is of no more use. */
class CorruptError extends AetherlessError {
  /** @param fault index, length, sequence or checksum; the others are BigInts. */
  constructor(fault, expected, actual) {
    super('RING_CORRUPT', `${fault}: expected ${expected}, is ${actual}`);
    Object.assign(this, { fault, expected: BigInt(expected), actual: BigInt(actual) });
  }
}

module.exports = { AetherlessError, CorruptError };
