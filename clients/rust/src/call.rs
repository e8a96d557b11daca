// SPDX-License-Identifier: Apache-2.0
//! Calling other functions through the channel that this process serves.

use crate::line::lock;
use crate::request::{since_1970, status, Record};
use crate::ring::record_type;
use crate::session::{Session, Want};
use crate::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

const LONGEST_NAME: usize = u16::MAX as usize;

/// Why a call of another function has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Its handler failed; the message is its own.
    HandlerFailed,
    /// Its handler has no such method.
    MethodNotFound,
    /// It was not answered in time.
    Timeout,
    /// The calling function's `may_call` does not name it.
    NotAllowed,
    /// There is no such function.
    FunctionNotFound,
    /// It could not be delivered; the message says why.
    NotDelivered,
    /// There was no room for it.
    RingFull,
    /// The data, or the name, does not fit into a record.
    TooLarge,
    /// The attachment ended before the answer came, or nobody serves.
    PeerGone,
    /// A status that this version does not know.
    Internal,
}

impl Reason {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::HandlerFailed => "HANDLER_FAILED",
            Reason::MethodNotFound => "METHOD_NOT_FOUND",
            Reason::Timeout => "INVOCATION_TIMEOUT",
            Reason::NotAllowed => "CALL_NOT_ALLOWED",
            Reason::FunctionNotFound => "FUNCTION_NOT_FOUND",
            Reason::NotDelivered => "NOT_DELIVERED",
            Reason::RingFull => "RING_FULL",
            Reason::TooLarge => "PAYLOAD_TOO_LARGE",
            Reason::PeerGone => "PEER_GONE",
            Reason::Internal => "INTERNAL",
        }
    }

    fn of(answered: u32) -> Reason {
        match answered {
            status::FAILED => Reason::HandlerFailed,
            status::NO_METHOD => Reason::MethodNotFound,
            status::TOO_LATE => Reason::Timeout,
            status::NOT_ALLOWED => Reason::NotAllowed,
            status::NO_FUNCTION => Reason::FunctionNotFound,
            status::NOT_DELIVERED => Reason::NotDelivered,
            status::NO_ROOM => Reason::RingFull,
            _ => Reason::Internal,
        }
    }
}

/// A call of another function that has no result.
#[derive(Clone, Debug)]
pub struct CallError {
    pub function: String,
    pub reason: Reason,
    pub message: String,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}: calling {}", self.reason.as_str(), self.function)?;
        match self.message.is_empty() {
            true => Ok(()),
            false => write!(to, ": {}", self.message),
        }
    }
}

impl std::error::Error for CallError {}

/// Whose attachment a call goes through. It keeps nothing of it while no call is under way.
#[derive(Clone, Default)]
pub(crate) struct Caller(Weak<Session>);

static LAST: AtomicU64 = AtomicU64::new(0); // an id is never used twice, over all attachments
static CURRENT: Mutex<Option<Caller>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

impl Caller {
    pub(crate) fn of(session: &Arc<Session>) -> Caller {
        Caller(Arc::downgrade(session))
    }

    pub(crate) fn weak(session: Weak<Session>) -> Caller {
        Caller(session)
    }

    /// Let [`call`] go through a session from now on, or wait for one.
    pub(crate) fn set_current(caller: Option<Caller>) {
        *lock(&CURRENT) = caller;
        CHANGED.notify_all();
    }

    pub(crate) fn call(
        &self,
        function: &str,
        data: &[u8],
        deadline_ns: u64,
        trace: &[u8],
    ) -> Result<Vec<u8>, CallError> {
        let failed = |reason, message: &[u8]| CallError {
            function: function.to_owned(),
            reason,
            message: String::from_utf8_lossy(message).into_owned(),
        };
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let record = Record {
            id,
            deadline_ns,
            attempt: 1,
            trace: trace.to_vec(),
            method: function.to_owned(),
            data: data.to_vec(),
        };
        match self.exchange(&record) {
            Ok((status::RESULT, result)) => Ok(result),
            Ok((answered, message)) => Err(failed(Reason::of(answered), &message)),
            Err(Error::TimedOut) => Err(failed(Reason::Timeout, b"")),
            Err(Error::TooLarge) => Err(failed(Reason::TooLarge, b"")),
            Err(_) => Err(failed(Reason::PeerGone, b"")),
        }
    }

    /// Publish a call and wait for its answer: the status and the data.
    fn exchange(&self, called: &Record) -> Result<(u32, Vec<u8>), Error> {
        if called.method.len() > LONGEST_NAME {
            return Err(Error::TooLarge);
        }
        let session = self.0.upgrade().ok_or(Error::PeerGone)?;
        session.expect(called.id);
        let sent = session.send(&called.bytes(), record_type::CALL, called.until());
        let answered = sent.and_then(|()| session.attend(Want::Answer(called.id), called.until()));
        session.forget(called.id);
        answered.map(|answer| (answer.status, answer.data))
    }
}

/// Call another function, by its name or as "function/method", through the channel that `serve` is
/// attached to in this process, waiting for that first. Handlers better use [`crate::Request::call`].
///
/// # Errors
/// Whatever there is no result for.
pub fn call(function: &str, data: &[u8], timeout: Duration) -> Result<Vec<u8>, CallError> {
    let deadline = since_1970() + timeout;
    let current = lock(&CURRENT);
    let waited = CHANGED.wait_timeout_while(current, timeout, |caller| caller.is_none());
    let caller = waited.unwrap_or_else(PoisonError::into_inner).0.clone();
    let caller = caller.ok_or_else(|| CallError {
        function: function.to_owned(),
        reason: Reason::Timeout,
        message: String::new(),
    })?;
    caller.call(function, data, deadline.as_nanos() as u64, b"")
}
