// SPDX-License-Identifier: Apache-2.0
//! The ring in shared memory: one producer, one consumer, a checksum for each record.
//!
//! docs/ipc.md has the layout. Nothing that the other side wrote is trusted: it is
//! read once, checked, and payloads are checked in a copy.

use crate::crc::crc32;
use crate::Error;
use std::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub(crate) const PAGE: usize = 4096;
pub(crate) const LEADING_PAGES: usize = 3; // the header and two control blocks
const SMALLEST_RING: usize = 64 << 10;
const LARGEST_RING: usize = 1 << 30;
const LARGEST_PAYLOAD: usize = 16 << 20;
const HEAD: usize = 16;
const ALIGNMENT: u64 = 64;
const SKIP: u32 = u32::MAX;
const CLOSED_AT: usize = 12;
const PRODUCED: usize = 0;
const CONSUMED: usize = 128;
const PRODUCER_SLEEPS: usize = 256;
const CONSUMER_SLEEPS: usize = 384;
const AWAKE: u32 = 0;
const ON_FUTEX: u32 = 1;
const ON_DOORBELL: u32 = 2;
const SLOTS_AT: usize = 512;
const HANDED_OVER_AT: usize = 2560;
pub(crate) const SLOTS: usize = 256;

/// The two rings of a region.
#[derive(Clone, Copy, Debug)]
pub enum Direction {
    ToPeer = 0,
    FromPeer = 1,
}

/// What a record is, in its type word. Others are the users' own.
pub mod record_type {
    pub const USER: u32 = 0;
    pub const REQUEST: u32 = 1;
    pub const RESPONSE: u32 = 2;
    pub const PING: u32 = 3;
    pub const PONG: u32 = 4;
    pub const SHUTDOWN: u32 = 5;
    pub const CALL: u32 = 6;
    pub const OVER: u32 = 7;
}

/// What of the other side's writing can't be; the ring is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// `index`, `length`, `sequence` or `checksum`.
    pub fault: &'static str,
    /// What it had to be, or its bound.
    pub expected: u64,
    pub actual: u64,
}

/// What both ends have. It borrows nothing: whoever makes it keeps the region mapped.
struct End {
    control: *mut u8,
    data: *mut u8,
    closed: *const AtomicU32,
    size: u64,
    own: u64,   // this side's index
    other: u64, // the other side's, as last checked
    sequence: u32,
    damage: Option<Corrupt>,
    bell: i32, // the other side's eventfd or pipe, or -1
}

// SAFETY: an end is the only writer of what it writes; it may move to another thread.
unsafe impl Send for End {}

fn stride(length: usize) -> u64 {
    ((HEAD + length) as u64 + ALIGNMENT - 1) & !(ALIGNMENT - 1)
}

fn checksum(words: &[u32; 4], payload: &[u8]) -> u32 {
    let mut covered = [0; 12];
    for (place, word) in words[1..].iter().enumerate() {
        covered[place * 4..][..4].copy_from_slice(&word.to_ne_bytes());
    }
    crc32(crc32(0, &covered), payload)
}

impl End {
    /// # Safety
    /// `memory` is the start of `bytes` mapped bytes, aligned to a page, that outlive the end.
    unsafe fn new(
        memory: *mut u8,
        bytes: usize,
        direction: Direction,
        ring_bytes: usize,
        bell: i32,
    ) -> Result<End, Error> {
        let sized = (SMALLEST_RING..=LARGEST_RING).contains(&ring_bytes);
        if !sized || !ring_bytes.is_power_of_two() || bytes != LEADING_PAGES * PAGE + 2 * ring_bytes
        {
            return Err(Error::Region);
        }
        let side = direction as usize;
        Ok(End {
            control: memory.add(PAGE * (1 + side)),
            data: memory.add(LEADING_PAGES * PAGE + side * ring_bytes),
            closed: memory.add(CLOSED_AT).cast(),
            size: ring_bytes as u64,
            own: 0,
            other: 0,
            sequence: 0,
            damage: None,
            bell,
        })
    }

    fn index(&self, at: usize) -> &AtomicU64 {
        // SAFETY: within the control block, aligned; shared memory is only seen through atomics.
        unsafe { &*self.control.add(at).cast() }
    }

    fn bed(&self, at: usize) -> &AtomicU32 {
        // SAFETY: as index.
        unsafe { &*self.control.add(at).cast() }
    }

    fn damaged(&mut self, fault: &'static str, expected: u64, actual: u64) -> Error {
        let damage = Corrupt {
            fault,
            expected,
            actual,
        };
        self.damage = Some(damage);
        Error::Corrupt(damage)
    }

    fn largest(&self) -> usize {
        LARGEST_PAYLOAD.min(self.size as usize / 4)
    }

    fn place(&self) -> usize {
        (self.own & (self.size - 1)) as usize
    }

    fn left(&self) -> u64 {
        self.size - self.place() as u64
    }

    /// Store this side's index and wake the other side as it asked for, once.
    fn show(&self, index: usize, bed: usize, value: u64) {
        self.index(index).store(value, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.bed(bed).load(Ordering::Relaxed) == AWAKE {
            return;
        }
        let one = 1u64.to_ne_bytes();
        match self.bed(bed).swap(AWAKE, Ordering::SeqCst) {
            // SAFETY: the word lies in the mapped region.
            ON_FUTEX => unsafe {
                libc::syscall(libc::SYS_futex, self.bed(bed), libc::FUTEX_WAKE, 1);
            },
            // SAFETY: eight bytes are read. A bell that can't be written is full: it has rung.
            ON_DOORBELL if self.bell >= 0 => unsafe {
                libc::write(self.bell, one.as_ptr().cast(), one.len());
            },
            _ => {}
        }
    }

    /// Say how this side sleeps. Look once more before sleeping.
    fn lie_down(&self, bed: usize, how: u32) {
        self.bed(bed).store(how, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn looked(&self, bed: usize, result: Result<(), Error>) -> Result<(), Error> {
        if result.is_ok() {
            self.bed(bed).store(AWAKE, Ordering::Relaxed);
        }
        // SAFETY: the header outlives the end.
        let closed = unsafe { (*self.closed).load(Ordering::Acquire) } != 0;
        match result {
            Err(Error::Full | Error::Empty) if closed => Err(Error::PeerGone),
            _ => result,
        }
    }
}

/// The end that puts records in.
pub struct Producer(End);

impl Producer {
    /// Return the producer of a ring; `bell` is the consumer's eventfd or pipe, or -1.
    ///
    /// # Safety
    /// `memory` is the start of `bytes` mapped bytes, aligned to a page, that outlive the producer,
    /// and no other producer of this ring lives.
    pub unsafe fn new(
        memory: *mut u8,
        bytes: usize,
        direction: Direction,
        ring_bytes: usize,
        bell: i32,
    ) -> Result<Producer, Error> {
        End::new(memory, bytes, direction, ring_bytes, bell).map(Producer)
    }

    /// The most bytes that a record carries.
    pub fn largest(&self) -> usize {
        self.0.largest()
    }

    /// Put a record in: `Full`, `TooLarge` or `Corrupt`.
    pub fn publish(&mut self, payload: &[u8], kind: u32) -> Result<(), Error> {
        self.room(payload.len())?;
        let skipped = self.skipped(payload.len());
        if skipped != 0 {
            self.write(SKIP, 0, &[]);
            self.0.own += skipped;
        }
        self.write(payload.len() as u32, kind, payload);
        self.0.own += stride(payload.len());
        self.0.show(PRODUCED, CONSUMER_SLEEPS, self.0.own);
        Ok(())
    }

    /// Ask for the doorbell once there is room for a payload; `Full`: there is none, sleep.
    pub fn doze(&mut self, length: usize) -> Result<(), Error> {
        self.0.lie_down(PRODUCER_SLEEPS, ON_DOORBELL);
        let result = self.room(length);
        self.0.looked(PRODUCER_SLEEPS, result)
    }

    /// Sleep on a futex until there may be room for a payload, at most so long: `Full`, there is none.
    pub(crate) fn wait(&mut self, length: usize, limit: Duration) -> Result<(), Error> {
        self.0.lie_down(PRODUCER_SLEEPS, ON_FUTEX);
        let result = self.room(length);
        let looked = self.0.looked(PRODUCER_SLEEPS, result);
        if matches!(looked, Err(Error::Full)) {
            let limit = libc::timespec {
                tv_sec: limit.as_secs() as _,
                tv_nsec: limit.subsec_nanos() as _,
            };
            let bed = self.0.bed(PRODUCER_SLEEPS);
            // SAFETY: the word lies in the mapped region; the time lives while the call runs.
            unsafe {
                libc::syscall(libc::SYS_futex, bed, libc::FUTEX_WAIT, ON_FUTEX, &limit);
            }
            bed.store(AWAKE, Ordering::Relaxed);
            return self.room(length);
        }
        looked
    }

    fn room(&mut self, length: usize) -> Result<(), Error> {
        if let Some(damage) = self.0.damage {
            return Err(Error::Corrupt(damage));
        }
        if length == 0 || length > self.0.largest() {
            return Err(Error::TooLarge);
        }
        if self.fits(length) {
            return Ok(());
        }
        let consumed = self.0.index(CONSUMED).load(Ordering::Acquire);
        if consumed.wrapping_sub(self.0.other) > self.0.own - self.0.other
            || consumed % ALIGNMENT != 0
        {
            return Err(self.0.damaged("index", self.0.other, consumed));
        }
        self.0.other = consumed;
        if self.fits(length) {
            Ok(())
        } else {
            Err(Error::Full)
        }
    }

    fn fits(&self, length: usize) -> bool {
        self.0.own + stride(length) + self.skipped(length) - self.0.other <= self.0.size
    }

    fn skipped(&self, length: usize) -> u64 {
        let left = self.0.left();
        if stride(length) > left {
            left
        } else {
            0
        }
    }

    /// Write a record, or a skip, at this side's index; the index stays.
    fn write(&mut self, length: u32, kind: u32, payload: &[u8]) {
        let mut words = [0, length, kind, self.0.sequence];
        words[0] = checksum(&words, payload);
        self.0.sequence = self.0.sequence.wrapping_add(1);
        // SAFETY: room() has found that head and payload end before the data area does.
        unsafe {
            let head = self.0.data.add(self.0.place());
            head.cast::<[u32; 4]>().write(words);
            std::ptr::copy_nonoverlapping(payload.as_ptr(), head.add(HEAD), payload.len());
        }
    }
}

/// The end that takes records out.
pub struct Consumer {
    end: End,
    released: u64, // the index that the producer was told
    adopts: bool,  // the next record's sequence is taken as it is
}

impl Consumer {
    /// Return the consumer of a ring; `bell` is the producer's eventfd or pipe, or -1.
    ///
    /// # Safety
    /// As for [`Producer::new`].
    pub unsafe fn new(
        memory: *mut u8,
        bytes: usize,
        direction: Direction,
        ring_bytes: usize,
        bell: i32,
    ) -> Result<Consumer, Error> {
        End::new(memory, bytes, direction, ring_bytes, bell).map(|end| Consumer {
            end,
            released: 0,
            adopts: false,
        })
    }

    /// Take a record out, its payload copied, then checked: `Empty` or `Corrupt`.
    pub fn receive(&mut self) -> Result<(u32, Vec<u8>), Error> {
        let record = self.take()?;
        self.release(self.end.own);
        Ok(record)
    }

    /// Go on where the consumer before stopped: `Corrupt` when that can't be.
    pub fn resume(&mut self) -> Result<(), Error> {
        let consumed = self.end.index(CONSUMED).load(Ordering::Acquire);
        let produced = self.end.index(PRODUCED).load(Ordering::Acquire);
        let aligned = consumed % ALIGNMENT == 0 && produced % ALIGNMENT == 0;
        if !aligned || consumed > produced || produced - consumed > self.end.size {
            return Err(self.end.damaged("index", produced, consumed));
        }
        self.end.own = consumed;
        self.end.other = consumed;
        self.released = consumed;
        self.end
            .bed(CONSUMER_SLEEPS)
            .store(AWAKE, Ordering::Relaxed);
        self.adopts = true;
        Ok(())
    }

    /// Give the room of all records before an index back.
    pub fn release(&mut self, index: u64) {
        self.released = index;
        self.end.show(CONSUMED, PRODUCER_SLEEPS, index);
    }

    /// The index after the last record that was taken.
    pub fn taken(&self) -> u64 {
        self.end.own
    }

    /// Note a run as being at work here, for whoever looks after this process died; `None` when all
    /// slots are in use. Only this side writes them.
    pub(crate) fn claim(&mut self, run: u64) -> Option<usize> {
        let slot = |slot: usize| self.end.index(SLOTS_AT + 8 * slot);
        let free = (0..SLOTS).find(|&each| slot(each).load(Ordering::Relaxed) == 0)?;
        slot(free).store(run, Ordering::Release);
        Some(free)
    }

    /// Empty a slot.
    pub(crate) fn free(&mut self, slot: usize) {
        let word = self.end.index(SLOTS_AT + 8 * slot);
        word.store(0, Ordering::Release);
    }

    /// Say that this consumer takes no more and has finished what it took.
    pub(crate) fn hand_over(&mut self, generation: u64) {
        let word = self.end.index(HANDED_OVER_AT);
        word.store(generation, Ordering::Release);
    }

    /// `receive`, but the record's room stays the consumer's until `release`.
    pub fn take(&mut self) -> Result<(u32, Vec<u8>), Error> {
        loop {
            self.ready()?;
            let words = self.read_head();
            let step = self.check_head(&words)?;
            let payload = self.copy(&words);
            let actual = checksum(&words, &payload);
            if actual != words[0] {
                return Err(self.end.damaged("checksum", words[0].into(), actual.into()));
            }
            self.end.own += step;
            self.end.sequence = self.end.sequence.wrapping_add(1);
            if words[1] != SKIP {
                return Ok((words[2], payload));
            }
        }
    }

    /// Ask for the doorbell at the next record; `Empty`: there is none, sleep.
    pub fn doze(&mut self) -> Result<(), Error> {
        self.end.lie_down(CONSUMER_SLEEPS, ON_DOORBELL);
        let result = self.ready();
        self.end.looked(CONSUMER_SLEEPS, result)
    }

    fn ready(&mut self) -> Result<(), Error> {
        if let Some(damage) = self.end.damage {
            return Err(Error::Corrupt(damage));
        }
        if self.end.own != self.end.other {
            return Ok(());
        }
        let produced = self.end.index(PRODUCED).load(Ordering::Acquire);
        if produced.wrapping_sub(self.end.own) > self.end.size - (self.end.own - self.released)
            || produced % ALIGNMENT != 0
        {
            return Err(self.end.damaged("index", self.end.other, produced));
        }
        self.end.other = produced;
        if self.end.own == produced {
            Err(Error::Empty)
        } else {
            Ok(())
        }
    }

    /// Read the next record's words, each once.
    fn read_head(&self) -> [u32; 4] {
        // SAFETY: records begin at multiples of 64 within the data area.
        let head = unsafe { &*self.end.data.add(self.end.place()).cast::<[AtomicU32; 4]>() };
        [0, 1, 2, 3].map(|word: usize| head[word].load(Ordering::Relaxed))
    }

    /// Return the bytes from this record to the next.
    fn check_head(&mut self, words: &[u32; 4]) -> Result<u64, Error> {
        let (there, left) = (self.end.other - self.end.own, self.end.left());
        let (length, largest) = (words[1] as usize, self.end.largest());
        let step = if words[1] == SKIP {
            left
        } else {
            stride(length)
        };
        if words[1] != SKIP && (length == 0 || length > largest || step > left) {
            return Err(self.end.damaged("length", largest as u64, length as u64));
        }
        if step > there {
            return Err(self.end.damaged("length", there, step));
        }
        if std::mem::take(&mut self.adopts) {
            self.end.sequence = words[3];
        }
        if words[3] != self.end.sequence {
            return Err(self
                .end
                .damaged("sequence", self.end.sequence.into(), words[3].into()));
        }
        Ok(step)
    }

    fn copy(&self, words: &[u32; 4]) -> Vec<u8> {
        let length = if words[1] == SKIP {
            0
        } else {
            words[1] as usize
        };
        let mut payload = Vec::with_capacity(length);
        // SAFETY: check_head has found that the payload ends before the data area does; the copy
        // is what is checked, whatever the other side writes meanwhile.
        unsafe {
            let source = self.end.data.add(self.end.place() + HEAD);
            std::ptr::copy_nonoverlapping(source, payload.as_mut_ptr(), length);
            payload.set_len(length);
        }
        payload
    }
}
