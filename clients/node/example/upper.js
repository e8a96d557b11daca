#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
'use strict';
// A function without an HTTP server: it makes text large, or has another function do that.

const aetherless = require('aetherless-client');

aetherless.serve({
  '': (data) => data.toString().toUpperCase(),

  // "NAME text": may_call has to name it
  via: (data, request) => {
    const at = data.indexOf(' ');
    if (at < 0) throw new Error("say a function's name and a text");
    return request.call(data.toString('utf8', 0, at), data.subarray(at + 1));
  },
});
