// SPDX-License-Identifier: Apache-2.0
'use strict';

const { setImmediate: turn } = require('node:timers/promises');
const { Status } = require('./calls.js');
const { drop } = require('./channel.js');
const { Edge } = require('./edge.js');
const { LONGEST_SLEEP_MS } = require('./line.js');
const { joined, response } = require('./records.js');
const { Request } = require('./request.js');
const { RecordType } = require('./ring.js');

const REMEMBERED = 4096; // runs that a stage with several inputs has finished
const TURN_AFTER = 64; // runs, so that full inputs leave time for everything else
const NOTHING = Buffer.alloc(0);

/**
 * A place that the function has in a pipeline. Runs come to it one after another through its inputs,
 * or as requests of the channel when it is the first; results go to all its outputs, or as answers
 * when it is the last.
 */
class Stage {
  #session;
  #in = [];
  #out = [];
  #atWork = 0;
  #gathered = new Map(); // what came of runs to several inputs, by run
  #finished = new Set(); // runs, oldest first
  #rouse = () => {};
  #dropped = false;
  #turn = Promise.resolve(); // the end of the last request of the channel

  constructor(session, pipeline, name) {
    Object.assign(this, { pipeline, name });
    this.#session = session;
  }

  /** Keep what the service says of the stage. */
  describe(said) {
    this.method = said.method ?? '';
    this.atMostOnce = said.delivery === 'at-most-once';
    for (const word of ['number', 'inputs', 'outputs']) this[word] = Number(said[word] ?? 0);
  }

  /** Take an edge. */
  take(said) {
    try {
      const edge = new Edge(said, () => this.#rouse(), this.atMostOnce);
      (said.role === 'producer' ? this.#out : this.#in).push(edge);
      this.#session.channel.rouse(); // whoever waits for an output
    } catch (error) {
      drop(said);
      this.#say(said.name, error);
    }
    this.#rouse();
  }

  /** Let an edge go, once what is at work is finished; undefined lets all go and ends the stage. */
  drop(said) {
    for (const edge of [...this.#in, ...this.#out]) {
      edge.leaving ||= !said ||
        (edge.name === said.name && edge.role === said.role && edge.region === Number(said.region ?? 0));
    }
    this.#dropped ||= !said;
    this.#closeOutputs();
    this.#rouse();
  }

  /** Let go of everything at once: the attachment has ended. */
  close() {
    this.#dropped = true;
    [...this.#in, ...this.#out].forEach((edge) => edge.close());
    this.#rouse();
  }

  /** Drop the parts of a run that has ended. */
  over(run) {
    if (this.inputs <= 1) return;
    this.#forget(run);
    this.#remember(run);
  }

  /** Run what comes through the inputs, until the stage or the attachment ends. */
  async run() {
    for (let count = 1; ; count++) {
      const complete = this.#look();
      if (complete) {
        if (this.#session.stopping) return;
        await this.#session.running(this.execute(complete.request, false));
        complete.places.forEach((place) => place.edge.finish(place));
      } else if (this.#dropped) return;
      else await this.#sleep();
      if (count % TURN_AFTER === 0) await turn();
    }
  }

  /** Run a request of the channel, for the first stage of a pipeline, when it is its turn. */
  begin(request) {
    this.#turn = this.#turn.then(() => this.execute(request));
    return this.#turn;
  }

  /** Run the handler, and pass its result on; the first stage says so. */
  async execute(request, isFirst = true) {
    this.#atWork++;
    const { pipeline, name: stage, method, number, outputs } = this;
    const handled = new Request({ ...request, pipeline, stage, method });
    let [status, data] = await this.#session.outcome(handled);
    if (status === Status.RESULT && outputs) {
      [status, data] = await this.#pass(request, data, outputs);
    }
    if (status !== Status.PASSED_ON || isFirst) {
      await this.#session.publish(request, status, data, number + 1);
    }
    this.#atWork--;
    this.#closeOutputs();
  }

  /** Publish a result to every output; return PASSED_ON, or how that failed. */
  async #pass(request, data, outputs) {
    const edges = await this.#awaitOutputs(request, (newest) => newest.length >= outputs && newest);
    if (!edges) return [Status.DEADLINE_PASSED, NOTHING];
    const published = edges.map((edge) => this.#publish(edge, request, data));
    return (await Promise.all(published)).find(Boolean) ?? [Status.PASSED_ON, NOTHING];
  }

  /** Publish a result to an output, or to the region in its place; return how that failed, if so. */
  async #publish(edge, request, data) {
    const next = new Request({ ...request, method: edge.to, data });
    for (let output = edge; output; ) {
      try {
        await output.publish(next.record(), RecordType.REQUEST, request.until);
        return undefined;
      } catch (error) {
        if (error.code === 'RING_FULL') break;
        if (error.code === 'PAYLOAD_TOO_LARGE') return [Status.FAILED, doesNotFit(data)];
        this.#remove(output, error);
      }
      const isIt = ({ to }) => to === edge.to;
      output = await this.#awaitOutputs(request, (newest) => newest.find(isIt));
    }
    return [Status.DEADLINE_PASSED, NOTHING];
  }

  /** Return what `chosen` chooses of the newest regions; undefined when it does not come in time. */
  async #awaitOutputs(request, chosen) {
    const { channel } = this.#session;
    for (;;) {
      const found = chosen(this.#newest());
      const left = request.until - Date.now();
      if (found || left <= 0 || channel.ended) return found || undefined;
      await channel.sleep(Math.min(left, LONGEST_SLEEP_MS));
    }
  }

  /** Return the newest region of each output. */
  #newest() {
    const newest = new Map();
    for (const edge of this.#out) {
      if (!(newest.get(edge.to)?.region > edge.region)) newest.set(edge.to, edge);
    }
    return [...newest.values()];
  }

  /** Close the outputs that were dropped, unless a run may still go there. */
  #closeOutputs() {
    if (this.#atWork) return;
    this.#out.filter((edge) => edge.leaving).forEach((edge) => edge.close());
    this.#out = this.#out.filter((edge) => !edge.leaving);
  }

  /** Let go of an edge that is damaged, or was closed. */
  #remove(edge, error) {
    if (!['RING_CORRUPT', 'PEER_GONE'].includes(error.code)) throw error;
    this.#in = this.#in.filter((each) => each !== edge);
    this.#out = this.#out.filter((each) => each !== edge);
    this.#giveUp(edge);
    if (error.code === 'RING_CORRUPT') this.#say(edge.name, error);
    edge.close();
  }

  /** Say that an edge can't be used, so that the service makes another. */
  #say(name, error) {
    console.error(`aetherless: letting go of ${name}: ${error.message}`);
    this.#session.say(response(0n, Status.DAMAGED, Buffer.from(name)));
  }

  /** Take what has come until a run is complete; undefined when there is none now. */
  #look() {
    for (const edge of this.#open()) {
      try {
        for (let taken; (taken = edge.take()); ) {
          const complete = this.#gather(taken);
          if (complete) return complete;
        }
      } catch (error) {
        this.#remove(edge, error);
      }
    }
    return undefined;
  }

  /** Return the inputs in turn; let go of those that were dropped, and of parts that are too late. */
  #open() {
    for (const edge of this.#in.filter((each) => each.leaving)) {
      this.#giveUp(edge);
      edge.leave();
    }
    this.#in = this.#in.filter((edge) => !edge.leaving);
    if (this.#in.length > 1) this.#in.push(this.#in.shift());
    for (const [run, { request }] of this.#gathered) {
      if (request.until <= Date.now()) this.#forget(run);
    }
    return [...this.#in];
  }

  /** Keep a part of a run; return the run once it has them all. */
  #gather({ request, place }) {
    if (this.inputs <= 1) return { request, places: [place] };
    const { id, data, attempt } = request;
    const fresh = { request, parts: new Map(), places: [] };
    const run = this.#gathered.get(id) ?? fresh;
    const { input } = place.edge;
    if (this.#finished.has(id) || !(input < this.inputs) || run.parts.has(input)) {
      place.edge.finish(place);
      return undefined;
    }
    this.#gathered.set(id, run);
    run.parts.set(input, data);
    run.places.push(place);
    run.request.attempt = Math.max(run.request.attempt, attempt);
    if (run.parts.size < this.inputs) return undefined;
    this.#gathered.delete(id);
    this.#remember(id);
    const parts = Array.from({ length: this.inputs }, (_, at) => run.parts.get(at));
    Object.assign(run.request, { parts, data: joined(parts) });
    return run;
  }

  #remember(run) {
    this.#finished.add(run);
    if (this.#finished.size > REMEMBERED) this.#finished.delete(this.#finished.values().next().value);
  }

  #forget(run) {
    const known = this.#gathered.get(run);
    this.#gathered.delete(run);
    known?.places.forEach((place) => place.edge.finish(place));
  }

  /** Forget what came through an edge, unfinished: the region's next consumer is given it again. */
  #giveUp(edge) {
    for (const [id, run] of this.#gathered) {
      if (!run.places.some((place) => place.edge === edge)) continue;
      run.places = run.places.filter((place) => place.edge !== edge);
      run.parts.delete(edge.input);
      if (!run.places.length) this.#gathered.delete(id);
    }
  }

  #sleep() {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, LONGEST_SLEEP_MS);
      this.#rouse = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function doesNotFit(data) {
  const limit = 'a quarter of the ring (shm_buffer_size)';
  return Buffer.from(`a result of ${data.length} bytes does not fit into ${limit}`);
}

module.exports = { Stage, doesNotFit };
