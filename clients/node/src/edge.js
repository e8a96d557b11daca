// SPDX-License-Identifier: Apache-2.0
'use strict';

const { Line } = require('./line.js');
const { Request } = require('./request.js');
const { Consumer, Direction, Producer, RecordType, SLOTS } = require('./ring.js');

/**
 * One end of a region between two stages of a pipeline: what the one publishes, the other consumes,
 * and nobody is in between.
 */
class Edge extends Line {
  #taken = []; // that are not finished, oldest first
  #rung;
  leaving = false; // asked to let go

  /** Map what came with a message; the descriptors are the edge's when it succeeds. */
  constructor(said, rung, atMostOnce) {
    super(said.descriptors, Number(said.ring_bytes), (memory, ringBytes, bell) => {
      if (said.role === 'producer') {
        return { producer: new Producer(memory, Direction.TO_PEER, ringBytes, bell) };
      }
      const consumer = new Consumer(memory, Direction.TO_PEER, ringBytes, bell);
      consumer.resume();
      return { consumer };
    });
    const [pipeline, , to] = said.name.split('/');
    this.name = said.name;
    this.role = said.role;
    this.to = `${pipeline}/${to}`;
    this.region = Number(said.region ?? 0);
    this.generation = Number(said.generation ?? 0);
    this.input = Number(said.input ?? 0);
    this.seen = Number(said.seen ?? 0); // a record that begins before may have been handed out before
    this.atMostOnce = atMostOnce;
    this.#rung = rung;
  }

  rouse() {
    super.rouse();
    this.#rung?.();
  }

  /**
   * Take the next record that is a request: { request, place }; undefined when there is none now,
   * and the bell will ring for one.
   */
  take() {
    while (!this.ended) {
      if (this.atMostOnce && this.#taken.length === SLOTS) return undefined;
      const record = this.consumer.take();
      if (record) {
        const taken = this.#keep(record);
        if (taken) return taken;
      } else if (this.consumer.doze()) return undefined;
    }
    return undefined;
  }

  #keep({ type, payload, before, after }) {
    const place = { edge: this, after, done: false, slot: -1 };
    const request = type === RecordType.REQUEST ? Request.parse(payload) : undefined;
    this.#taken.push(place);
    if (!request) {
      this.finish(place);
      return undefined;
    }
    if (this.atMostOnce) {
      place.slot = this.consumer.claim(request.id);
      this.consumer.release(after);
    } else if (before < this.seen) request.attempt++;
    return { request, place };
  }

  /** Let a record go: its room, once all before it are finished too, or its run's slot. */
  finish(place) {
    place.done = true;
    if (this.ended) return;
    if (this.atMostOnce) {
      if (place.slot >= 0) this.consumer.free(place.slot);
      else this.consumer.release(place.after);
      this.#taken = this.#taken.filter((each) => !each.done);
      return;
    }
    let index;
    while (this.#taken[0]?.done) index = this.#taken.shift().after;
    if (index) this.consumer.release(index);
  }

  /** Say that the region may go to another consumer, and let go of it. */
  leave() {
    if (!this.ended) this.consumer.handOver(this.generation);
    this.close();
  }
}

module.exports = { Edge };
