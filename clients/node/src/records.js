// SPDX-License-Identifier: Apache-2.0
'use strict';

const { AetherlessError } = require('./errors.js');

const REQUEST_HEAD = 24;
const RESPONSE_HEAD = 16;
const LONGEST_NAME = 65535;

/** Read the fields of a request's record; undefined when it is malformed. */
function fieldsOf(payload) {
  if (payload.length < REQUEST_HEAD) return undefined;
  const methodAt = REQUEST_HEAD + payload.readUInt16LE(20);
  const dataAt = methodAt + payload.readUInt16LE(22);
  if (dataAt > payload.length) return undefined;
  return {
    id: payload.readBigUInt64LE(0),
    deadlineNs: payload.readBigUInt64LE(8),
    attempt: payload.readUInt32LE(16),
    trace: payload.toString('latin1', REQUEST_HEAD, methodAt),
    method: payload.toString('utf8', methodAt, dataAt),
    data: payload.subarray(dataAt),
  };
}

/** Return a request's record, which `fieldsOf` reads. */
function request(fields) {
  const [trace, method] = [Buffer.from(fields.trace, 'latin1'), Buffer.from(fields.method)];
  if (method.length > LONGEST_NAME) throw new AetherlessError('PAYLOAD_TOO_LARGE');
  const head = Buffer.alloc(REQUEST_HEAD);
  head.writeBigUInt64LE(fields.id, 0);
  head.writeBigUInt64LE(fields.deadlineNs, 8);
  head.writeUInt32LE(fields.attempt, 16);
  head.writeUInt16LE(trace.length, 20);
  head.writeUInt16LE(method.length, 22);
  return Buffer.concat([head, trace, method, fields.data]);
}

/** Return a deadline as a time of Date.now(); Infinity for none. */
function untilOf(deadlineNs) {
  return deadlineNs ? Number(deadlineNs / 1_000_000n) : Infinity;
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

module.exports = { RESPONSE_HEAD, fieldsOf, joined, request, response, untilOf };
