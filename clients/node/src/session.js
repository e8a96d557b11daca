// SPDX-License-Identifier: Apache-2.0
'use strict';

const { setImmediate: turn } = require('node:timers/promises');
const { Status, answered, use } = require('./calls.js');
const { attach, drop } = require('./channel.js');
const { RESPONSE_HEAD, response } = require('./records.js');
const { Request } = require('./request.js');
const { RecordType } = require('./ring.js');
const { Stage, doesNotFit } = require('./stage.js');

const MOST_AT_ONCE = 256;
const TURN_AFTER = 64; // records, so that a full ring leaves time for everything else
const NOTHING = Buffer.alloc(0);

/** What lasts as long as one attachment. */
class Session {
  #find;
  #running = new Set();
  #stages = new Map(); // by "pipeline/stage"
  stopping = false;

  /** Attach. `find` returns the handler of a method, or undefined. */
  constructor(find, path) {
    this.#find = find;
    this.channel = attach(path, (said) => this.#hear(said));
  }

  /**
   * Answer until the service ends the attachment, asks to let go or damages the ring. Asked to let
   * go, it answers what came before; otherwise the answers of handlers that still run have nobody
   * to go to, and the channel is let go of at once.
   */
  async serve() {
    use(this.channel);
    try {
      await this.#receiveAll();
      this.stopping = true;
      await Promise.all(this.#running);
    } catch (error) {
      if (error.code === 'RING_CORRUPT') console.error('aetherless: attaching anew:', error.message);
      else if (error.code !== 'PEER_GONE') throw error;
    } finally {
      use(undefined);
      this.channel.close();
      this.#stages.forEach((stage) => stage.close());
    }
  }

  /** Keep a promise of something that is finished before the service is let go of. */
  running(promise) {
    const kept = promise.finally(() => this.#running.delete(kept));
    this.#running.add(kept);
    return kept;
  }

  /** Return the status and the data of a request's answer. */
  async outcome(request) {
    if (request.until <= Date.now()) return [Status.DEADLINE_PASSED, NOTHING];
    const handler = this.#find(request.method);
    if (!handler) return [Status.NO_METHOD, NOTHING];
    try {
      return [Status.RESULT, Buffer.from(await handler(request.data, request))];
    } catch (error) {
      console.error('aetherless: the handler failed:', error);
      return [Status.FAILED, Buffer.from(String(error))];
    }
  }

  /** Answer a request, if anyone still waits for it; `number` is the stage's, from 1, or 0. */
  async publish(request, status, data, number = 0) {
    const fits = data.length <= this.channel.largest - RESPONSE_HEAD;
    const payload = fits
      ? response(request.id, status, data, number)
      : response(request.id, Status.FAILED, doesNotFit(data), number);
    try {
      await this.channel.publish(payload, RecordType.RESPONSE, request.until);
    } catch (error) {
      console.error(`aetherless: no answer to request ${request.id}: ${error.message}`);
    }
  }

  /** Publish an answer to nothing that was asked. */
  say(payload) {
    this.running(this.channel.publish(payload, RecordType.RESPONSE).catch(() => {}));
  }

  async #receiveAll() {
    for (let count = 1; ; count++) {
      const { type, payload } = await this.channel.receive();
      if (type === RecordType.SHUTDOWN) return;
      if (type === RecordType.PING) await this.channel.publish(payload, RecordType.PONG);
      else if (type === RecordType.RESPONSE) answered(payload);
      else if (type === RecordType.REQUEST) this.#begin(Request.parse(payload));
      else if (type === RecordType.OVER && payload.length >= 8) {
        this.channel.hearAll(); // stages that were said before
        this.#stages.forEach((stage) => stage.over(payload.readBigUInt64LE(0)));
      }
      if (this.#running.size >= MOST_AT_ONCE) await Promise.race(this.#running);
      if (count % TURN_AFTER === 0) await turn();
    }
  }

  #begin(request) {
    if (!request) return; // malformed
    if (!request.method.includes('/')) this.running(this.#answer(request));
    else this.running(this.#answerStage(request));
  }

  async #answer(request) {
    await this.publish(request, ...(await this.outcome(request)));
  }

  /** Run a request for a stage; what the side socket said before it came is heard first. */
  async #answerStage(request) {
    this.channel.hearAll();
    const stage = this.#stages.get(request.method);
    if (stage) await stage.begin(request);
    else await this.publish(request, Status.NO_METHOD, NOTHING);
  }

  /** Do what the side socket says of stages and edges; words that are not known are passed over. */
  #hear(said) {
    const key = `${said.pipeline}/${said.stage}`;
    const [pipeline, from, to] = String(said.name).split('/');
    const edgeOf = this.#stages.get(`${pipeline}/${said.role === 'producer' ? from : to}`);
    if (said.word === 'edge' && edgeOf) return edgeOf.take(said);
    drop(said);
    if (said.word === 'edge-drop') edgeOf?.drop(said);
    else if (said.word === 'stage') this.#describe(key, said);
    else if (said.word === 'stage-drop') {
      this.#stages.get(key)?.drop();
      this.#stages.delete(key);
    }
    return undefined;
  }

  #fail(error) {
    console.error('aetherless: attaching anew:', error);
    this.channel.close();
  }

  #describe(key, said) {
    const known = this.#stages.get(key);
    const stage = known ?? new Stage(this, said.pipeline, said.stage);
    stage.describe(said);
    this.#stages.set(key, stage);
    if (!known) stage.run().catch((error) => this.#fail(error));
  }
}

module.exports = { Session };
