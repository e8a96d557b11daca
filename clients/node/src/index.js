// SPDX-License-Identifier: Apache-2.0
'use strict';

const { setTimeout: pause } = require('node:timers/promises');
const { CallError, Status, call } = require('./calls.js');
const { Channel, attach } = require('./channel.js');
const { AetherlessError, CorruptError } = require('./errors.js');
const { Consumer, Direction, Producer, RecordType } = require('./ring.js');
const { Session } = require('./session.js');

const RETRY_MS = 1;
const RETRY_ATTACHED_MS = 50;
const PASSING = ['ENOENT', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'EAGAIN', 'EINTR', 'CHANNEL_CLOSED'];

/**
 * Answer a channel's calls, and run the stages that the function is of pipelines; attach anew
 * whenever the service let go.
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
      await new Session(find, path).serve();
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

module.exports = {
  AetherlessError, CallError, Channel, Consumer, CorruptError, Direction, Producer, RecordType,
  Status, attach, call, serve,
};
