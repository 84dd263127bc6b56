//! Every key of the configuration, its type and its default. `config/stunetd.toml` says the same for people; a test keeps
//! them equal.

use super::choices::{After, Format, Irregular, LogFormat, LogLevel, LoopbackAddress, Share};
use super::reader::{FromToml, Reader, Value};
use super::units::{ByteSize, HumanDuration};
use crate::stunet::{DeviceChoice, Precision};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A table of the file: its keys, each with its default.
macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> $name { $name { $($field: $default,)* } }
        }

        impl FromToml for $name {
            const KEYS: &'static [&'static str] = &[$(stringify!($field),)*];

            fn read(value: Value<'_>, reader: &mut Reader) -> Option<$name> {
                let mut table = reader.table(value, Self::KEYS)?;
                Some($name { $($field: table.take(stringify!($field), reader).unwrap_or_else(|| $default),)* })
            }
        }
    };
}

table! {
    /// The whole file.
    Config {
        /// Host memory that studies in work may hold together.
        host_memory: ByteSize = ByteSize(8 << 30),
        /// How long work in flight may take to finish after SIGTERM; then it is given up and done again after the next start.
        drain: HumanDuration = HumanDuration(Duration::from_secs(60)),
        /// Folder of a full libtorch with CUDA; empty: the CPU libraries that stunetd came with.
        libtorch_dir: PathBuf = PathBuf::new(),
        /// Folders that studies arrive in.
        watch: Vec<Watch> = vec![Watch::default()],
        /// When and which series are taken.
        intake: Intake = Intake::default(),
        /// The model and how it runs.
        model: Model = Model::default(),
        /// Where results go.
        output: Output = Output::default(),
        /// Metrics and health.
        http: Http = Http::default(),
        /// Log lines.
        log: Log = Log::default(),
    }
}

table! {
    /// One folder that studies arrive in.
    Watch {
        /// The folder; everything below it is looked at.
        path: PathBuf = PathBuf::from("/var/lib/stunetd/incoming"),
        /// What happens to the files once their result is published.
        after: After = After::Keep,
    }
}

table! {
    /// When and which series are taken.
    Intake {
        /// A series is taken when no file of it came or changed for this long.
        quiet: HumanDuration = HumanDuration(Duration::from_secs(30)),
        /// The folders are looked through at least this often, whether or not the system reported a change.
        rescan: HumanDuration = HumanDuration(Duration::from_secs(60)),
        /// Missing slices or varying distances.
        irregular: Irregular = Irregular::Refuse,
        /// Series with fewer slices are refused.
        min_slices: usize = 3,
    }
}

table! {
    /// The model and how it runs.
    Model {
        /// A folder that `stunetd model import` wrote.
        path: PathBuf = PathBuf::from("/var/lib/stunetd/models/current"),
        /// Where the network runs.
        device: DeviceChoice = DeviceChoice::Auto,
        /// Number format of its tensors.
        precision: Precision = Precision::Auto,
        /// Distance of neighbouring windows as a share of the window.
        step: Share = Share::HALF,
        /// Average over mirrored copies: up to eight times the work.
        mirror: bool = false,
    }
}

table! {
    /// Where results go.
    Output {
        /// The folder; each result is a folder in it.
        path: PathBuf = PathBuf::from("/var/lib/stunetd/results"),
        /// What is written beside `manifest.json`.
        formats: Vec<Format> = vec![Format::Seg, Format::Preview],
    }
}

table! {
    /// Metrics and health.
    Http {
        /// Serves `/metrics`, `/livez` and `/readyz`.
        listen: LoopbackAddress = LoopbackAddress::port(9117),
    }
}

table! {
    /// Log lines, on stderr.
    Log {
        /// Their form.
        format: LogFormat = LogFormat::Text,
        /// What is logged.
        level: LogLevel = LogLevel::Info,
    }
}

impl Config {
    /// The same with relative paths starting from `base`.
    pub fn relative_to(mut self, base: &Path) -> Config {
        let paths = self.watch.iter_mut().map(|w| &mut w.path).chain([&mut self.model.path, &mut self.output.path]);
        for path in paths {
            *path = base.join(&path);
        }
        if !self.libtorch_dir.as_os_str().is_empty() {
            self.libtorch_dir = base.join(&self.libtorch_dir);
        }
        self
    }

    /// What is wrong with values that are well formed: the key, the item of a list, what. Nothing here looks at the machine.
    pub(super) fn check(&self) -> Vec<(&'static str, usize, String)> {
        let mut wrong = Vec::new();
        if self.watch.is_empty() {
            wrong.push(("watch", 0, "at least one folder has to be watched".to_string()));
        }
        for (i, watch) in self.watch.iter().enumerate() {
            if watch.path.as_os_str().is_empty() {
                wrong.push(("watch.path", i, "the path is empty".into()));
            } else if watch.path.starts_with(&self.output.path) || self.output.path.starts_with(&watch.path) {
                let detail = format!("{} and output.path {} lie in each other", watch.path.display(), self.output.path.display());
                wrong.push(("watch.path", i, detail));
            }
            if self.watch[..i].iter().any(|other| other.path.starts_with(&watch.path) || watch.path.starts_with(&other.path)) {
                wrong.push(("watch.path", i, format!("{} lies in, or holds, another watched folder", watch.path.display())));
            }
        }
        for (key, path) in [("model.path", &self.model.path), ("output.path", &self.output.path)] {
            if path.as_os_str().is_empty() {
                wrong.push((key, 0, "the path is empty".into()));
            }
        }
        if self.host_memory < ByteSize(1 << 30) {
            wrong.push(("host_memory", 0, format!("{} is too little for any study; at least 1 GiB", self.host_memory)));
        }
        if self.intake.rescan.0 < Duration::from_millis(100) {
            wrong.push(("intake.rescan", 0, "at least 100 ms".into()));
        }
        if self.intake.min_slices == 0 {
            wrong.push(("intake.min_slices", 0, "at least 1".into()));
        }
        if self.output.formats.is_empty() {
            let names: Vec<_> = Format::ALL.iter().map(|f| f.name()).collect();
            wrong.push(("output.formats", 0, format!("at least one of: {}", names.join(", "))));
        }
        wrong
    }
}
