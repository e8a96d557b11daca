// SPDX-License-Identifier: Apache-2.0
//! Answers calls that come through a function's channel in shared memory, is a stage of pipelines, and
//! calls other functions.
//!
//! ```no_run
//! let error = aetherless::serve(|data| Ok(data.to_ascii_uppercase()));
//! ```

mod call;
mod channel;
mod crc;
mod edge;
mod line;
mod request;
mod ring;
mod serve;
mod session;
mod side;
mod stage;

pub use call::{call, CallError, Reason};
pub use channel::Channel;
pub use request::Request;
pub use ring::{record_type, Consumer, Corrupt, Direction, Producer};
pub use serve::{serve, serve_requests, Failure};

/// What a ring, a channel or attaching refuses; its text begins with the contract's word.
#[derive(Debug)]
pub enum Error {
    /// There is no room for the record now.
    Full,
    /// There is no record now.
    Empty,
    /// A payload is empty, or larger than a record may be.
    TooLarge,
    /// What the other side wrote can't be; attach anew.
    Corrupt(Corrupt),
    /// The service ended the attachment; attach anew.
    PeerGone,
    /// It did not happen in time.
    TimedOut,
    /// The environment names no channel.
    NoChannel,
    /// PEER_NOT_ALLOWED, CHANNEL_ATTACHED or CHANNEL_CLOSED.
    Refused(String),
    /// What was handed out is no sealed region of this version.
    Region,
    /// The kernel's.
    Io(std::io::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Full => to.write_str("RING_FULL"),
            Error::Empty => to.write_str("RING_EMPTY"),
            Error::TooLarge => to.write_str("PAYLOAD_TOO_LARGE"),
            Error::Corrupt(damage) => write!(to, "RING_CORRUPT: {:?}", damage),
            Error::PeerGone => to.write_str("PEER_GONE"),
            Error::TimedOut => to.write_str("INVOCATION_TIMEOUT"),
            Error::NoChannel => to.write_str(
                "CHANNEL_NOT_FOUND: AETHER_CHANNEL is not set; declare the function with ipc: true",
            ),
            Error::Refused(reason) => to.write_str(reason),
            Error::Region => to.write_str("REGION_INVALID"),
            Error::Io(error) => error.fmt(to),
        }
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::Io(error)
    }
}
