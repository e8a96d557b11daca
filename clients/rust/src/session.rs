// SPDX-License-Identifier: Apache-2.0
//! What lasts as long as one attachment: who reads the channel, who waits for what of it.

use crate::call::Caller;
use crate::channel::Channel;
use crate::line::lock;
use crate::request::{little, response, status, Record, Request, RESPONSE_HEAD};
use crate::ring::record_type;
use crate::serve::Failure;
use crate::side::Message;
use crate::stage::{Stage, REMEMBERED};
use crate::Error;
use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a thread waits for.
#[derive(Clone, Copy)]
pub(crate) enum Want {
    Request,
    Answer(u64),
}

/// What came: a request's record, or an answer's status and data.
#[derive(Default)]
pub(crate) struct Got {
    pub(crate) request: Option<Record>,
    pub(crate) status: u32,
    pub(crate) data: Vec<u8>,
}

/// What was read and nobody has taken yet.
#[derive(Default)]
struct Inbox {
    requests: VecDeque<Record>,
    answers: HashMap<u64, Option<Got>>, // of calls that are under way
    reading: bool,                      // a thread reads for all
    stopping: bool,                     // the service asked to let go
    at_work: usize,
}

pub(crate) struct Session {
    channel: Channel,
    inbox: Mutex<Inbox>,
    came: Condvar,
    stages: Mutex<HashMap<String, Arc<Stage>>>, // by "pipeline/stage"
    over: Mutex<VecDeque<u64>>, // runs that have ended, for stages that are not heard of yet
}

impl Session {
    pub(crate) fn attach(path: Option<&OsStr>) -> Result<Arc<Session>, Error> {
        Ok(Arc::new(Session {
            channel: Channel::attach(path)?,
            inbox: Mutex::default(),
            came: Condvar::new(),
            stages: Mutex::default(),
            over: Mutex::default(),
        }))
    }

    /// Let whoever waits know that it is over.
    pub(crate) fn end(&self) {
        self.channel.ending.end();
        drop(lock(&self.inbox)); // whoever has looked sleeps by now
        self.came.notify_all();
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.channel.ending.check()
    }

    /// The descriptor that says that it is over.
    pub(crate) fn ear(&self) -> i32 {
        self.channel.ending.ear()
    }

    pub(crate) fn send(
        &self,
        payload: &[u8],
        kind: u32,
        until: Option<Instant>,
    ) -> Result<(), Error> {
        self.channel
            .line
            .publish(payload, kind, until, &self.channel.ending)
    }

    pub(crate) fn publish_to(
        &self,
        line: &crate::line::Line,
        record: &Record,
    ) -> Result<(), Error> {
        let (bytes, until) = (record.bytes(), record.until());
        line.publish(&bytes, record_type::REQUEST, until, &self.channel.ending)
    }

    pub(crate) fn expect(&self, id: u64) {
        lock(&self.inbox).answers.insert(id, None);
    }

    pub(crate) fn forget(&self, id: u64) {
        lock(&self.inbox).answers.remove(&id);
    }

    /// Wait for something. One of the threads that wait reads the channel, for all of them.
    pub(crate) fn attend(&self, want: Want, until: Option<Instant>) -> Result<Got, Error> {
        let mut inbox = lock(&self.inbox);
        loop {
            let ended = self.check(); // what was asked is asked again then; an answer is an answer
            if let Some(got) = inbox.take(want, ended.is_err()) {
                return Ok(got);
            }
            ended?;
            if inbox.reading {
                let left = crate::line::left_until(until)?;
                let woken = self.came.wait_timeout(inbox, left);
                inbox = woken.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            inbox.reading = true;
            drop(inbox);
            let result = self.read(until);
            inbox = lock(&self.inbox);
            inbox.reading = false;
            self.came.notify_all();
            result?;
        }
    }

    /// Read one record and file it, or wait for one.
    fn read(&self, until: Option<Instant>) -> Result<(), Error> {
        let (kind, payload) = match self.channel.line.receive_once(until, &[self.ear()]) {
            Err(Error::Empty) => return Ok(()),
            result => result?,
        };
        match kind {
            record_type::SHUTDOWN => self.stop(),
            record_type::PING => return self.send(&payload, record_type::PONG, None),
            record_type::REQUEST => lock(&self.inbox).requests.extend(Record::parse(&payload)),
            record_type::RESPONSE if payload.len() >= RESPONSE_HEAD => {
                let slot = little(&payload, 0, 8);
                if let Some(waiting) = lock(&self.inbox).answers.get_mut(&slot) {
                    *waiting = Some(Got {
                        request: None,
                        status: little(&payload, 8, 4) as u32,
                        data: payload[RESPONSE_HEAD..].to_vec(),
                    });
                }
            }
            record_type::OVER if payload.len() >= 8 => {
                self.over(little(&payload, 0, 8));
            }
            _ => {}
        }
        Ok(())
    }

    /// Drop what has come of a run that has ended.
    fn over(&self, run: u64) {
        let stages = self.stages();
        let mut over = lock(&self.over);
        over.push_back(run);
        if over.len() > REMEMBERED {
            over.pop_front();
        }
        stages.values().for_each(|stage| stage.over(run));
    }

    /// Count one more run or request at work, unless the service asked to let go.
    pub(crate) fn enter(&self) -> bool {
        let mut inbox = lock(&self.inbox);
        inbox.at_work += usize::from(!inbox.stopping);
        !inbox.stopping
    }

    /// Count one less; the last one lets go of a service that asked for it.
    pub(crate) fn leave(&self) {
        let mut inbox = lock(&self.inbox);
        inbox.at_work -= 1;
        self.end_when_done(inbox);
    }

    fn stop(&self) {
        let mut inbox = lock(&self.inbox);
        inbox.stopping = true;
        self.end_when_done(inbox);
    }

    fn end_when_done(&self, inbox: MutexGuard<'_, Inbox>) {
        let done = inbox.stopping && inbox.at_work == 0 && inbox.requests.is_empty();
        drop(inbox);
        if done {
            self.end();
        }
    }

    /// Answer a request, if anyone still waits for it; `number` is the stage's, from 1, or 0.
    pub(crate) fn publish(
        &self,
        request: &Record,
        status: u32,
        data: &[u8],
        number: u32,
    ) -> Result<(), Error> {
        let room = self.channel.largest() - RESPONSE_HEAD;
        let payload = match data.len() <= room {
            true => response(request.id, status, number, data),
            false => response(request.id, status::FAILED, number, &does_not_fit(data)),
        };
        match self.send(&payload, record_type::RESPONSE, request.until()) {
            Err(Error::TimedOut) => Ok(()), // nobody waits for it any more
            result => result,
        }
    }

    /// Let go of all edges: the attachment has ended.
    pub(crate) fn close_stages(&self) {
        self.stages().values().for_each(|stage| stage.close());
    }

    fn stages(&self) -> MutexGuard<'_, HashMap<String, Arc<Stage>>> {
        lock(&self.stages)
    }

    /// Return the stage that a request is for; what the side socket said before it came is heard
    /// first, by the thread that listens to it.
    pub(crate) fn stage_of(
        &self,
        method: &str,
        began: &dyn Fn(Arc<Stage>),
    ) -> Result<Option<Arc<Stage>>, Error> {
        self.hear(began)?;
        Ok(self.stages().get(method).cloned())
    }

    /// Hear what has come on the side socket; `PeerGone` at its end.
    pub(crate) fn hear(&self, began: &dyn Fn(Arc<Stage>)) -> Result<(), Error> {
        let heard = self.channel.hear_all(|said| self.do_as(said, began));
        if heard.is_err() {
            self.end();
        }
        heard
    }

    pub(crate) fn await_word(&self) {
        self.channel.await_word();
    }

    /// Do what the side socket says of stages and edges; words that are not known are passed over.
    fn do_as(&self, mut said: Message, began: &dyn Fn(Arc<Stage>)) {
        let key = format!("{}/{}", said.field("pipeline"), said.field("stage"));
        let names: Vec<&str> = said.field("name").split('/').collect();
        let edge_of = match (&names[..], said.field("role")) {
            ([pipeline, from, _], "producer") => format!("{}/{}", pipeline, from),
            ([pipeline, _, to], _) => format!("{}/{}", pipeline, to),
            _ => String::new(),
        };
        match said.word() {
            "stage" => {
                let mut stages = self.stages();
                if !stages.contains_key(&key) {
                    if let Ok(stage) = Stage::new(said.field("pipeline"), said.field("stage")) {
                        let stage = Arc::new(stage);
                        stages.insert(key.clone(), stage.clone());
                        stage.describe(&said);
                        lock(&self.over).iter().for_each(|&run| stage.over(run));
                        began(stage);
                    }
                } else if let Some(stage) = stages.get(&key) {
                    stage.describe(&said);
                }
            }
            "stage-drop" => {
                if let Some(stage) = self.stages().remove(&key) {
                    stage.drop_all();
                }
            }
            "edge-drop" => {
                if let Some(stage) = self.stages().get(&edge_of) {
                    stage.drop_edge(&said);
                }
            }
            "edge" => {
                let stage = self.stages().get(&edge_of).cloned();
                if let Some(error) = stage.and_then(|stage| stage.take_edge(&mut said).err()) {
                    self.say_damaged(said.field("name"), &error);
                }
            }
            _ => {}
        }
    }

    /// Say that an edge can't be used, so that the service makes another.
    pub(crate) fn say_damaged(&self, name: &str, error: &Error) {
        eprintln!("aetherless: letting go of {}: {}", name, error);
        let payload = response(0, status::DAMAGED, 0, name.as_bytes());
        let sent = self.send(&payload, record_type::RESPONSE, None);
        drop(sent); // without a channel, the edge has gone anyway
    }
}

impl Inbox {
    fn take(&mut self, want: Want, ended: bool) -> Option<Got> {
        match want {
            Want::Answer(id) => self.answers.get_mut(&id)?.take(),
            Want::Request if ended => None,
            Want::Request => {
                let request = self.requests.pop_front()?;
                self.at_work += 1;
                Some(Got {
                    request: Some(request),
                    ..Got::default()
                })
            }
        }
    }
}

/// What a stage adds to a request.
#[derive(Default)]
pub(crate) struct Place<'a> {
    pub(crate) pipeline: &'a str,
    pub(crate) stage: &'a str,
    pub(crate) parts: &'a [Vec<u8>],
}

/// Return the status and the data of a request's answer.
pub(crate) fn outcome<F>(
    record: &Record,
    method: &str,
    place: &Place<'_>,
    caller: &Caller,
    handler: &F,
) -> (u32, Vec<u8>)
where
    F: Fn(&Request) -> Result<Vec<u8>, Failure>,
{
    if record.is_late() {
        return (status::TOO_LATE, Vec::new());
    }
    let request = Request {
        id: record.id,
        deadline_ns: record.deadline_ns,
        attempt: record.attempt,
        trace: &record.trace,
        method,
        data: &record.data,
        parts: place.parts,
        pipeline: place.pipeline,
        stage: place.stage,
        caller: caller.clone(),
    };
    match catch_unwind(AssertUnwindSafe(|| handler(&request))) {
        Ok(Ok(data)) => (status::RESULT, data),
        Ok(Err(Failure::Failed(message))) => (status::FAILED, message.into_bytes()),
        Ok(Err(Failure::NoMethod)) => (status::NO_METHOD, Vec::new()),
        Err(_) => (status::FAILED, b"panic".to_vec()),
    }
}

pub(crate) fn does_not_fit(data: &[u8]) -> Vec<u8> {
    let limit = "a quarter of the ring (shm_buffer_size)";
    format!("a result of {} bytes does not fit into {}", data.len(), limit).into_bytes()
}
