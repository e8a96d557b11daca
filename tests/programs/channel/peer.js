// SPDX-License-Identifier: Apache-2.0
'use strict';
// The Node client as the tests drive it; peer.py says what each command does.

const readline = require('node:readline');
const aetherless = require('./client');
const native = require('./client/src/native.js');

const LIMIT_MS = 60000;

function pattern(length, seed) {
  const made = Buffer.alloc(length);
  for (let place = 0; place < length; place++) made[place] = seed * 31 + place * 7 + (place >> 8);
  return made;
}

function content(number) {
  return pattern(1 + ((number * 7919) % (number % 10 ? 600 : 16384)), number);
}

const echo = (data) => data;
const handlers = {
  '': echo,
  echo,
  fail: async () => {
    throw new Error('told to fail');
  },
  describe: (_, { attempt, trace }) => `${attempt} ${trace}`,
  parts: (data, { attempt, parts = [data] }) =>
    Buffer.concat([Buffer.from(`${attempt} `), ...parts.flatMap(after('|')).slice(1)]),
  grow: (data) => Buffer.alloc(Number(data)),
  hang: () => new Promise((resolve) => setTimeout(resolve, LIMIT_MS, '')),
  relay,
};

/** Return a function that puts a word before bytes. */
function after(word) {
  return (bytes) => [Buffer.from(word), bytes];
}

/** Call the function that the first word names with the rest; return what that brings. */
async function relay(data, request) {
  const at = data.indexOf(' ');
  try {
    return await request.call(data.toString('utf8', 0, at), data.subarray(at + 1));
  } catch (error) {
    return `${error.code} ${error.detail}`;
  }
}

function refusal(error) {
  if (error.code === 'RING_CORRUPT') {
    return `corrupt ${error.fault} ${error.expected} ${error.actual}`;
  }
  return error.code === 'PAYLOAD_TOO_LARGE' ? 'too_large' : String(error.stack);
}

function step(producer, consumer, line) {
  const [verb, type, length, seed] = line.split(' ');
  if (verb === 'put') {
    return producer.publish(pattern(Number(length), Number(seed)), Number(type)) ? 'ok' : 'full';
  }
  const record = consumer.receive();
  return record ? `record ${record.type} ${record.payload.toString('hex')}` : 'empty';
}

async function script(producer, consumer) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      console.log(step(producer, consumer, line));
    } catch (error) {
      console.log(refusal(error));
    }
  }
}

/** Return a function that sleeps until the bell. */
function sleeper(wake) {
  let rouse = () => {};
  native.watch(wake, true, () => rouse());
  return () =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no bell')), LIMIT_MS);
      rouse = () => {
        clearTimeout(timer);
        resolve();
      };
    });
}

async function produce(producer, sleep, count) {
  for (let number = 0; number < count; number++) {
    const payload = content(number);
    while (!producer.publish(payload, number)) {
      if (producer.doze(payload.length)) await sleep();
    }
  }
}

async function consume(consumer, sleep, count) {
  for (let number = 0; number < count; number++) {
    let record;
    while (!(record = consumer.receive())) {
      if (consumer.doze()) await sleep();
    }
    if (record.type !== number || !record.payload.equals(content(number))) {
      throw new Error(`record ${number} is not as it was written`);
    }
  }
}

async function main(command, ...given) {
  if (command === 'serve') return aetherless.serve(handlers);
  const numbers = given.map(Number);
  const ring = numbers.at(-1);
  const [region, wake, bell] = numbers;
  const memory = native.map(region);
  const ends = [aetherless.Producer, aetherless.Consumer].map(
    (End) => new End(memory, aetherless.Direction.TO_PEER, ring, command === 'script' ? -1 : bell),
  );
  if (command === 'script') return script(...ends);
  if (command === 'produce') await produce(ends[0], sleeper(wake), numbers[3]);
  else await consume(ends[1], sleeper(wake), numbers[3]);
  process.exit(0); // the watch would keep it
}

main(...process.argv.slice(2)).catch((error) => {
  console.log(error);
  process.exit(1);
});
