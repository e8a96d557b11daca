#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// An Express application that remembers something in memory.
"use strict";
const crypto = require("crypto");
const express = require("express");

const token = crypto.randomBytes(8).toString("hex");
const edition = process.env.EDITION || "1";
const app = express();
let count = 0;

app.get("/", (request, response) => {
  count += 1;
  response.json({ token, count, pid: process.pid, edition });
});
app.listen(Number(process.env.PORT));
