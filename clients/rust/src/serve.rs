// SPDX-License-Identifier: Apache-2.0
//! The serve loop: attach, answer each request once, attach anew when the service let go.

use crate::channel::Channel;
use crate::ring::record_type;
use crate::Error;
use std::ffi::OsStr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const REQUEST_HEAD: usize = 24;
const RESPONSE_HEAD: usize = 16;
const RETRY: Duration = Duration::from_millis(1);
const RETRY_ATTACHED: Duration = Duration::from_millis(50);

/// One call of the function.
#[derive(Debug)]
pub struct Request<'a> {
    /// Unique while the channel lives.
    pub id: u64,
    /// Nanoseconds since 1970; 0 for none.
    pub deadline_ns: u64,
    /// 1, or more when it was delivered before and not answered.
    pub attempt: u32,
    /// The W3C `traceparent`, or nothing.
    pub trace: &'a [u8],
    pub method: &'a str,
    pub data: &'a [u8],
}

/// How a call ends other than with a result.
#[derive(Debug)]
pub enum Failure {
    /// The handler failed; the caller is told.
    Failed(String),
    /// The handler has no such method.
    NoMethod,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.to_string())
    }
}

/// Answer the calls of the channel that `AETHER_CHANNEL` names, whatever their method, one after
/// another. Returns only what another try can't help, as [`serve_requests`].
pub fn serve<F>(mut handler: F) -> Error
where
    F: FnMut(&[u8]) -> Result<Vec<u8>, Failure>,
{
    serve_requests(None, |request| handler(request.data))
}

/// Answer a channel's calls, attaching anew whenever the service let go.
///
/// Returns `NoChannel`, `Region`, `Refused` or an `Io` of the kernel's. A panic of the handler is
/// the answer "failed".
pub fn serve_requests<F>(path: Option<&OsStr>, mut handler: F) -> Error
where
    F: FnMut(&Request) -> Result<Vec<u8>, Failure>,
{
    loop {
        match Channel::attach(path) {
            Ok(channel) => {
                if let Error::Corrupt(damage) = serve_attached(channel, &mut handler) {
                    eprintln!("aetherless: attaching anew: {:?}", damage);
                }
            }
            Err(error) => match pause_after(&error) {
                Some(pause) => sleep(pause),
                None => return error,
            },
        }
    }
}

/// Say when attaching is worth another try; `None` when it never is.
fn pause_after(error: &Error) -> Option<Duration> {
    const PASSING: [i32; 5] = [
        libc::ENOENT,
        libc::ECONNREFUSED,
        libc::ECONNRESET,
        libc::EPIPE,
        libc::EAGAIN,
    ];
    match error {
        Error::Io(error) if PASSING.contains(&error.raw_os_error()?) => Some(RETRY),
        Error::Refused(reason) if reason == "CHANNEL_CLOSED" => Some(RETRY),
        Error::Refused(reason) if reason == "CHANNEL_ATTACHED" => Some(RETRY_ATTACHED),
        _ => None,
    }
}

/// Answer until the service ends the attachment or asks to let go; return why it ended.
fn serve_attached<F>(mut channel: Channel, handler: &mut F) -> Error
where
    F: FnMut(&Request) -> Result<Vec<u8>, Failure>,
{
    loop {
        let result = match channel.receive(None) {
            Ok((record_type::SHUTDOWN, _)) => Err(Error::PeerGone),
            Ok((record_type::PING, payload)) => channel.publish(&payload, record_type::PONG, None),
            Ok((record_type::REQUEST, payload)) => match parse(&payload) {
                Some(request) => answer(&mut channel, &request, handler),
                None => Ok(()),
            },
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            return error;
        }
    }
}

/// Read a request's record; `None` when it is malformed.
fn parse(payload: &[u8]) -> Option<Request<'_>> {
    if payload.len() < REQUEST_HEAD {
        return None;
    }
    let number = |at: usize, bytes: usize| {
        let parts = payload[at..at + bytes].iter().rev();
        parts.fold(0u64, |value, &byte| value << 8 | u64::from(byte))
    };
    let method_at = REQUEST_HEAD + number(20, 2) as usize;
    let data_at = method_at + number(22, 2) as usize;
    Some(Request {
        id: number(0, 8),
        deadline_ns: number(8, 8),
        attempt: number(16, 4) as u32,
        data: payload.get(data_at..)?,
        trace: &payload[REQUEST_HEAD..method_at],
        method: std::str::from_utf8(&payload[method_at..data_at]).unwrap_or("\u{fffd}"),
    })
}

/// Run the handler of one request and publish its answer, if anyone still waits for it.
fn answer<F>(channel: &mut Channel, request: &Request, handler: &mut F) -> Result<(), Error>
where
    F: FnMut(&Request) -> Result<Vec<u8>, Failure>,
{
    let until = deadline(request);
    let room = channel.largest() - RESPONSE_HEAD;
    let (status, data) = match until {
        Some(until) if until <= Instant::now() => (3, Vec::new()),
        _ => outcome(request, handler, room),
    };
    let mut payload = Vec::with_capacity(RESPONSE_HEAD + data.len());
    payload.extend_from_slice(&request.id.to_le_bytes());
    payload.extend_from_slice(&u64::to_le_bytes(status));
    payload.extend_from_slice(&data);
    match channel.publish(&payload, record_type::RESPONSE, until) {
        Err(Error::TimedOut) => Ok(()), // nobody waits for it any more
        result => result,
    }
}

/// Return the status and the data of an answer.
fn outcome<F>(request: &Request, handler: &mut F, room: usize) -> (u64, Vec<u8>)
where
    F: FnMut(&Request) -> Result<Vec<u8>, Failure>,
{
    match catch_unwind(AssertUnwindSafe(|| handler(request))) {
        Ok(Ok(data)) if data.len() <= room => (0, data),
        Ok(Ok(data)) => (
            1,
            format!("a result of {} bytes does not fit", data.len()).into_bytes(),
        ),
        Ok(Err(Failure::Failed(mut message))) => {
            while message.len() > room {
                message.pop();
            }
            (1, message.into_bytes())
        }
        Ok(Err(Failure::NoMethod)) => (2, Vec::new()),
        Err(_) => (1, b"panic".to_vec()),
    }
}

/// Return the time until which a request is waited for; `None` for ever.
fn deadline(request: &Request) -> Option<Instant> {
    if request.deadline_ns == 0 {
        return None;
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let left = Duration::from_nanos(request.deadline_ns).saturating_sub(now);
    Some(Instant::now() + left)
}
