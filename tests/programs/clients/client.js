// SPDX-License-Identifier: Apache-2.0
// Ask HOST PORT over HTTP; print the status and the address that the socket says it talks to.
const http = require("http");
const [host, port] = process.argv.slice(2);
const request = http.get({ host, port, agent: false, timeout: 10000 }, (response) => {
  console.log(response.statusCode, response.socket.remoteAddress);
  response.resume();
});
request.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
