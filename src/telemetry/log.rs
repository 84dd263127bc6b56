//! Log lines, on stderr. No patient data: no names, no identifiers, no input paths; a series goes by its keyed hash.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

/// The environment variable that overrides the level, by module if wanted (`debug`, `stunetd::intake=debug`).
pub const VARIABLE: &str = "STUNETD_LOG";

/// Puts another filter in the place of the one that logging was started with.
static FILTER: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Starts logging; `level` is used where [`VARIABLE`] says nothing. Later calls change nothing.
pub fn start(json: bool, level: &str) {
    let lines = tracing_subscriber::fmt().with_env_filter(filter(level)).with_writer(std::io::stderr).with_ansi(false);
    // Starting fails when logging was started before, as in tests.
    if json {
        let lines = lines.json().flatten_event(true).with_filter_reloading();
        let handle = lines.reload_handle();
        if lines.try_init().is_ok() {
            let _ = FILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
        }
    } else {
        let lines = lines.with_target(false).with_filter_reloading();
        let handle = lines.reload_handle();
        if lines.try_init().is_ok() {
            let _ = FILTER.set(Box::new(move |filter| drop(handle.reload(filter))));
        }
    }
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        tracing::error!(thread = thread.name().unwrap_or(""), place, "panic: {}", panic_text(info.payload()));
    }));
}

/// From now on this level counts, where [`VARIABLE`] says nothing.
pub fn set_level(level: &str) {
    if let Some(set) = FILTER.get() {
        set(filter(level));
    }
}

fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(level))
}

/// What a panic said, as far as it may be repeated. Words of the program are; a message that was put together may hold what the program worked on
/// (cutting a text in the wrong place quotes it), so of those only such as have nothing but numbers in them. The place says more anyway.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> &str {
    const NUMBERS_ONLY: [&str; 5] =
        ["index out of bounds: the len is ", "range end index ", "range start index ", "slice index starts at ", "mid > len"];
    let repeated = |text: &&str| NUMBERS_ONLY.iter().any(|known| text.starts_with(known));
    match payload.downcast_ref::<&str>() {
        Some(words) => words,
        None => match payload.downcast_ref::<String>().map(String::as_str) {
            Some(text) => Some(text).filter(repeated).unwrap_or("a message that may hold data"),
            None => "no message",
        },
    }
}

/// A short name for something that must not be written as it is: the same for the same text as long as the process
/// lives, and not to be guessed from outside.
pub fn keyed_hash(text: &str) -> String {
    // Keyed with random numbers of the operating system.
    static KEY: OnceLock<RandomState> = OnceLock::new();
    format!("{:016x}", KEY.get_or_init(RandomState::new).hash_one(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::unnecessary_literal_unwrap, reason = "it is to panic with the data in its message")]
    fn a_panic_quotes_nothing_that_was_worked_on() {
        let said = |work: fn()| panic_text(&*std::panic::catch_unwind(work).expect_err("it panics")).to_owned();
        assert_eq!(said(|| panic!("words of ours")), "words of ours");
        assert!(said(|| assert_eq!(vec![1, 2][std::hint::black_box(7)], 3)).contains("the index is 7"));
        assert!(said(|| drop([1, 2][..std::hint::black_box(7)].to_vec())).contains("range end index 7"));
        for work in [
            || drop("MÜLLER^ANNA"[..std::hint::black_box(2)].to_owned()),
            || panic!("{} is not expected", std::hint::black_box("MÜLLER^ANNA")),
            || Err::<(), _>(std::hint::black_box("MÜLLER^ANNA")).expect("a number"),
        ] {
            assert_eq!(said(work), "a message that may hold data");
        }
    }

    #[test]
    fn a_keyed_hash_is_steady_and_hides_its_text() {
        assert_eq!(keyed_hash("1.2.3"), keyed_hash("1.2.3"));
        assert_ne!(keyed_hash("1.2.3"), keyed_hash("1.2.4"));
        // Another key, another name.
        assert_ne!(keyed_hash("1.2.3"), format!("{:016x}", RandomState::new().hash_one("1.2.3")));
    }
}
