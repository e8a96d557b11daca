#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// Node's own HTTP server, remembering something in memory.
"use strict";
const crypto = require("crypto");
const http = require("http");

const token = crypto.randomBytes(8).toString("hex");
let count = 0;

http
  .createServer((request, response) => {
    count += 1;
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ token, count, pid: process.pid }));
  })
  .listen(Number(process.env.PORT));
