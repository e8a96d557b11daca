// SPDX-License-Identifier: Apache-2.0
//! One end of a region between two stages of a pipeline: what the one publishes, the other consumes,
//! and nobody is in between.

use crate::line::{lock, Line, Role};
use crate::request::Record;
use crate::ring::{record_type, Consumer, SLOTS};
use crate::side::Message;
use crate::Error;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;

const HEAD: u64 = 16;

/// A record that was taken and is not finished.
struct Taken {
    after: u64, // the index after it
    slot: Option<usize>,
    done: bool,
}

pub(crate) struct Edge {
    pub(crate) line: Line,
    taken: Mutex<VecDeque<Taken>>, // oldest first
    pub(crate) name: String,
    pub(crate) to: String, // the stage that consumes, as "pipeline/stage"
    pub(crate) is_producer: bool,
    pub(crate) region: u64,
    pub(crate) input: usize,
    generation: u64,
    seen: u64, // a record that begins before may have been handed out before
    at_most_once: bool,
    leaving: AtomicBool,
}

impl Edge {
    /// Check and map what came with a message.
    pub(crate) fn new(said: &mut Message, at_most_once: bool) -> Result<Edge, Error> {
        let is_producer = said.field("role") == "producer";
        let role = match is_producer {
            true => Role::EdgeProducer,
            false => Role::EdgeConsumer,
        };
        let line = Line::new(said, role)?;
        if !is_producer {
            line.consumer().resume()?;
        }
        let name = said.field("name").to_owned();
        let names: Vec<&str> = name.split('/').collect();
        Ok(Edge {
            line,
            taken: Mutex::default(),
            to: format!("{}/{}", names[0], names[2]),
            is_producer,
            region: said.number("region"),
            input: said.number("input") as usize,
            generation: said.number("generation"),
            seen: said.number("seen"),
            at_most_once,
            leaving: AtomicBool::new(false),
            name,
        })
    }

    pub(crate) fn is(&self, said: &Message) -> bool {
        let is_producer = said.field("role") == "producer";
        let named = (self.is_producer, &self.name[..]) == (is_producer, said.field("name"));
        named && self.region == said.number("region")
    }

    /// Remember that the service wants it back.
    pub(crate) fn ask_to_leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Take the next record that is a request, and the index after it; `Empty`, and the bell will
    /// ring for one.
    pub(crate) fn take(&self) -> Result<(Record, u64), Error> {
        let mut consumer = self.line.consumer();
        loop {
            if self.at_most_once && lock(&self.taken).len() == SLOTS {
                return Err(Error::Empty);
            }
            let (kind, payload) = match consumer.take() {
                Err(Error::Empty) => consumer.doze().and_then(|()| consumer.take())?,
                result => result?,
            };
            let record = Record::parse(&payload).filter(|_| kind == record_type::REQUEST);
            let before = consumer.taken() - ((HEAD + payload.len() as u64 + 63) & !63);
            if let Some(record) = self.keep(&mut consumer, record, before) {
                return Ok((record, consumer.taken()));
            }
        }
    }

    /// Remember a record as taken; what is no request is let go of.
    fn keep(&self, consumer: &mut Consumer, record: Option<Record>, before: u64) -> Option<Record> {
        let after = consumer.taken();
        let mut taken = lock(&self.taken);
        let mut place = Taken {
            after,
            slot: None,
            done: record.is_none(),
        };
        let mut record = record;
        if let Some(record) = record.as_mut().filter(|_| self.at_most_once) {
            place.slot = consumer.claim(record.id);
        }
        if let Some(record) = record.as_mut().filter(|_| before < self.seen) {
            record.attempt += u32::from(!self.at_most_once);
        }
        taken.push_back(place);
        if self.at_most_once {
            consumer.release(after);
        }
        self.release(consumer, &mut taken);
        record
    }

    /// Let a record go: its room, once all before it are finished too, or its run's slot.
    pub(crate) fn finish(&self, after: u64) {
        let mut consumer = self.line.consumer();
        let mut taken = lock(&self.taken);
        for place in taken.iter_mut().filter(|place| place.after == after) {
            place.done = true;
            if let Some(slot) = place.slot {
                consumer.free(slot);
            }
        }
        self.release(&mut consumer, &mut taken);
    }

    fn release(&self, consumer: &mut Consumer, taken: &mut VecDeque<Taken>) {
        if self.at_most_once {
            taken.retain(|place| !place.done);
            return;
        }
        let mut index = None;
        while taken.front().map_or(false, |place| place.done) {
            index = taken.pop_front().map(|place| place.after);
        }
        if let Some(index) = index {
            consumer.release(index);
        }
    }

    /// Say that the region may go to another consumer.
    pub(crate) fn hand_over(&self) {
        self.line.consumer().hand_over(self.generation);
    }
}
