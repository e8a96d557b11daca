// SPDX-License-Identifier: Apache-2.0
//! Attaching to a channel, and records through it until the service ends it.

use crate::ring::{Consumer, Direction, Producer, LEADING_PAGES, PAGE};
use crate::Error;
use std::ffi::{CString, OsStr};
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

const ENVIRONMENT: &str = "AETHER_CHANNEL";
const VERSION: u32 = 1;
const LONGEST_ANSWER: usize = 512;
const ANSWER_TIMEOUT_S: i64 = 5;
const DESCRIPTORS: usize = 3;
const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// A mapped region; unmapped when dropped.
struct Mapping {
    memory: *mut u8,
    bytes: usize,
}

// SAFETY: the mapping belongs to whoever owns this.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is what mmap returned; the ends are dropped before it.
        unsafe { libc::munmap(self.memory.cast(), self.bytes) };
    }
}

/// One attachment. All of it is given back when it is dropped.
pub struct Channel {
    // Ends first: fields are dropped in this order, and the ends point into the mapping.
    consumer: Consumer,
    producer: Producer,
    _mapping: Mapping,
    _region: OwnedFd,
    wake: OwnedFd,
    _bell: OwnedFd,
    control: OwnedFd,
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
        let (said, descriptors) = hear(&control)?;
        if let Some(reason) = said.strip_prefix("error reason=") {
            return Err(Error::Refused(reason.to_owned()));
        }
        let handed: [OwnedFd; DESCRIPTORS] = descriptors.try_into().map_err(|_| Error::Region)?;
        Channel::over(control, handed, &said)
    }

    /// Check and map what was handed out.
    fn over(control: OwnedFd, handed: [OwnedFd; 3], said: &str) -> Result<Channel, Error> {
        let [region, wake, bell] = handed;
        let ring_bytes = field(said, "ring_bytes=").ok_or(Error::Region)? as usize;
        let mapping = map(&region, ring_bytes)?;
        let (memory, bytes) = (mapping.memory, mapping.bytes);
        // SAFETY: the mapping outlives the ends (field order), and these are its only ones.
        let (consumer, producer) = unsafe {
            let bell = bell.as_raw_fd();
            (
                Consumer::new(memory, bytes, Direction::ToPeer, ring_bytes, bell)?,
                Producer::new(memory, bytes, Direction::FromPeer, ring_bytes, bell)?,
            )
        };
        let generation = check_header(&mapping, ring_bytes)?;
        Ok(Channel {
            consumer,
            producer,
            _mapping: mapping,
            _region: region,
            wake,
            _bell: bell,
            control,
            generation,
        })
    }

    /// The most bytes that a record carries.
    pub fn largest(&self) -> usize {
        self.producer.largest()
    }

    /// Return the next record's type and payload; waits for one.
    ///
    /// # Errors
    /// `TimedOut` at the given time, `PeerGone`, `Corrupt`.
    pub fn receive(&mut self, until: Option<Instant>) -> Result<(u32, Vec<u8>), Error> {
        loop {
            match self.consumer.receive() {
                Err(Error::Empty) => {}
                result => return result,
            }
            match self.consumer.doze() {
                Err(Error::Empty) => self.sleep(until)?,
                result => result?,
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
            match self.producer.publish(payload, kind) {
                Err(Error::Full) => {}
                result => return result,
            }
            match self.producer.doze(payload.len()) {
                Err(Error::Full) => self.sleep(until)?,
                result => result?,
            }
        }
    }

    /// Sleep for a while, until the bell, the service's end or a time.
    fn sleep(&self, until: Option<Instant>) -> Result<(), Error> {
        let left = match until {
            Some(until) => until.saturating_duration_since(Instant::now()),
            None => LONGEST_SLEEP,
        };
        if left.is_zero() {
            return Err(Error::TimedOut);
        }
        let milliseconds = (left.min(LONGEST_SLEEP).as_micros() + 999) / 1000;
        let ear = |descriptor: &OwnedFd| libc::pollfd {
            fd: descriptor.as_raw_fd(),
            events: libc::POLLIN | libc::POLLRDHUP,
            revents: 0,
        };
        let mut ears = [ear(&self.wake), ear(&self.control)];
        let mut number = [0u8; 8];
        // SAFETY: both arrays live while the calls run. The wake does not block: when somebody else
        // has read it, there is nothing to do.
        unsafe {
            libc::poll(ears.as_mut_ptr(), 2, milliseconds as i32);
            if ears[0].revents != 0 {
                libc::read(ears[0].fd, number.as_mut_ptr().cast(), number.len());
            }
        }
        if ears[1].revents != 0 {
            return Err(Error::PeerGone);
        }
        Ok(())
    }
}

fn connect(path: &OsStr) -> Result<OwnedFd, Error> {
    let bytes = CString::new(path.as_bytes()).map_err(|_| Error::NoChannel)?;
    let bytes = bytes.as_bytes_with_nul();
    // SAFETY: sockaddr_un is plain data; all that the kernel reads is initialised.
    unsafe {
        let mut address: libc::sockaddr_un = mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        if bytes.len() > address.sun_path.len() {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG).into());
        }
        ptr::copy_nonoverlapping(
            bytes.as_ptr(),
            address.sun_path.as_mut_ptr().cast(),
            bytes.len(),
        );
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        let control = OwnedFd::from_raw_fd(done(libc::socket(libc::AF_UNIX, kind, 0))?);
        let limit = libc::timeval {
            tv_sec: ANSWER_TIMEOUT_S as _,
            tv_usec: 0,
        };
        done(libc::setsockopt(
            control.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            ptr::addr_of!(limit).cast(),
            mem::size_of_val(&limit) as u32,
        ))?;
        let length = mem::size_of_val(&address) as u32;
        done(libc::connect(
            control.as_raw_fd(),
            ptr::addr_of!(address).cast(),
            length,
        ))?;
        Ok(control)
    }
}

/// Receive what the service says, and the descriptors that come with it.
fn hear(control: &OwnedFd) -> Result<(String, Vec<OwnedFd>), Error> {
    let mut said = [0u8; LONGEST_ANSWER];
    let mut ancillary = [0u64; 8]; // room for three descriptors, aligned
    let mut part = libc::iovec {
        iov_base: said.as_mut_ptr().cast(),
        iov_len: said.len(),
    };
    let mut descriptors = Vec::new();
    // SAFETY: the buffers live while the message is used; each descriptor is taken once.
    let length = unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = ancillary.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&ancillary) as _;
        let flags = libc::MSG_CMSG_CLOEXEC;
        let length = done(libc::recvmsg(control.as_raw_fd(), &mut message, flags) as i32)?;
        let first = libc::CMSG_FIRSTHDR(&message);
        if !first.is_null() && (*first).cmsg_type == libc::SCM_RIGHTS {
            let bytes = (*first).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            let numbers = libc::CMSG_DATA(first).cast::<i32>();
            for place in 0..bytes / mem::size_of::<i32>() {
                descriptors.push(OwnedFd::from_raw_fd(numbers.add(place).read_unaligned()));
            }
        }
        length as usize
    };
    if length == 0 {
        return Err(io::Error::from_raw_os_error(libc::ECONNRESET).into());
    }
    Ok((
        String::from_utf8_lossy(&said[..length]).into_owned(),
        descriptors,
    ))
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
        let expected = ring_bytes
            .checked_mul(2)
            .map(|both| both + LEADING_PAGES * PAGE);
        if seals < 0 || seals & SEALS != SEALS || Some(bytes) != expected {
            return Err(Error::Region);
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let memory = libc::mmap(
            ptr::null_mut(),
            bytes,
            access,
            libc::MAP_SHARED,
            descriptor,
            0,
        );
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        Ok(Mapping {
            memory: memory.cast(),
            bytes,
        })
    }
}

/// Return the generation that a region's header has.
fn check_header(mapping: &Mapping, ring_bytes: usize) -> Result<u64, Error> {
    let mut header = [0u8; 40];
    // SAFETY: a mapped region has a header page.
    unsafe { ptr::copy_nonoverlapping(mapping.memory, header.as_mut_ptr(), header.len()) };
    let number = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().expect("eight"));
    let version = u32::from_ne_bytes(header[8..12].try_into().expect("four bytes"));
    let sized = number(16) == mapping.bytes as u64 && number(24) == ring_bytes as u64;
    if &header[..8] != b"AETHRING" || version != VERSION || !sized {
        return Err(Error::Region);
    }
    Ok(number(32))
}

/// Return the number that follows a name in the service's answer.
fn field(said: &str, name: &str) -> Option<u64> {
    said.split(' ')
        .find_map(|word| word.strip_prefix(name))?
        .parse()
        .ok()
}

fn done(result: i32) -> Result<i32, Error> {
    if result < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(result)
}
