//! What the service manager is told (sd_notify(3)): ready, reloading, stopping, what is going on, and that work gets ahead.

use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::Duration;

/// Tells the service manager, where there is one.
#[derive(Clone)]
pub struct Notifier {
    tell: Arc<dyn Fn(&str) + Send + Sync>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The service manager that started this process: `$NOTIFY_SOCKET`, and `$WATCHDOG_USEC` if it waits for signs of life. Without them
    /// nothing is told.
    pub fn system() -> Notifier {
        let tell = |text: &str| {
            if let Err(error) = sd_notify::notify(&[NotifyState::Custom(text)]) {
                tracing::debug!("the service manager can not be told: {error}");
            }
        };
        Notifier::to(sd_notify::watchdog_enabled(), tell)
    }

    /// Nobody.
    pub fn none() -> Notifier {
        Notifier::to(None, |_| {})
    }

    /// Whoever takes the messages, lines of `NAME=value`; `watchdog`: how long it waits for a sign of life.
    pub fn to(watchdog: Option<Duration>, tell: impl Fn(&str) + Send + Sync + 'static) -> Notifier {
        Notifier { tell: Arc::new(tell), watchdog }
    }

    /// How long the service manager waits for a sign of life; none when it does not.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Everything is up.
    pub fn ready(&self) {
        self.say(&[NotifyState::Ready]);
    }

    /// The configuration is read again; ends with [`Notifier::ready`].
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.say(&[NotifyState::Reloading, now]),
            Err(_) => self.say(&[NotifyState::Reloading]),
        }
    }

    /// Nothing new is begun. The end may take this long, whatever the unit says.
    pub fn stopping(&self, within: Duration) {
        let micros = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
        self.say(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// One line for people (`systemctl status`).
    pub fn status(&self, line: &str) {
        self.say(&[NotifyState::Status(&line.replace('\n', " "))]);
    }

    /// A sign of life.
    pub fn alive(&self) {
        self.say(&[NotifyState::Watchdog]);
    }

    fn say(&self, states: &[NotifyState<'_>]) {
        let lines: Vec<String> = states.iter().map(NotifyState::to_string).collect();
        (self.tell)(&lines.join("\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn messages_are_those_of_the_protocol() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let notifier = {
            let told = told.clone();
            Notifier::to(None, move |text| told.lock().expect("list").push(text.to_owned()))
        };
        notifier.ready();
        notifier.reloading();
        notifier.stopping(Duration::from_secs(90));
        notifier.status("two\nlines");
        notifier.alive();
        let told = told.lock().expect("list").clone();
        assert_eq!(told[0], "READY=1");
        let micros = told[1].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("when");
        assert!(micros.parse::<u64>().is_ok_and(|micros| micros > 0), "{micros}");
        assert_eq!(told[2..], ["STOPPING=1\nEXTEND_TIMEOUT_USEC=90000000", "STATUS=two lines", "WATCHDOG=1"]);
    }
}
