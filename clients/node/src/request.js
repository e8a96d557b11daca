// SPDX-License-Identifier: Apache-2.0
'use strict';

const { call } = require('./calls.js');
const { AetherlessError } = require('./errors.js');

const HEAD = 24;
const RESPONSE_HEAD = 16;
const LONGEST_NAME = 65535;

/** One call of the function, or one run's record at one of its stages. */
class Request {
  constructor(fields) {
    Object.assign(this, fields);
  }

  /** Read a request's record; undefined when it is malformed. */
  static parse(payload) {
    if (payload.length < HEAD) return undefined;
    const methodAt = HEAD + payload.readUInt16LE(20);
    const dataAt = methodAt + payload.readUInt16LE(22);
    if (dataAt > payload.length) return undefined;
    return new Request({
      id: payload.readBigUInt64LE(0),
      deadlineNs: payload.readBigUInt64LE(8),
      attempt: payload.readUInt32LE(16),
      trace: payload.toString('latin1', HEAD, methodAt),
      method: payload.toString('utf8', methodAt, dataAt),
      data: payload.subarray(dataAt),
    });
  }

  /** What `parse` reads. */
  record() {
    const [trace, method] = [Buffer.from(this.trace, 'latin1'), Buffer.from(this.method)];
    if (method.length > LONGEST_NAME) throw new AetherlessError('PAYLOAD_TOO_LARGE');
    const head = Buffer.alloc(HEAD);
    head.writeBigUInt64LE(this.id, 0);
    head.writeBigUInt64LE(this.deadlineNs, 8);
    head.writeUInt32LE(this.attempt, 16);
    head.writeUInt16LE(trace.length, 20);
    head.writeUInt16LE(method.length, 22);
    return Buffer.concat([head, trace, method, this.data]);
  }

  /** The deadline as a time of Date.now(); Infinity for none. */
  get until() {
    return this.deadlineNs ? Number(this.deadlineNs / 1_000_000n) : Infinity;
  }

  /** Call another function within this request's deadline, and as part of its trace. */
  call(name, data) {
    return call(name, data, { deadlineNs: this.deadlineNs, trace: this.trace });
  }
}

/** Return an answer's record; `number` is the stage's, from 1, or 0. */
function response(id, status, data, number = 0) {
  const head = Buffer.alloc(RESPONSE_HEAD);
  head.writeBigUInt64LE(id, 0);
  head.writeUInt32LE(status, 8);
  head.writeUInt32LE(number, 12);
  return Buffer.concat([head, data]);
}

/** Return the data of a stage that has several inputs: their number, each one's length and bytes. */
function joined(parts) {
  const number = (value) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  return Buffer.concat([number(parts.length), ...parts.flatMap((part) => [number(part.length), part])]);
}

module.exports = { RESPONSE_HEAD, Request, joined, response };
