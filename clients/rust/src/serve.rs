// SPDX-License-Identifier: Apache-2.0
//! The serve loop: attach, answer each request once, attach anew when the service let go.

use crate::call::Caller;
use crate::line::lock;
use crate::request::{status, Record, Request};
use crate::session::{outcome, Place, Session, Want};
use crate::stage::Stage;
use crate::Error;
use std::ffi::OsStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{scope, sleep, Scope};
use std::time::Duration;

const RETRY: Duration = Duration::from_millis(1);
const RETRY_ATTACHED: Duration = Duration::from_millis(50);

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
pub fn serve<F>(handler: F) -> Error
where
    F: Fn(&[u8]) -> Result<Vec<u8>, Failure> + Sync,
{
    serve_requests(None, 1, |request| handler(request.data))
}

/// Answer a channel's calls, so many at once, and run the stages that the function is of pipelines,
/// each in a thread of its own. Attaches anew whenever the service let go.
///
/// Returns `NoChannel`, `Region`, `Refused` or an `Io` of the kernel's. A panic of the handler is
/// the answer "failed".
pub fn serve_requests<F>(path: Option<&OsStr>, threads: usize, handler: F) -> Error
where
    F: Fn(&Request) -> Result<Vec<u8>, Failure> + Sync,
{
    let (newest, handler) = (&Newest::default(), &handler);
    scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(move || {
                let mut last = 0;
                while let Some(session) = newest.after(&mut last) {
                    work(scope, &session, handler);
                }
            });
        }
        let error = attach_again(scope, path, newest, handler);
        newest.set(None, true);
        error
    })
}

/// The newest attachment, for the threads that work for it.
#[derive(Default)]
struct Newest {
    session: Mutex<(u64, Option<Weak<Session>>, bool)>, // its number; whether there is no other
    changed: Condvar,
}

impl Newest {
    fn set(&self, session: Option<Weak<Session>>, is_last: bool) {
        let mut newest = lock(&self.session);
        *newest = (newest.0 + 1, session, is_last);
        self.changed.notify_all();
    }

    /// Wait for the one after one's last; `None` when there will be none.
    fn after(&self, last: &mut u64) -> Option<Weak<Session>> {
        let newest = lock(&self.session);
        let old = |newest: &mut (u64, Option<Weak<Session>>, bool)| newest.0 == *last;
        let waited = self.changed.wait_while(newest, old);
        let newest = waited.unwrap_or_else(PoisonError::into_inner);
        *last = newest.0;
        newest.1.clone().filter(|_| !newest.2)
    }
}

/// Attach, and hear the side socket, again and again; returns what another try can't help.
fn attach_again<'scope, F>(
    scope: &'scope Scope<'scope, '_>,
    path: Option<&OsStr>,
    newest: &Newest,
    handler: &'scope F,
) -> Error
where
    F: Fn(&Request) -> Result<Vec<u8>, Failure> + Sync,
{
    loop {
        match Session::attach(path) {
            Ok(session) => {
                newest.set(Some(Arc::downgrade(&session)), false);
                Caller::set_current(Some(Caller::of(&session)));
                while session.hear(&start(scope, &session, handler)).is_ok() {
                    session.await_word();
                }
                Caller::set_current(None);
                session.close_stages();
            }
            Err(error) => match pause_after(&error) {
                Some(pause) => sleep(pause),
                None => return error,
            },
        }
    }
}

/// Return what runs a stage that has begun.
fn start<'scope, F>(
    scope: &'scope Scope<'scope, '_>,
    session: &Arc<Session>,
    handler: &'scope F,
) -> Box<dyn Fn(Arc<Stage>) + 'scope>
where
    F: Fn(&Request) -> Result<Vec<u8>, Failure> + Sync,
{
    let session = Arc::downgrade(session);
    Box::new(move |stage| {
        let session = session.clone();
        scope.spawn(move || stage.run(&session, handler));
    })
}

/// Answer requests until the attachment ends.
fn work<'scope, F>(scope: &'scope Scope<'scope, '_>, session: &Weak<Session>, handler: &'scope F)
where
    F: Fn(&Request) -> Result<Vec<u8>, Failure> + Sync,
{
    while let Some(attached) = session.upgrade() {
        let got = match attached.attend(Want::Request, None) {
            Ok(got) => got.request.unwrap_or_default(),
            Err(error) => {
                if let Error::Corrupt(damage) = error {
                    eprintln!("aetherless: attaching anew: {:?}", damage);
                }
                attached.end();
                return;
            }
        };
        let result = answer(scope, attached, &got, handler);
        if let Some(attached) = session.upgrade() {
            attached.leave();
            if matches!(result, Err(Error::Corrupt(_))) {
                attached.end();
            }
        }
    }
}

/// Answer one request. The attachment is let go of while the handler runs.
fn answer<'scope, F>(
    scope: &'scope Scope<'scope, '_>,
    attached: Arc<Session>,
    record: &Record,
    handler: &'scope F,
) -> Result<(), Error>
where
    F: Fn(&Request) -> Result<Vec<u8>, Failure> + Sync,
{
    let session = Arc::downgrade(&attached);
    if record.method.contains('/') {
        let stage = attached.stage_of(&record.method, &start(scope, &attached, handler))?;
        return match stage {
            None => attached.publish(record, status::NO_METHOD, b"", 0),
            Some(stage) => {
                drop(attached);
                stage.execute(&session, record, &[], true, handler)
            }
        };
    }
    drop(attached);
    let (place, caller) = (Place::default(), Caller::weak(session.clone()));
    let (answered, data) = outcome(record, &record.method, &place, &caller, handler);
    let attached = session.upgrade().ok_or(Error::PeerGone)?;
    attached.publish(record, answered, &data, 0)
}

/// Say when attaching is worth another try; `None` when it never is.
fn pause_after(error: &Error) -> Option<Duration> {
    const PASSING: [i32; 6] = [
        libc::ENOENT,
        libc::ECONNREFUSED,
        libc::ECONNRESET,
        libc::EPIPE,
        libc::EAGAIN,
        libc::EINTR,
    ];
    match error {
        Error::Io(error) if PASSING.contains(&error.raw_os_error()?) => Some(RETRY),
        Error::Refused(reason) if reason == "CHANNEL_CLOSED" => Some(RETRY),
        Error::Refused(reason) if reason == "CHANNEL_ATTACHED" => Some(RETRY_ATTACHED),
        _ => None,
    }
}
