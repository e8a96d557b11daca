// SPDX-License-Identifier: Apache-2.0
'use strict';

const fs = require('node:fs');
const { AetherlessError } = require('./errors.js');
const native = require('./native.js');
const { Consumer, Direction, LEADING_PAGES, PAGE, Producer } = require('./ring.js');

const VERSION = 1;
const LONGEST_SLEEP_MS = 1000;
const ANSWER = /^ok version=(\d+) generation=(\d+) region_bytes=(\d+) ring_bytes=(\d+)/;

/** One attachment. Any number of `receive` and `publish` may wait at once. */
class Channel {
  #sleepers = new Set();
  #watches;
  #descriptors;
  #memory;
  #ended = false;

  constructor(answer, descriptors) {
    const [control, region, wake, bell] = descriptors;
    const [, version, generation, regionBytes, ringBytes] = answer.map(Number);
    const bytes = LEADING_PAGES * PAGE + 2 * ringBytes;
    if (version !== VERSION || regionBytes !== bytes || bell < 0 || !native.isSealed(region) ||
        fs.fstatSync(region).size !== bytes) {
      throw new AetherlessError('REGION_INVALID');
    }
    this.#memory = native.map(region);
    try {
      checkHeader(this.#memory, ringBytes);
      this.consumer = new Consumer(this.#memory, Direction.TO_PEER, ringBytes, bell);
      this.producer = new Producer(this.#memory, Direction.FROM_PEER, ringBytes, bell);
    } catch (error) {
      native.unmap(this.#memory);
      throw error;
    }
    this.generation = generation;
    this.#descriptors = descriptors;
    this.#watches = [
      native.watch(wake, true, () => this.#rouse()),
      native.watch(control, false, () => this.close()),
    ];
  }

  /** The most bytes that a record carries. */
  get largest() {
    return this.producer.largest;
  }

  /** Return the next record, { type, payload }. Rejects with PEER_GONE or a CorruptError. */
  async receive() {
    for (;;) {
      this.#check();
      const record = this.consumer.receive();
      if (record) return record;
      if (this.consumer.doze()) await this.#sleep(LONGEST_SLEEP_MS);
    }
  }

  /**
   * Put a record in, and wait for room until a time (of Date.now()) or as long as it lasts. Rejects
   * with RING_FULL at that time, PAYLOAD_TOO_LARGE, PEER_GONE or a CorruptError.
   */
  async publish(payload, type, until = Infinity) {
    for (;;) {
      this.#check();
      if (this.producer.publish(payload, type)) return;
      const left = until - Date.now();
      if (left <= 0) throw new AetherlessError('RING_FULL');
      if (this.producer.doze(payload.length)) await this.#sleep(Math.min(left, LONGEST_SLEEP_MS));
    }
  }

  /** Let go of the region, the wakes and the control socket; whoever waits is told PEER_GONE. */
  close() {
    if (this.#ended) return;
    this.#ended = true;
    this.#watches.forEach(native.unwatch);
    native.unmap(this.#memory);
    this.#descriptors.forEach((descriptor) => fs.closeSync(descriptor));
    this.#rouse();
  }

  #check() {
    if (this.#ended) throw new AetherlessError('PEER_GONE');
  }

  #rouse() {
    for (const wake of this.#sleepers) wake();
  }

  #sleep(milliseconds) {
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

/**
 * Attach once, to a side socket or to what AETHER_CHANNEL names. Throws CHANNEL_NOT_FOUND,
 * PEER_NOT_ALLOWED, CHANNEL_ATTACHED, CHANNEL_CLOSED, REGION_INVALID, or an errno's name when nobody
 * listens (ENOENT, ECONNREFUSED).
 */
function attach(path = process.env.AETHER_CHANNEL) {
  if (!path) throw new AetherlessError('CHANNEL_NOT_FOUND', 'AETHER_CHANNEL is not set');
  const [said, ...descriptors] = native.attach(path);
  try {
    const answer = ANSWER.exec(said);
    if (!answer) throw new AetherlessError(said.replace('error reason=', ''));
    return new Channel(answer, descriptors);
  } catch (error) {
    descriptors.filter((each) => each >= 0).forEach((each) => fs.closeSync(each));
    throw error;
  }
}

module.exports = { Channel, attach };
