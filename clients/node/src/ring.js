// SPDX-License-Identifier: Apache-2.0
'use strict';
// The ring in shared memory; docs/ipc.md has the layout. What the other side wrote
// is read once, checked, and payloads are checked in a copy. V8's Atomics are sequentially
// consistent on any buffer, so a store of an index is the fence before the look at who sleeps.

const { crc32 } = require('./crc.js');
const { AetherlessError, CorruptError } = require('./errors.js');
const native = require('./native.js');

const PAGE = 4096;
const LEADING_PAGES = 3; // the header and two control blocks
const SMALLEST_RING = 64 * 1024;
const LARGEST_RING = 2 ** 30;
const LARGEST_PAYLOAD = 2 ** 24;
const HEAD = 16;
const ALIGNMENT = 64;
const SKIP = 0xffffffff;
const CLOSED_AT = 12;
const PRODUCED = 0;
const CONSUMED = 128;
const PRODUCER_SLEEPS = 256;
const CONSUMER_SLEEPS = 384;
const SLOTS_AT = 512;
const SLOTS = 256;
const HANDED_OVER_AT = 2560;
const [AWAKE, ON_FUTEX, ON_DOORBELL] = [0, 1, 2];

const Direction = Object.freeze({ TO_PEER: 0, FROM_PEER: 1 });
const RecordType = Object.freeze({
  USER: 0, REQUEST: 1, RESPONSE: 2, PING: 3, PONG: 4, SHUTDOWN: 5, CALL: 6, OVER: 7,
});

const strideOf = (length) => Math.ceil((HEAD + length) / ALIGNMENT) * ALIGNMENT;
const EMPTY = Buffer.alloc(0);

/** What both ends have. `bell` is the other side's eventfd or pipe, or -1. */
class End {
  constructor(memory, direction, ringBytes, bell = -1) {
    const sized = ringBytes >= SMALLEST_RING && ringBytes <= LARGEST_RING;
    if (!sized || !Number.isInteger(Math.log2(ringBytes)) ||
        memory.byteLength !== LEADING_PAGES * PAGE + 2 * ringBytes) {
      throw new AetherlessError('REGION_INVALID');
    }
    this.memory = memory;
    this.control = PAGE * (1 + direction);
    this.indices = new BigUint64Array(memory, this.control, PAGE / 8);
    this.beds = new Uint32Array(memory, this.control, PAGE / 4);
    this.header = new Uint32Array(memory, 0, PAGE / 4);
    const dataAt = LEADING_PAGES * PAGE + direction * ringBytes;
    this.words = new Uint32Array(memory, dataAt, ringBytes / 4);
    this.data = Buffer.from(memory, dataAt, ringBytes);
    this.size = ringBytes;
    this.largest = Math.min(LARGEST_PAYLOAD, ringBytes / 4);
    this.bell = bell;
    this.own = 0; // this side's index; 2 ** 53 bytes are more than a region's life
    this.other = 0; // the other side's, as last checked
    this.sequence = 0;
    this.damage = undefined;
    this.head = new Uint32Array(HEAD / 4); // the words of the record at hand
    this.covered = Buffer.from(this.head.buffer, 4);
  }

  get isClosed() {
    return Atomics.load(this.header, CLOSED_AT / 4) !== 0;
  }

  get place() {
    return this.own % this.size;
  }

  get left() {
    return this.size - this.place;
  }

  damaged(fault, expected, actual) {
    this.damage = new CorruptError(fault, expected, actual);
    return this.damage;
  }

  /** The checksum of the words at hand and a payload. */
  checksum(payload) {
    return crc32(payload, crc32(this.covered));
  }

  step(bytes) {
    this.own += bytes;
    this.sequence = (this.sequence + 1) >>> 0;
  }

  /** Store this side's index and wake the other side as it asked for, once. */
  show(index, bed) {
    this.showAs(index, bed, this.own);
  }

  showAs(index, bed, value) {
    Atomics.store(this.indices, index / 8, BigInt(value));
    if (Atomics.load(this.beds, bed / 4) === AWAKE) return;
    const how = Atomics.exchange(this.beds, bed / 4, AWAKE);
    if (how === ON_FUTEX) native.wakeFutex(this.memory, this.control + bed);
    else if (how === ON_DOORBELL && this.bell >= 0) native.ringBell(this.bell);
  }

  /** Ask for the doorbell; true when what is looked for is not there and this side may sleep. */
  lieDown(bed, look) {
    Atomics.store(this.beds, bed / 4, ON_DOORBELL);
    if (look()) {
      Atomics.store(this.beds, bed / 4, AWAKE);
      return false;
    }
    if (this.isClosed) throw new AetherlessError('PEER_GONE');
    return true;
  }
}

/** The end that puts records in. */
class Producer extends End {
  /** Put a record in; false when there is no room now. */
  publish(payload, type = RecordType.USER) {
    if (!this.#hasRoom(payload.length)) return false;
    const skipped = this.#skipped(payload.length);
    if (skipped) {
      this.#writeHead(SKIP, 0, EMPTY);
      this.step(skipped);
    }
    this.data.set(payload, this.place + HEAD);
    this.#writeHead(payload.length, type, payload);
    this.step(strideOf(payload.length));
    this.show(PRODUCED, CONSUMER_SLEEPS);
    return true;
  }

  /** Ask for the doorbell once there is room for a payload; false when there is. */
  doze(length) {
    return this.lieDown(PRODUCER_SLEEPS, () => this.#hasRoom(length));
  }

  #hasRoom(length) {
    if (this.damage) throw this.damage;
    if (length === 0 || length > this.largest) throw new AetherlessError('PAYLOAD_TOO_LARGE');
    if (this.#fits(length)) return true;
    const read = Atomics.load(this.indices, CONSUMED / 8);
    const consumed = Number(read);
    if (consumed < this.other || consumed > this.own || consumed % ALIGNMENT) {
      throw this.damaged('index', this.other, read);
    }
    this.other = consumed;
    return this.#fits(length);
  }

  #fits(length) {
    return this.own + strideOf(length) + this.#skipped(length) - this.other <= this.size;
  }

  #skipped(length) {
    return strideOf(length) > this.left ? this.left : 0;
  }

  #writeHead(length, type, payload) {
    this.head[1] = length;
    this.head[2] = type;
    this.head[3] = this.sequence;
    this.head[0] = this.checksum(payload);
    this.words.set(this.head, this.place / 4);
  }
}

/** The end that takes records out. */
class Consumer extends End {
  #released = 0; // the index that the producer was told
  #adopts = false; // the next record's sequence is taken as it is

  /** Take a record out, its payload copied, then checked; undefined when there is none now. */
  receive() {
    const record = this.take();
    if (record) this.release(this.own);
    return record;
  }

  /** Go on where the consumer before stopped. */
  resume() {
    const [consumed, produced] = [CONSUMED, PRODUCED].map((at) => Atomics.load(this.indices, at / 8));
    const behind = produced - consumed;
    if (consumed % 64n || produced % 64n || behind < 0n || behind > BigInt(this.size)) {
      throw this.damaged('index', produced, consumed);
    }
    this.own = this.other = this.#released = Number(consumed);
    Atomics.store(this.beds, CONSUMER_SLEEPS / 4, AWAKE);
    this.#adopts = true;
  }

  /** Give the room of all records before an index back. */
  release(index) {
    this.#released = index;
    this.showAs(CONSUMED, PRODUCER_SLEEPS, index);
  }

  /**
   * Note a run as being at work here, for whoever looks after this process died; -1 when all slots
   * are in use. Only this side writes them.
   */
  claim(run) {
    const slots = this.indices.subarray(SLOTS_AT / 8, SLOTS_AT / 8 + SLOTS);
    const slot = slots.indexOf(0n);
    if (slot >= 0) Atomics.store(slots, slot, run);
    return slot;
  }

  /** Empty a slot. */
  free(slot) {
    Atomics.store(this.indices, SLOTS_AT / 8 + slot, 0n);
  }

  /** Say that this consumer takes no more and has finished what it took. */
  handOver(generation) {
    Atomics.store(this.indices, HANDED_OVER_AT / 8, BigInt(generation));
  }

  /** `receive`, but the record's room stays the consumer's until `release`. */
  take() {
    while (this.#isReady()) {
      const stride = this.#readHead();
      const [written, length, type] = this.head;
      const payload = length === SKIP ? EMPTY : this.#copy(length);
      const actual = this.checksum(payload);
      if (actual !== written) throw this.damaged('checksum', written, actual);
      this.step(stride);
      if (length !== SKIP) return { type, payload, before: this.own - stride, after: this.own };
    }
    return undefined;
  }

  /** Ask for the doorbell at the next record; false when there is one. */
  doze() {
    return this.lieDown(CONSUMER_SLEEPS, () => this.#isReady());
  }

  #isReady() {
    if (this.damage) throw this.damage;
    if (this.own !== this.other) return true;
    const read = Atomics.load(this.indices, PRODUCED / 8);
    const produced = Number(read);
    if (produced < this.own || produced > this.#released + this.size || produced % ALIGNMENT) {
      throw this.damaged('index', this.other, read);
    }
    this.other = produced;
    return this.own !== produced;
  }

  /** Read the next record's words, once, and check them; return the bytes to the next record. */
  #readHead() {
    const at = this.place / 4;
    for (let word = 0; word < this.head.length; word++) {
      this.head[word] = Atomics.load(this.words, at + word);
    }
    const [, length, , sequence] = this.head;
    const there = this.other - this.own;
    const stride = length === SKIP ? this.left : strideOf(length);
    if (length !== SKIP && (length === 0 || length > this.largest || stride > this.left)) {
      throw this.damaged('length', this.largest, length);
    }
    if (stride > there) throw this.damaged('length', there, stride);
    if (this.#adopts) this.sequence = sequence;
    this.#adopts = false;
    if (sequence !== this.sequence) throw this.damaged('sequence', this.sequence, sequence);
    return stride;
  }

  #copy(length) {
    const at = this.place + HEAD;
    return Buffer.from(this.data.subarray(at, at + length));
  }
}

module.exports = { Consumer, Direction, LARGEST_RING, LEADING_PAGES, PAGE, Producer, RecordType, SLOTS };
