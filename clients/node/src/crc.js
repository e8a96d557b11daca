// SPDX-License-Identifier: Apache-2.0
'use strict';

const zlib = require('node:zlib');

/** The checksum in plain JavaScript, for Node before 20.15: a byte at a time. */
function plain(bytes, before = 0) {
  let crc = ~before;
  for (let place = 0; place < bytes.length; place++) {
    crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[place]) & 255];
  }
  return ~crc >>> 0;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = (byte >>> 1) ^ (byte & 1 ? 0xedb88320 : 0);
  return byte;
});

/** zlib's CRC-32 of bytes, after those whose checksum is given. */
const crc32 = zlib.crc32 ?? plain;

module.exports = { crc32, plain };
