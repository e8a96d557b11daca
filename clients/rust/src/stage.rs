// SPDX-License-Identifier: Apache-2.0
//! A place that the function has in a pipeline. Runs come to it one after another through its
//! inputs, or as requests of the channel when it is the first; results go to all its outputs, or as
//! answers when it is the last.

use crate::call::Caller;
use crate::edge::Edge;
use crate::line::{hear_bell, left_until, lock, poll, Ending, LONGEST_SLEEP};
use crate::request::{joined, status, Record, Request};
use crate::serve::Failure;
use crate::session::{does_not_fit, outcome, Place, Session};
use crate::side::Message;
use crate::Error;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

pub(crate) const REMEMBERED: usize = 4096; // runs that a stage with several inputs has finished

/// A run, with what came of it.
pub(crate) struct Run {
    record: Record,
    parts: Vec<Option<Vec<u8>>>,
    places: Vec<(Weak<Edge>, u64)>,
}

impl Run {
    /// Let its records go.
    fn finish(&self) {
        for (edge, after) in &self.places {
            if let Some(edge) = edge.upgrade() {
                edge.finish(*after);
            }
        }
    }
}

#[derive(Default)]
struct State {
    method: String,
    number: u32, // in the pipeline, from 0
    inputs: usize,
    outputs: usize,
    at_most_once: bool,
    dropped: bool,
    inward: Vec<Arc<Edge>>,
    outward: Vec<Arc<Edge>>,
    at_work: usize,
    gathered: HashMap<u64, Run>,
    finished: HashSet<u64>,
    order: VecDeque<u64>, // the same, oldest first
}

pub(crate) struct Stage {
    pipeline: String,
    name: String,
    stir: Ending, // its bell says that there is something to look at
    passing: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar, // an output came
}

impl Stage {
    pub(crate) fn new(pipeline: &str, name: &str) -> Result<Stage, Error> {
        Ok(Stage {
            pipeline: pipeline.to_owned(),
            name: name.to_owned(),
            stir: Ending::new()?,
            passing: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Keep what the service says of the stage.
    pub(crate) fn describe(&self, said: &Message) {
        let mut state = lock(&self.state);
        state.method = said.field("method").to_owned();
        state.number = said.number("number") as u32;
        state.inputs = said.number("inputs") as usize;
        state.outputs = said.number("outputs") as usize;
        state.at_most_once = said.field("delivery") == "at-most-once";
    }

    pub(crate) fn take_edge(&self, said: &mut Message) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let edge = Arc::new(Edge::new(said, state.at_most_once)?);
        match edge.is_producer {
            true => state.outward.push(edge),
            false => state.inward.push(edge),
        }
        self.changed.notify_all();
        self.stir.end();
        Ok(())
    }

    /// Let an edge go, once what is at work is finished.
    pub(crate) fn drop_edge(&self, said: &Message) {
        let mut state = lock(&self.state);
        for edge in state.inward.iter().chain(&state.outward) {
            if edge.is(said) {
                edge.ask_to_leave();
            }
        }
        state.drop_outputs();
        self.stir.end();
    }

    /// Let all edges go, once what is at work is finished.
    pub(crate) fn drop_all(&self) {
        let mut state = lock(&self.state);
        let edges = state.inward.iter().chain(&state.outward);
        edges.for_each(|edge| edge.ask_to_leave());
        state.dropped = true;
        state.drop_outputs();
        self.stir.end();
    }

    /// Let go of everything at once: the attachment has ended.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.inward.clear();
        state.outward.clear();
        state.dropped = true;
        self.changed.notify_all();
        self.stir.end();
    }

    /// Drop the parts of a run that has ended.
    pub(crate) fn over(&self, run: u64) {
        let mut state = lock(&self.state);
        if state.inputs > 1 {
            state.forget(run);
            state.remember(run);
        }
    }

    /// Run what comes through the inputs, until the stage or the attachment ends.
    pub(crate) fn run<F>(&self, session: &Weak<Session>, handler: &F)
    where
        F: Fn(&Request) -> Result<Vec<u8>, Failure>,
    {
        while let Some(attached) = session.upgrade() {
            if let Some(run) = self.look(&attached) {
                if !attached.enter() {
                    return;
                }
                drop(attached); // a handler keeps nothing of it
                let parts: Vec<Vec<u8>> = run.parts.iter().flatten().cloned().collect();
                if self
                    .execute(session, &run.record, &parts, false, handler)
                    .is_ok()
                {
                    run.finish();
                }
                if let Some(attached) = session.upgrade() {
                    attached.leave();
                }
            } else if attached.check().is_err() || lock(&self.state).dropped {
                lock(&self.state).open(); // what was dropped since
                return;
            } else {
                self.sleep(&attached);
            }
        }
    }

    /// Run the handler, and pass its result on; the first stage says so.
    pub(crate) fn execute<F>(
        &self,
        session: &Weak<Session>,
        record: &Record,
        parts: &[Vec<u8>],
        is_first: bool,
        handler: &F,
    ) -> Result<(), Error>
    where
        F: Fn(&Request) -> Result<Vec<u8>, Failure>,
    {
        let (method, number, outputs) = lock(&self.state).begin();
        let place = Place {
            pipeline: &self.pipeline,
            stage: &self.name,
            parts,
        };
        let caller = Caller::weak(session.clone());
        let (mut answered, mut data) = outcome(record, &method, &place, &caller, handler);
        let attached = session.upgrade();
        if let Some(attached) = attached
            .as_ref()
            .filter(|_| answered == status::RESULT && outputs > 0)
        {
            let passed = self.pass(attached, record, data, outputs);
            answered = passed.0;
            data = passed.1;
        }
        lock(&self.state).end();
        match attached {
            None => Err(Error::PeerGone),
            Some(_) if answered == status::PASSED_ON && !is_first => Ok(()),
            Some(attached) => attached.publish(record, answered, &data, number + 1),
        }
    }

    /// Publish a result to every output; return PASSED_ON, or how that failed.
    fn pass(
        &self,
        session: &Session,
        record: &Record,
        data: Vec<u8>,
        outputs: usize,
    ) -> (u32, Vec<u8>) {
        let _one_after_another = lock(&self.passing);
        let all = |newest: Vec<Arc<Edge>>| Some(newest).filter(|newest| newest.len() >= outputs);
        let edges = match self.await_outputs(session, record, all) {
            Some(edges) => edges,
            None => return (status::TOO_LATE, Vec::new()),
        };
        let mut next = Record {
            data,
            ..record.clone()
        };
        for edge in edges {
            next.method = edge.to.clone();
            let (answered, data) = self.publish(session, edge, &next);
            if answered != status::PASSED_ON {
                return (answered, data);
            }
        }
        (status::PASSED_ON, Vec::new())
    }

    /// Put a record into an output, or into the region that takes its place.
    fn publish(&self, session: &Session, edge: Arc<Edge>, next: &Record) -> (u32, Vec<u8>) {
        let mut output = Some(edge);
        while let Some(edge) = output {
            match session.publish_to(&edge.line, next) {
                Ok(()) => return (status::PASSED_ON, Vec::new()),
                Err(Error::TimedOut) => break,
                Err(Error::TooLarge) => return (status::FAILED, does_not_fit(&next.data)),
                Err(error) => self.remove(session, &edge, &error),
            }
            output = self.await_outputs(session, next, |newest| {
                newest.into_iter().find(|each| each.to == next.method)
            });
        }
        (status::TOO_LATE, Vec::new())
    }

    /// Return what is chosen of the newest regions of the outputs; `None` when it does not come in
    /// time.
    fn await_outputs<T>(
        &self,
        session: &Session,
        record: &Record,
        choose: impl Fn(Vec<Arc<Edge>>) -> Option<T>,
    ) -> Option<T> {
        let until = record.until();
        let mut state = lock(&self.state);
        loop {
            if let Some(chosen) = choose(state.newest()) {
                return Some(chosen);
            }
            session.check().ok()?;
            let left = left_until(until).ok()?.min(LONGEST_SLEEP);
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Let go of an edge that is damaged, or was closed.
    fn remove(&self, session: &Session, damaged: &Arc<Edge>, error: &Error) {
        let mut state = lock(&self.state);
        state.inward.retain(|edge| !Arc::ptr_eq(edge, damaged));
        state.outward.retain(|edge| !Arc::ptr_eq(edge, damaged));
        state.give_up(damaged);
        drop(state);
        if matches!(error, Error::Corrupt(_)) {
            session.say_damaged(&damaged.name, error);
        }
    }

    /// Take what has come until a run is complete; `None` when there is none now, and the bell will
    /// ring for one.
    fn look(&self, session: &Session) -> Option<Run> {
        let inputs = lock(&self.state).open();
        for edge in inputs {
            loop {
                match edge.take() {
                    Ok((record, after)) => {
                        let complete = lock(&self.state).gather(record, &edge, after);
                        if complete.is_some() {
                            return complete;
                        }
                    }
                    Err(Error::Empty) => break,
                    Err(error) => {
                        self.remove(session, &edge, &error);
                        break;
                    }
                }
            }
        }
        None
    }

    fn sleep(&self, session: &Session) {
        let inward = lock(&self.state).inward.clone();
        let mut ears = vec![session.ear(), self.stir.ear()];
        ears.extend(inward.iter().map(|edge| edge.line.ear()));
        let rung = poll(&ears, LONGEST_SLEEP);
        for place in (1..ears.len()).filter(|&place| rung[place]) {
            hear_bell(ears[place]);
        }
    }
}

impl State {
    fn begin(&mut self) -> (String, u32, usize) {
        self.at_work += 1;
        (self.method.clone(), self.number, self.outputs)
    }

    fn end(&mut self) {
        self.at_work -= 1;
        self.drop_outputs();
    }

    /// Let go of the outputs that were dropped, unless a run may still go there.
    fn drop_outputs(&mut self) {
        if self.at_work == 0 {
            self.outward.retain(|edge| !edge.is_leaving());
        }
    }

    fn newest(&self) -> Vec<Arc<Edge>> {
        let mut newest: HashMap<&str, &Arc<Edge>> = HashMap::new();
        for edge in &self.outward {
            let known = newest.entry(&edge.to).or_insert(edge);
            if known.region < edge.region {
                *known = edge;
            }
        }
        newest.into_values().cloned().collect()
    }

    /// Return the inputs in turn; let go of those that were dropped, and of parts that are too late.
    fn open(&mut self) -> Vec<Arc<Edge>> {
        let (leaving, kept): (Vec<_>, Vec<_>) =
            self.inward.drain(..).partition(|edge| edge.is_leaving());
        self.inward = kept;
        for edge in leaving {
            self.give_up(&edge);
            edge.hand_over();
        }
        if self.inward.len() > 1 {
            self.inward.rotate_left(1);
        }
        let late = self.gathered.iter().filter(|(_, run)| run.record.is_late());
        let late: Vec<u64> = late.map(|(&run, _)| run).collect();
        late.into_iter().for_each(|run| self.forget(run));
        self.inward.clone()
    }

    /// Keep a part of a run; return the run once it has them all.
    fn gather(&mut self, record: Record, edge: &Arc<Edge>, after: u64) -> Option<Run> {
        let (id, attempt, place) = (record.id, record.attempt, (Arc::downgrade(edge), after));
        if self.inputs <= 1 {
            return Some(Run {
                record,
                parts: Vec::new(),
                places: vec![place],
            });
        }
        let known = self.gathered.get(&id);
        let repeated = known.map_or(false, |run| {
            matches!(run.parts.get(edge.input), Some(Some(_)))
        });
        if repeated || edge.input >= self.inputs || self.finished.contains(&id) {
            edge.finish(after);
            return None;
        }
        let inputs = self.inputs;
        let data = record.data.clone();
        let run = self.gathered.entry(id).or_insert_with(|| Run {
            record,
            parts: vec![None; inputs],
            places: Vec::new(),
        });
        if edge.input >= run.parts.len() {
            run.parts.resize(inputs, None);
        }
        run.parts[edge.input] = Some(data);
        run.places.push(place);
        run.record.attempt = run.record.attempt.max(attempt);
        if run.parts.iter().any(|part| part.is_none()) {
            return None;
        }
        let mut run = self.gathered.remove(&id)?;
        self.remember(id);
        let parts: Vec<Vec<u8>> = run.parts.iter().flatten().cloned().collect();
        run.record.data = joined(&parts);
        Some(run)
    }

    fn remember(&mut self, run: u64) {
        if self.finished.insert(run) {
            self.order.push_back(run);
        }
        if self.order.len() > REMEMBERED {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.finished.remove(&oldest));
        }
    }

    fn forget(&mut self, run: u64) {
        if let Some(run) = self.gathered.remove(&run) {
            run.finish();
        }
    }

    /// Forget what came through an edge, unfinished: the region's next consumer is given it again.
    fn give_up(&mut self, gone: &Arc<Edge>) {
        let gone_edge = Arc::downgrade(gone);
        for run in self.gathered.values_mut() {
            let before = run.places.len();
            run.places.retain(|(edge, _)| !edge.ptr_eq(&gone_edge));
            if run.places.len() < before {
                run.parts[gone.input] = None;
            }
        }
        self.gathered.retain(|_, run| !run.places.is_empty());
    }
}
