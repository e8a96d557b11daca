// SPDX-License-Identifier: Apache-2.0
'use strict';

const { call } = require('./calls.js');
const { fieldsOf, request, untilOf } = require('./records.js');

/** One call of the function, or one run's record at one of its stages. */
class Request {
  constructor(fields) {
    Object.assign(this, fields);
  }

  /** Read a request's record; undefined when it is malformed. */
  static parse(payload) {
    const fields = fieldsOf(payload);
    return fields && new Request(fields);
  }

  /** What `parse` reads. */
  record() {
    return request(this);
  }

  /** The deadline as a time of Date.now(); Infinity for none. */
  get until() {
    return untilOf(this.deadlineNs);
  }

  /** Call another function within this request's deadline, and as part of its trace. */
  call(name, data) {
    return call(name, data, { deadlineNs: this.deadlineNs, trace: this.trace });
  }
}

module.exports = { Request };
