// SPDX-License-Identifier: Apache-2.0
'use strict';

const fs = require('node:fs');
const { AetherlessError } = require('./errors.js');
const { Line, VERSION } = require('./line.js');
const native = require('./native.js');
const { Consumer, Direction, Producer } = require('./ring.js');

/** One attachment. Any number of `receive` and `publish` may wait at once. */
class Channel extends Line {
  #watch;
  #control;
  #heard;

  constructor(control, said, heard) {
    if (said.word !== 'ok' || Number(said.version) !== VERSION) {
      throw new AetherlessError('REGION_INVALID');
    }
    super(said.descriptors, Number(said.ring_bytes), (memory, ringBytes, bell) => ({
      consumer: new Consumer(memory, Direction.TO_PEER, ringBytes, bell),
      producer: new Producer(memory, Direction.FROM_PEER, ringBytes, bell),
    }));
    this.generation = Number(said.generation);
    this.#control = control;
    this.#heard = heard;
    this.#watch = native.watch(control, false, () => this.hearAll());
  }

  /** The most bytes that a record carries. */
  get largest() {
    return this.producer.largest;
  }

  /** Hear what has come on the side socket; its end is the channel's. */
  hearAll() {
    while (!this.ended) {
      const said = hear(this.#control, false);
      if (!said) return;
      if (said.word === 'closed') this.close();
      else this.#heard(said);
    }
  }

  /** Let go of the region, the wakes and the side socket; whoever waits is told PEER_GONE. */
  close() {
    if (this.ended) return;
    native.unwatch(this.#watch);
    fs.closeSync(this.#control);
    super.close();
  }
}

/** Hear one message: { word, descriptors, and its fields }; undefined when there is none now. */
function hear(control, waits) {
  let heard;
  try {
    heard = native.hear(control, waits);
  } catch (error) {
    if (waits) throw error;
    return { word: 'closed', descriptors: [] }; // its end
  }
  if (!heard) return undefined;
  const [text, ...descriptors] = heard;
  const [word, ...rest] = text.split(' ');
  const fields = rest.filter((field) => field.includes('='));
  return { ...Object.fromEntries(fields.map((field) => split(field))), word, descriptors };
}

function split(field) {
  const at = field.indexOf('=');
  return [field.slice(0, at), field.slice(at + 1)];
}

/** Close what came with a message. */
function drop({ descriptors }) {
  descriptors.forEach((each) => fs.closeSync(each));
}

/**
 * Attach once, to a side socket or to what AETHER_CHANNEL names. Throws CHANNEL_NOT_FOUND,
 * PEER_NOT_ALLOWED, CHANNEL_ATTACHED, CHANNEL_CLOSED, REGION_INVALID, or an errno's name when nobody
 * listens (ENOENT, ECONNREFUSED). `heard` is given what comes later on the side socket, and owns its
 * descriptors.
 */
function attach(path = process.env.AETHER_CHANNEL, heard = drop) {
  if (!path) {
    const text = 'AETHER_CHANNEL is not set; declare the function with ipc: true';
    throw new AetherlessError('CHANNEL_NOT_FOUND', text);
  }
  const control = native.connect(path);
  let said = { descriptors: [] };
  try {
    said = hear(control, true);
    if (said.word === 'error') throw new AetherlessError(said.reason);
    return new Channel(control, said, heard);
  } catch (error) {
    drop(said);
    fs.closeSync(control);
    throw error;
  }
}

module.exports = { Channel, attach, drop };
