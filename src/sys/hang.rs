//! Posts at which a test has a thread hang, as one does that waits for a dead network disk or for a driver.
//!
//! They are in every build, so that what is tested is what is shipped. `STUNETD_HANG_AT=NAME` has the thread that first begins work at the
//! post of that name (`telemetry::Post`) stand still for ever, `NAME:3` the third one. Not armed it costs one relaxed load.

use crate::fault::{Code, Fault};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// The environment variable that arms a post.
pub const VARIABLE: &str = "STUNETD_HANG_AT";

/// How many visits it takes until one hangs; 0: none does.
static LEFT: AtomicU32 = AtomicU32::new(0);
static NAME: Mutex<String> = Mutex::new(String::new());

/// Stands still here if the post is armed. To be called by a thread that holds no lock.
#[inline]
pub fn at(post: &str) {
    if LEFT.load(Ordering::Relaxed) != 0 {
        armed(post);
    }
}

#[cold]
fn armed(post: &str) {
    if *NAME.lock().unwrap_or_else(PoisonError::into_inner) != post {
        return;
    }
    let last = LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    while last == Ok(1) {
        std::thread::park();
    }
}

/// Arms the post that [`VARIABLE`] names, if it is set: one of `posts`. Another name is `config.usage`.
pub fn arm<'p>(mut posts: impl Iterator<Item = &'p str>) -> Result<(), Fault> {
    let Some(text) = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()) else { return Ok(()) };
    let (name, visit) = match text.split_once(':') {
        Some((name, visit)) => (name, visit.parse().ok().filter(|n| *n > 0)),
        None => (text.as_str(), Some(1)),
    };
    let Some(visit) = visit.filter(|_| posts.any(|post| post == name)) else {
        return Err(Fault::new(Code::ConfigUsage, format!("{VARIABLE}={text}: there is no such post")));
    };
    name.clone_into(&mut NAME.lock().unwrap_or_else(PoisonError::into_inner));
    LEFT.store(visit, Ordering::Relaxed);
    Ok(())
}
