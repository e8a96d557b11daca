// SPDX-License-Identifier: Apache-2.0
//! Attaching to a channel, and records through it until the service ends it.

use crate::line::{left_until, lock, poll, Ending, Line, Role, LONGEST_SLEEP};
use crate::side::{connect, hear, hear_now, Message};
use crate::Error;
use std::ffi::OsStr;
use std::os::unix::io::{AsRawFd, OwnedFd};
use std::sync::Mutex;
use std::time::Instant;

const ENVIRONMENT: &str = "AETHER_CHANNEL";

/// One attachment. All of it is given back when it is dropped.
pub struct Channel {
    pub(crate) line: Line,
    pub(crate) ending: Ending,
    control: Mutex<OwnedFd>, // one message after another
    /// The number of this attachment.
    pub generation: u64,
}

impl Channel {
    /// Attach once, to a side socket or to what `AETHER_CHANNEL` names.
    ///
    /// # Errors
    /// `NoChannel`, `Refused`, `Region`, or `Io`: nobody listens (ENOENT, ECONNREFUSED).
    pub fn attach(path: Option<&OsStr>) -> Result<Channel, Error> {
        let named = std::env::var_os(ENVIRONMENT);
        let path = path.or(named.as_deref()).filter(|path| !path.is_empty());
        let control = connect(path.ok_or(Error::NoChannel)?)?;
        let mut said = hear(&control)?;
        match said.word() {
            "ok" => {}
            "error" => return Err(Error::Refused(said.field("reason").to_owned())),
            _ => return Err(Error::Region),
        }
        Ok(Channel {
            line: Line::new(&mut said, Role::Peer)?,
            ending: Ending::new()?,
            control: Mutex::new(control),
            generation: said.number("generation"),
        })
    }

    /// The most bytes that a record carries.
    pub fn largest(&self) -> usize {
        self.line.largest
    }

    /// Return the next record's type and payload; waits for one.
    ///
    /// # Errors
    /// `TimedOut` at the given time, `PeerGone`, `Corrupt`.
    pub fn receive(&mut self, until: Option<Instant>) -> Result<(u32, Vec<u8>), Error> {
        loop {
            self.hear_all(|_| {})?;
            let control = lock(&self.control).as_raw_fd();
            match self.line.receive_once(until, &[self.ending.ear(), control]) {
                Err(Error::Empty) => {}
                result => return result,
            }
        }
    }

    /// Put a record in; waits for room.
    ///
    /// # Errors
    /// `TimedOut` at the given time, `TooLarge`, `PeerGone`, `Corrupt`.
    pub fn publish(
        &mut self,
        payload: &[u8],
        kind: u32,
        until: Option<Instant>,
    ) -> Result<(), Error> {
        loop {
            self.hear_all(|_| {})?;
            let soon = Instant::now() + LONGEST_SLEEP;
            let next = until.map_or(soon, |until| until.min(soon));
            match self.line.publish(payload, kind, Some(next), &self.ending) {
                Err(Error::TimedOut) => left_until(until).map(|_| ())?,
                result => return result,
            }
        }
    }

    /// Hear what has come on the side socket; `PeerGone` at its end.
    pub(crate) fn hear_all(&self, mut heard: impl FnMut(Message)) -> Result<(), Error> {
        let control = lock(&self.control);
        self.ending.check()?;
        loop {
            match hear_now(&control) {
                Ok(None) => return Ok(()),
                Ok(Some(said)) if said.word() != "closed" => heard(said),
                _ => {
                    self.ending.end();
                    return Err(Error::PeerGone);
                }
            }
        }
    }

    /// Wait until there is something to hear on the side socket, or the end.
    pub(crate) fn await_word(&self) {
        let control = lock(&self.control).as_raw_fd();
        poll(&[control, self.ending.ear()], LONGEST_SLEEP);
    }
}
