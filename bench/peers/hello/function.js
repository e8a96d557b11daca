// SPDX-License-Identifier: Apache-2.0
// The hello function of the functions framework for Node.js.
exports.hello = (_request, response) => {
  response.send("hello\n");
};
