// SPDX-License-Identifier: Apache-2.0
'use strict';

const fs = require('node:fs');
const { AetherlessError } = require('./errors.js');
const native = require('./native.js');
const { LARGEST_RING, LEADING_PAGES, PAGE } = require('./ring.js');

const VERSION = 1;
const DESCRIPTORS = 3; // of a region: itself, this side's wake, the other side's
const LONGEST_SLEEP_MS = 1000;

/** A mapped region with the ends that this process has of its rings. */
class Line {
  #sleepers = new Set();
  #watch;
  #descriptors;
  #memory;
  ended = false;

  /**
   * Map a region that was handed out; the descriptors are the line's when it succeeds. `ends` makes
   * the ends: `(memory, ringBytes, bell) => ({ consumer, producer })`.
   */
  constructor(descriptors, ringBytes, ends) {
    const [region, wake, bell] = descriptors;
    const bytes = LEADING_PAGES * PAGE + 2 * ringBytes;
    if (descriptors.length !== DESCRIPTORS || !(ringBytes <= LARGEST_RING) ||
        !native.isSealed(region) || fs.fstatSync(region).size !== bytes) {
      throw new AetherlessError('REGION_INVALID');
    }
    this.#memory = native.map(region);
    try {
      checkHeader(this.#memory, ringBytes);
      Object.assign(this, ends(this.#memory, ringBytes, bell));
    } catch (error) {
      native.unmap(this.#memory);
      throw error;
    }
    this.#descriptors = descriptors;
    this.#watch = native.watch(wake, true, () => this.rouse());
  }

  /** Return the next record, { type, payload }. Rejects with PEER_GONE or a CorruptError. */
  async receive() {
    for (;;) {
      this.check();
      const record = this.consumer.receive();
      if (record) return record;
      if (this.consumer.doze()) await this.sleep(LONGEST_SLEEP_MS);
    }
  }

  /**
   * Put a record in, and wait for room until a time (of Date.now()) or as long as it lasts. Rejects
   * with RING_FULL at that time, PAYLOAD_TOO_LARGE, PEER_GONE or a CorruptError.
   */
  async publish(payload, type, until = Infinity) {
    for (;;) {
      this.check();
      if (this.producer.publish(payload, type)) return;
      const left = until - Date.now();
      if (left <= 0) throw new AetherlessError('RING_FULL');
      if (this.producer.doze(payload.length)) await this.sleep(Math.min(left, LONGEST_SLEEP_MS));
    }
  }

  /** Let go of the region and the wakes; whoever waits is told PEER_GONE. */
  close() {
    if (this.ended) return;
    this.ended = true;
    native.unwatch(this.#watch);
    native.unmap(this.#memory);
    this.#descriptors.forEach((descriptor) => fs.closeSync(descriptor));
    this.rouse();
  }

  check() {
    if (this.ended) throw new AetherlessError('PEER_GONE');
  }

  /** Wake whoever sleeps. */
  rouse() {
    for (const wake of this.#sleepers) wake();
  }

  /** Sleep until the bell, the end or a time. */
  sleep(milliseconds) {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#sleepers.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, milliseconds);
      this.#sleepers.add(wake);
    });
  }
}

function checkHeader(memory, ringBytes) {
  const header = Buffer.from(memory, 0, PAGE);
  const [version] = new Uint32Array(memory, 8, 1);
  const [regionBytes, ring] = new BigUint64Array(memory, 16, 2);
  if (header.toString('latin1', 0, 8) !== 'AETHRING' || version !== VERSION ||
      Number(regionBytes) !== memory.byteLength || Number(ring) !== ringBytes) {
    throw new AetherlessError('REGION_INVALID');
  }
}

module.exports = { LONGEST_SLEEP_MS, Line, VERSION };
