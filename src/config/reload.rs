//! Which keys may change while the daemon runs.

use super::schema::{Config, Dimse, Log, Output};

/// A table of the file.
pub(super) trait Keys {
    /// Keys whose values differ from the other's.
    fn differing(&self, other: &Self) -> Vec<&'static str>;
}

/// Keys whose new values count at once when the file is read again; all others count after the next start.
pub const RELOADABLE: &[&str] = &[
    "drain",
    "select",
    "dimse.allow_ae_titles",
    "dimse.allow_addresses",
    "intake.quiet",
    "intake.quiet_min",
    "intake.rescan",
    "intake.irregular",
    "intake.study_quiet",
    "intake.min_slices",
    "intake.assume_mbq",
    "output.formats",
    "retention.received",
    "retention.parked",
    "retention.results",
    "retention.journal",
    "log.level",
];

impl Config {
    /// Keys whose values differ from the other's, as `table.key`.
    pub fn differences(&self, other: &Config) -> Vec<String> {
        let mut keys = Vec::new();
        for key in self.differing(other) {
            let within = match key {
                "dimse" => self.dimse.differing(&other.dimse),
                "stow" => self.stow.differing(&other.stow),
                "spool" => self.spool.differing(&other.spool),
                "intake" => self.intake.differing(&other.intake),
                "jobs" => self.jobs.differing(&other.jobs),
                "model" => self.model.differing(&other.model),
                "output" => self.output.differing(&other.output),
                "retention" => self.retention.differing(&other.retention),
                "audit" => self.audit.differing(&other.audit),
                "training" => self.training.differing(&other.training),
                "http" => self.http.differing(&other.http),
                "log" => self.log.differing(&other.log),
                _ => Vec::new(),
            };
            if within.is_empty() {
                keys.push(key.to_owned());
            }
            keys.extend(within.into_iter().map(|inner| format!("{key}.{inner}")));
        }
        keys
    }

    /// This configuration with the other's values of [`RELOADABLE`] keys.
    pub fn reloaded(&self, other: Config) -> Config {
        Config {
            drain: other.drain,
            retention: other.retention,
            select: other.select,
            intake: other.intake,
            dimse: Dimse {
                allow_ae_titles: other.dimse.allow_ae_titles,
                allow_addresses: other.dimse.allow_addresses,
                ..self.dimse.clone()
            },
            output: Output { formats: other.output.formats, ..self.output.clone() },
            log: Log { level: other.log.level, ..self.log.clone() },
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// Every key once with another value than the default's.
    const OTHER: &str = r#"
        host_memory = "9 GiB"
        device_memory = "9 GiB"
        drain = "2 min"
        stage_deadline = "5 min"
        libtorch_dir = "/x"
        state = "/x/state"
        watch = []
        [dimse]
        listen = "127.0.0.1:104"
        ae_title = "OTHER"
        allow_ae_titles = ["A"]
        allow_addresses = ["10.0.0.1"]
        [stow]
        enabled = true
        [spool]
        max_instance = "1 GiB"
        [intake]
        quiet = "7 s"
        quiet_min = "6 s"
        rescan = "7 s"
        irregular = "resample"
        study_quiet = "7 s"
        min_slices = 7
        assume_mbq = true
        [jobs]
        park_after = 7
        [[select]]
        name = "a"
        [model]
        device = "cpu"
        [output]
        path = "/x/out"
        formats = ["nifti"]
        [[destination]]
        name = "a"
        kind = "folder"
        path = "/x/a"
        formats = ["nifti"]
        [retention]
        received = "1 d"
        parked = "forever"
        results = "90 d"
        journal = "2 d"
        [training]
        enabled = true
        windows = ["daily 01:00-02:00"]
        zone = "Europe/Berlin"
        plan = "/x/plan.toml"
        [http]
        listen = "127.0.0.1:7"
        [audit]
        repository = "audit.example:6514"
        [log]
        format = "json"
        level = "debug"
    "#;

    #[test]
    fn what_may_change_is_taken_and_the_rest_is_named() {
        let (old, new) = (Config::default(), parse(OTHER).expect("valid"));
        let reloaded = old.reloaded(new.clone());
        let mut taken = old.differences(&reloaded);
        taken.sort();
        let mut reloadable = RELOADABLE.to_vec();
        reloadable.sort_unstable();
        assert_eq!(taken, reloadable);
        let left = reloaded.differences(&new);
        assert!(left.iter().all(|key| !RELOADABLE.contains(&key.as_str())), "{left:?}");
        for key in [
            "host_memory",
            "device_memory",
            "watch",
            "dimse.ae_title",
            "spool.max_instance",
            "model.device",
            "output.path",
            "destination",
            "log.format",
        ] {
            assert!(left.iter().any(|k| k == key), "{key} is not in {left:?}");
        }
        assert_eq!(old.differences(&old), Vec::<String>::new());
    }
}
