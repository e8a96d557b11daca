// SPDX-License-Identifier: Apache-2.0
//! A mapped region with the ends that this process has of its rings.

use crate::ring::{Consumer, Direction, Producer, LEADING_PAGES, PAGE};
use crate::side::{done, Message};
use crate::Error;
use std::mem;
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const VERSION: u32 = 1;
const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
const LARGEST_RING: usize = 1 << 30;
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(1);
// How often a producer that waits for room looks whether its line is of use.
const ROOM_SLICE: Duration = Duration::from_millis(20);

/// A mapped region; unmapped when dropped.
struct Mapping {
    memory: *mut u8,
    bytes: usize,
}

// SAFETY: the mapping belongs to whoever owns this, and is only touched through its ends.
unsafe impl Send for Mapping {}
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is what mmap returned; the ends are dropped before it.
        unsafe { libc::munmap(self.memory.cast(), self.bytes) };
    }
}

/// Which ends of which rings a process has.
pub(crate) enum Role {
    Peer,
    EdgeProducer,
    EdgeConsumer,
}

/// What can't go on; whoever waits is woken.
pub(crate) struct Ending {
    has: AtomicBool,
    bell: OwnedFd,
}

impl Ending {
    pub(crate) fn new() -> Result<Ending, Error> {
        // SAFETY: the descriptor is new, and owned from now on.
        let bell = unsafe {
            let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
            OwnedFd::from_raw_fd(done(libc::eventfd(0, flags))?)
        };
        let has = AtomicBool::new(false);
        Ok(Ending { has, bell })
    }

    pub(crate) fn end(&self) {
        self.has.store(true, Ordering::Release);
        ring(&self.bell);
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.has.load(Ordering::Acquire) {
            true => Err(Error::PeerGone),
            false => Ok(()),
        }
    }

    pub(crate) fn ear(&self) -> i32 {
        self.bell.as_raw_fd()
    }
}

/// Write the number 1 to an eventfd; one that is full has been rung.
pub(crate) fn ring(bell: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight bytes are read.
    unsafe { libc::write(bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Wait until one of some descriptors is ready; say which are.
pub(crate) fn poll(descriptors: &[i32], limit: Duration) -> Vec<bool> {
    let mut ears: Vec<libc::pollfd> = descriptors
        .iter()
        .map(|&fd| libc::pollfd {
            fd,
            events: libc::POLLIN | libc::POLLRDHUP,
            revents: 0,
        })
        .collect();
    let milliseconds = (limit.min(LONGEST_SLEEP).as_micros() + 999) / 1000;
    // SAFETY: the array lives while the call runs.
    unsafe { libc::poll(ears.as_mut_ptr(), ears.len() as _, milliseconds as i32) };
    ears.iter().map(|ear| ear.revents != 0).collect()
}

/// Read an eventfd, which does not block: when somebody else has read it, there is nothing to do.
pub(crate) fn hear_bell(bell: i32) {
    let mut number = [0u8; 8];
    // SAFETY: the buffer lives while the call runs.
    unsafe { libc::read(bell, number.as_mut_ptr().cast(), number.len()) };
}

/// Lock what no panic can leave half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Line {
    // Ends first: fields are dropped in this order, and the ends point into the mapping.
    consumer: Option<Mutex<Consumer>>,
    producer: Option<Mutex<Producer>>,
    _mapping: Mapping,
    _region: OwnedFd,
    wake: OwnedFd,
    _bell: OwnedFd,
    /// The most bytes that a record carries.
    pub(crate) largest: usize,
}

impl Line {
    /// Check and map what came with a message.
    pub(crate) fn new(said: &mut Message, role: Role) -> Result<Line, Error> {
        let handed: [OwnedFd; 3] = mem::take(&mut said.descriptors)
            .try_into()
            .map_err(|_| Error::Region)?;
        let [region, wake, bell] = handed;
        let ring_bytes = said.number("ring_bytes") as usize;
        let mapping = map(&region, ring_bytes)?;
        check_header(&mapping, ring_bytes)?;
        let (memory, bytes, bell_number) = (mapping.memory, mapping.bytes, bell.as_raw_fd());
        let (reads, writes) = match role {
            Role::Peer => (true, Some(Direction::FromPeer)),
            Role::EdgeProducer => (false, Some(Direction::ToPeer)),
            Role::EdgeConsumer => (true, None),
        };
        // SAFETY: the mapping outlives the ends (field order), and these are its only ones.
        let (consumer, producer) = unsafe {
            let direction = Direction::ToPeer;
            let consumer = Consumer::new(memory, bytes, direction, ring_bytes, bell_number)?;
            let direction = writes.unwrap_or(Direction::FromPeer);
            let producer = Producer::new(memory, bytes, direction, ring_bytes, bell_number)?;
            (consumer, producer)
        };
        Ok(Line {
            largest: producer.largest(),
            consumer: Some(Mutex::new(consumer)).filter(|_| reads),
            producer: Some(Mutex::new(producer)).filter(|_| writes.is_some()),
            _mapping: mapping,
            _region: region,
            wake,
            _bell: bell,
        })
    }

    /// The descriptor that the other side rings.
    pub(crate) fn ear(&self) -> i32 {
        self.wake.as_raw_fd()
    }

    pub(crate) fn consumer(&self) -> MutexGuard<'_, Consumer> {
        lock(self.consumer.as_ref().expect("this side consumes"))
    }

    /// Put a record in; waits for room, one thread after another.
    pub(crate) fn publish(
        &self,
        payload: &[u8],
        kind: u32,
        until: Option<Instant>,
        ending: &Ending,
    ) -> Result<(), Error> {
        let mut producer = lock(self.producer.as_ref().expect("this side produces"));
        loop {
            ending.check()?;
            match producer.publish(payload, kind) {
                Err(Error::Full) => {}
                result => return result,
            }
            let left = left_until(until)?;
            match producer.wait(payload.len(), left.min(ROOM_SLICE)) {
                Ok(()) | Err(Error::Full) => {}
                result => return result,
            }
        }
    }

    /// Return the next record, or `Empty` after a wait for the bell or another descriptor.
    /// `TimedOut`, `PeerGone`, `Corrupt`.
    pub(crate) fn receive_once(
        &self,
        until: Option<Instant>,
        others: &[i32],
    ) -> Result<(u32, Vec<u8>), Error> {
        match receive_or_doze(&mut self.consumer()) {
            Err(Error::Empty) => {}
            result => return result,
        }
        let ears = [&[self.ear()], others].concat();
        if poll(&ears, left_until(until)?)[0] {
            hear_bell(self.ear());
        }
        Err(Error::Empty)
    }
}

/// Receive a record; when there is none, the bell will ring for the next.
fn receive_or_doze(consumer: &mut Consumer) -> Result<(u32, Vec<u8>), Error> {
    match consumer.receive() {
        Err(Error::Empty) => consumer.doze().and_then(|()| consumer.receive()),
        result => result,
    }
}

/// Return the time that is left, `TimedOut` when none is.
pub(crate) fn left_until(until: Option<Instant>) -> Result<Duration, Error> {
    let left = match until {
        Some(until) => until.saturating_duration_since(Instant::now()),
        None => LONGEST_SLEEP,
    };
    match left.is_zero() {
        true => Err(Error::TimedOut),
        false => Ok(left),
    }
}

/// Map a region that is sealed, so that it can't lose its pages, and of its size.
fn map(region: &OwnedFd, ring_bytes: usize) -> Result<Mapping, Error> {
    let descriptor = region.as_raw_fd();
    // SAFETY: stat is plain data; mmap chooses the address.
    unsafe {
        let seals = libc::fcntl(descriptor, libc::F_GET_SEALS);
        let mut about: libc::stat = mem::zeroed();
        done(libc::fstat(descriptor, &mut about))?;
        let bytes = about.st_size as usize;
        if seals < 0
            || seals & SEALS != SEALS
            || ring_bytes > LARGEST_RING
            || bytes != LEADING_PAGES * PAGE + 2 * ring_bytes
        {
            return Err(Error::Region);
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let shared = libc::MAP_SHARED;
        let memory = libc::mmap(ptr::null_mut(), bytes, access, shared, descriptor, 0);
        if memory == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        let memory = memory.cast();
        Ok(Mapping { memory, bytes })
    }
}

fn check_header(mapping: &Mapping, ring_bytes: usize) -> Result<(), Error> {
    let mut header = [0u8; 40];
    // SAFETY: a mapped region has a header page.
    unsafe { ptr::copy_nonoverlapping(mapping.memory, header.as_mut_ptr(), header.len()) };
    let number = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().expect("eight"));
    let version = u32::from_ne_bytes(header[8..12].try_into().expect("four bytes"));
    let sized = number(16) == mapping.bytes as u64 && number(24) == ring_bytes as u64;
    if &header[..8] != b"AETHRING" || version != VERSION || !sized {
        return Err(Error::Region);
    }
    Ok(())
}
