// SPDX-License-Identifier: Apache-2.0
//! Requests and responses as bytes of records; docs/ipc.md has the tables.

use crate::call::{CallError, Caller};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const REQUEST_HEAD: usize = 24;
pub(crate) const RESPONSE_HEAD: usize = 16;

pub(crate) mod status {
    pub(crate) const RESULT: u32 = 0;
    pub(crate) const FAILED: u32 = 1;
    pub(crate) const NO_METHOD: u32 = 2;
    pub(crate) const TOO_LATE: u32 = 3;
    pub(crate) const NOT_ALLOWED: u32 = 4;
    pub(crate) const NO_FUNCTION: u32 = 5;
    pub(crate) const NOT_DELIVERED: u32 = 6;
    pub(crate) const NO_ROOM: u32 = 7;
    pub(crate) const PASSED_ON: u32 = 8;
    pub(crate) const DAMAGED: u32 = 9;
}

/// What a request's record says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) deadline_ns: u64,
    pub(crate) attempt: u32,
    pub(crate) trace: Vec<u8>,
    pub(crate) method: String,
    pub(crate) data: Vec<u8>,
}

impl Record {
    /// Read a record; `None` when it is malformed.
    pub(crate) fn parse(payload: &[u8]) -> Option<Record> {
        if payload.len() < REQUEST_HEAD {
            return None;
        }
        let method_at = REQUEST_HEAD + little(payload, 20, 2) as usize;
        let data_at = method_at + little(payload, 22, 2) as usize;
        Some(Record {
            data: payload.get(data_at..)?.to_vec(),
            id: little(payload, 0, 8),
            deadline_ns: little(payload, 8, 8),
            attempt: little(payload, 16, 4) as u32,
            trace: payload[REQUEST_HEAD..method_at].to_vec(),
            method: String::from_utf8_lossy(&payload[method_at..data_at]).into_owned(),
        })
    }

    /// What `parse` reads.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [
            &self.id.to_le_bytes()[..],
            &self.deadline_ns.to_le_bytes(),
            &self.attempt.to_le_bytes(),
            &(self.trace.len() as u16).to_le_bytes(),
            &(self.method.len() as u16).to_le_bytes(),
            &self.trace,
            self.method.as_bytes(),
            &self.data,
        ]
        .concat()
    }

    /// The time until which it is waited for; `None` for ever.
    pub(crate) fn until(&self) -> Option<Instant> {
        if self.deadline_ns == 0 {
            return None;
        }
        let left = Duration::from_nanos(self.deadline_ns).saturating_sub(since_1970());
        Some(Instant::now() + left)
    }

    pub(crate) fn is_late(&self) -> bool {
        self.deadline_ns != 0 && Duration::from_nanos(self.deadline_ns) <= since_1970()
    }
}

pub(crate) fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// Return an answer's record; `number` is the stage's, from 1, or 0.
pub(crate) fn response(id: u64, status: u32, number: u32, data: &[u8]) -> Vec<u8> {
    let head = [
        &id.to_le_bytes()[..],
        &status.to_le_bytes(),
        &number.to_le_bytes(),
    ];
    [&head.concat()[..], data].concat()
}

/// Return the data of a stage that has several inputs: their number, each one's length and bytes.
pub(crate) fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut data = (parts.len() as u32).to_le_bytes().to_vec();
    for part in parts {
        data.extend_from_slice(&(part.len() as u32).to_le_bytes());
        data.extend_from_slice(part);
    }
    data
}

/// Read an integer of a record that is long enough.
pub(crate) fn little(payload: &[u8], at: usize, bytes: usize) -> u64 {
    let parts = payload[at..at + bytes].iter().rev();
    parts.fold(0u64, |value, &byte| value << 8 | u64::from(byte))
}

/// One call of the function, or one run's record at one of its stages.
pub struct Request<'a> {
    /// Unique while the channel lives; a run's is the same at each stage.
    pub id: u64,
    /// Nanoseconds since 1970; 0 for none.
    pub deadline_ns: u64,
    /// 1, or more when it was delivered before and not answered.
    pub attempt: u32,
    /// The W3C `traceparent`, or nothing.
    pub trace: &'a [u8],
    pub method: &'a str,
    pub data: &'a [u8],
    /// What each input of a stage that has several brought, in their order.
    pub parts: &'a [Vec<u8>],
    /// Whose stage this is, or nothing.
    pub pipeline: &'a str,
    pub stage: &'a str,
    pub(crate) caller: Caller,
}

impl Request<'_> {
    /// Call another function, by its name or as "function/method", within this request's deadline
    /// and as part of its trace.
    ///
    /// # Errors
    /// Whatever there is no result for.
    pub fn call(&self, function: &str, data: &[u8]) -> Result<Vec<u8>, CallError> {
        self.caller
            .call(function, data, self.deadline_ns, self.trace)
    }
}
