// SPDX-License-Identifier: Apache-2.0
//! The side socket: what the service says, with descriptors; the peer says nothing.

use crate::Error;
use std::ffi::{CString, OsStr};
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

const LONGEST_MESSAGE: usize = 1024;
const ANSWER_TIMEOUT_S: i64 = 5;

/// A word, fields and descriptors. Those that nobody takes are closed with it.
pub(crate) struct Message {
    text: String,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Message {
    pub(crate) fn word(&self) -> &str {
        self.text.split(' ').next().unwrap_or("")
    }

    /// A field's value, or nothing.
    pub(crate) fn field(&self, name: &str) -> &str {
        let mut fields = self.text.split(' ').skip(1);
        fields
            .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or("")
    }

    /// A field's number; 0 when it has none.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap_or(0)
    }
}

pub(crate) fn connect(path: &OsStr) -> Result<OwnedFd, Error> {
    let bytes = CString::new(path.as_bytes()).map_err(|_| Error::NoChannel)?;
    let bytes = bytes.as_bytes_with_nul();
    // SAFETY: sockaddr_un is plain data; all that the kernel reads is initialised.
    unsafe {
        let mut address: libc::sockaddr_un = mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        if bytes.len() > address.sun_path.len() {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG).into());
        }
        let target = address.sun_path.as_mut_ptr().cast();
        ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
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
        let address = ptr::addr_of!(address).cast();
        done(libc::connect(control.as_raw_fd(), address, length))?;
        Ok(control)
    }
}

/// Receive what the service says, waiting a few seconds for it. ECONNRESET is its end.
pub(crate) fn hear(control: &OwnedFd) -> Result<Message, Error> {
    receive(control, 0)
}

/// Receive what has come; `None` when nothing has.
pub(crate) fn hear_now(control: &OwnedFd) -> Result<Option<Message>, Error> {
    match receive(control, libc::MSG_DONTWAIT) {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

fn receive(control: &OwnedFd, flags: i32) -> Result<Message, Error> {
    let mut said = [0u8; LONGEST_MESSAGE];
    let mut ancillary = [0u64; 8]; // room for three descriptors, aligned
    let mut part = libc::iovec {
        iov_base: said.as_mut_ptr().cast(),
        iov_len: said.len(),
    };
    // SAFETY: the buffers live while the message is used; each descriptor is taken once.
    let (length, descriptors) = unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = ancillary.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&ancillary) as _;
        let length = loop {
            let flags = flags | libc::MSG_CMSG_CLOEXEC;
            match done(libc::recvmsg(control.as_raw_fd(), &mut message, flags) as i32) {
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        (length as usize, descriptors_of(&message))
    };
    if length == 0 {
        return Err(io::Error::from_raw_os_error(libc::ECONNRESET).into());
    }
    let text = String::from_utf8_lossy(&said[..length]).into_owned();
    Ok(Message { text, descriptors })
}

/// # Safety
/// The message was received, and its descriptors were not taken before.
unsafe fn descriptors_of(message: &libc::msghdr) -> Vec<OwnedFd> {
    let first = libc::CMSG_FIRSTHDR(message);
    if first.is_null() || (*first).cmsg_type != libc::SCM_RIGHTS {
        return Vec::new();
    }
    let bytes = (*first).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
    let numbers = libc::CMSG_DATA(first).cast::<i32>();
    (0..bytes / mem::size_of::<i32>())
        .map(|place| OwnedFd::from_raw_fd(numbers.add(place).read_unaligned()))
        .collect()
}

pub(crate) fn done(result: i32) -> Result<i32, Error> {
    if result < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(result)
}
