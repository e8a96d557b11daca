// SPDX-License-Identifier: Apache-2.0
'use strict';

const { setImmediate: turn, setTimeout: pause } = require('node:timers/promises');
const { Channel, attach } = require('./channel.js');
const { AetherlessError, CorruptError } = require('./errors.js');
const { Consumer, Direction, Producer, RecordType } = require('./ring.js');

const REQUEST_HEAD = 24;
const RESPONSE_HEAD = 16;
const Status = Object.freeze({ RESULT: 0, FAILED: 1, NO_METHOD: 2, DEADLINE_PASSED: 3 });
const MOST_AT_ONCE = 256;
const TURN_AFTER = 64; // records, so that a full ring leaves time for everything else
const RETRY_MS = 1;
const RETRY_ATTACHED_MS = 50;
const PASSING = ['ENOENT', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'EAGAIN', 'CHANNEL_CLOSED'];

/**
 * Answer a channel's calls, attaching anew whenever the service let go.
 *
 * `handler(data, request)` returns the answer's bytes or a promise of them; what it throws is the
 * answer "failed". Handlers run at the same time. An object has a handler for each method. The
 * promise rejects with what another try can't help: CHANNEL_NOT_FOUND, PEER_NOT_ALLOWED,
 * REGION_INVALID or an errno's name.
 */
async function serve(handler, { path } = {}) {
  const find = typeof handler === 'function' ? () => handler : methods(handler);
  for (;;) {
    try {
      await serveAttached(attach(path), find);
    } catch (error) {
      if (error.code === 'CHANNEL_ATTACHED') await pause(RETRY_ATTACHED_MS);
      else if (PASSING.includes(error.code)) await pause(RETRY_MS);
      else throw error;
    }
  }
}

function methods(handlers) {
  return (method) => (Object.hasOwn(handlers, method) ? handlers[method] : undefined);
}

/** Answer until the service ends the attachment, asks to let go or damages the ring. */
async function serveAttached(channel, find) {
  const running = new Set();
  try {
    for (let count = 1; ; count++) {
      const { type, payload } = await channel.receive();
      if (type === RecordType.SHUTDOWN) break;
      if (type === RecordType.PING) await channel.publish(payload, RecordType.PONG);
      else if (type === RecordType.REQUEST) begin(channel, find, parse(payload), running);
      if (running.size >= MOST_AT_ONCE) await Promise.race(running);
      if (count % TURN_AFTER === 0) await turn();
    }
  } catch (error) {
    if (error.code === 'RING_CORRUPT') console.error('aetherless: attaching anew:', error.message);
    else if (error.code !== 'PEER_GONE') throw error;
  } finally {
    await Promise.all(running);
    channel.close();
  }
}

function begin(channel, find, request, running) {
  if (!request) return; // malformed
  const answered = answer(channel, find, request).finally(() => running.delete(answered));
  running.add(answered);
}

/** Read a request's record; undefined when it is malformed. */
function parse(payload) {
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

/** Run the handler of one request and publish its answer, if anyone still waits for it. */
async function answer(channel, find, request) {
  const until = request.deadlineNs ? Number(request.deadlineNs / 1_000_000n) : Infinity;
  let [status, data] = until <= Date.now()
    ? [Status.DEADLINE_PASSED, Buffer.alloc(0)]
    : await outcome(find(request.method), request);
  if (data.length > channel.largest - RESPONSE_HEAD) {
    [status, data] = [Status.FAILED, Buffer.from(`a result of ${data.length} bytes does not fit`)];
  }
  const head = Buffer.alloc(RESPONSE_HEAD);
  head.writeBigUInt64LE(request.id, 0);
  head.writeUInt32LE(status, 8);
  try {
    await channel.publish(Buffer.concat([head, data]), RecordType.RESPONSE, until);
  } catch (error) {
    console.error(`aetherless: no answer to request ${request.id}: ${error.message}`);
  }
}

/** Return the status and the data of an answer. */
async function outcome(handler, request) {
  if (!handler) return [Status.NO_METHOD, Buffer.alloc(0)];
  try {
    return [Status.RESULT, Buffer.from(await handler(request.data, request))];
  } catch (error) {
    console.error('aetherless: the handler failed:', error);
    return [Status.FAILED, Buffer.from(String(error))];
  }
}

module.exports = {
  AetherlessError, Channel, Consumer, CorruptError, Direction, Producer, RecordType, Status,
  attach, serve,
};
