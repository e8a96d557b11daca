// SPDX-License-Identifier: Apache-2.0
'use strict';

const { AetherlessError } = require('./errors.js');
const { RESPONSE_HEAD, request, untilOf } = require('./records.js');
const { RecordType } = require('./ring.js');

/** How a call, or a run, ended; docs/ipc.md has the table. */
const Status = Object.freeze({
  RESULT: 0, FAILED: 1, NO_METHOD: 2, DEADLINE_PASSED: 3, NOT_ALLOWED: 4, NO_FUNCTION: 5,
  NOT_DELIVERED: 6, NO_ROOM: 7, PASSED_ON: 8, DAMAGED: 9,
});
const TIMEOUT = 'INVOCATION_TIMEOUT';
const REASONS = {
  [Status.FAILED]: 'HANDLER_FAILED',
  [Status.NO_METHOD]: 'METHOD_NOT_FOUND',
  [Status.DEADLINE_PASSED]: TIMEOUT,
  [Status.NOT_ALLOWED]: 'CALL_NOT_ALLOWED',
  [Status.NO_FUNCTION]: 'FUNCTION_NOT_FOUND',
  [Status.NOT_DELIVERED]: 'NOT_DELIVERED',
  [Status.NO_ROOM]: 'RING_FULL',
};
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Why a call of another function has no result; `reason` is the contract's word, as `code` is. */
class CallError extends AetherlessError {
  constructor(name, code, message) {
    super(code, `${code}: calling ${name}${message ? `: ${message}` : ''}`);
    this.function = name;
    this.detail = message ?? '';
  }
}

const waiting = new Map(); // calls that are not answered, by id
const newcomers = new Set(); // calls that wait for a channel
let last = 0n; // an id is never used twice, over all attachments
let channel; // that this process is attached to

/** Let calls go through a channel from now on; undefined when it has ended. */
function use(attached) {
  channel = attached;
  if (channel) newcomers.forEach((resolve) => resolve());
  else waiting.forEach((fail) => fail({ code: 'PEER_GONE' }));
}

/**
 * Call another function, by its name or as "function/method", through the channel that `serve` is
 * attached to; resolves with its answer, rejects with a CallError. Without a time it is waited for
 * as long as the attachment lasts. `timeout` is in milliseconds.
 */
function call(name, data, { timeout, deadlineNs, trace = '' } = {}) {
  const deadline = deadlineNs || (timeout ? BigInt(Math.ceil((Date.now() + timeout) * 1e6)) : 0n);
  const called = {
    id: ++last, deadlineNs: deadline, attempt: 1, trace, method: name, data: Buffer.from(data),
  };
  return new Promise((resolve, reject) => {
    const finish = ({ code, detail, result }) => {
      clearTimeout(timer);
      waiting.delete(called.id);
      newcomers.delete(start);
      if (code) reject(new CallError(name, code, detail));
      else resolve(result);
    };
    const start = () => {
      newcomers.delete(start);
      waiting.set(called.id, finish);
      publish(called).catch(({ code }) => finish({ code: code === 'RING_FULL' ? TIMEOUT : code }));
    };
    const left = Math.min(untilOf(deadline) - Date.now(), LONGEST_TIMER_MS);
    const timer = deadline ? setTimeout(() => finish({ code: TIMEOUT }), left) : undefined;
    if (channel) start();
    else newcomers.add(start);
  });
}

async function publish(called) {
  await channel.publish(request(called), RecordType.CALL, untilOf(called.deadlineNs));
}

/** Give a response's record to whoever waits for it. */
function answered(payload) {
  if (payload.length < RESPONSE_HEAD) return;
  const finish = waiting.get(payload.readBigUInt64LE(0));
  const [status, data] = [payload.readUInt32LE(8), payload.subarray(RESPONSE_HEAD)];
  if (!finish) return;
  if (status === Status.RESULT) finish({ result: data });
  else finish({ code: REASONS[status] ?? 'INTERNAL', detail: data.toString() });
}

module.exports = { CallError, Status, answered, call, use };
