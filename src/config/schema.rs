//! Every key of the configuration, its type and its default. `config/stunetd.toml` says the same for people; a test keeps
//! them equal.

use super::audit::Audit;
use super::choices::{After, Format, Irregular, LogFormat, LogLevel, Share};
use super::destination::Destination;
use super::network::{AeTitle, Listen, LoopbackAddress, Network};
use super::reader::{FromToml, Reader, Value};
use super::select::Select;
use super::units::{Allowance, ByteSize, HumanDuration, Keep};
use super::windows::Windows;
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

        impl $crate::config::reload::Keys for $name {
            fn differing(&self, other: &$name) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $(if self.$field != other.$field { keys.push(stringify!($field)); })*
                keys
            }
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
pub(super) use table;

table! {
    /// The whole file.
    Config {
        /// Host memory that studies in work may hold together.
        host_memory: ByteSize = ByteSize(8 << 30),
        /// Memory of a CUDA device that the model and the study on it may take together.
        device_memory: Allowance = Allowance(None),
        /// How long work in flight may take to finish after SIGTERM; then it is given up and done again after the next start.
        drain: HumanDuration = HumanDuration(Duration::from_secs(60)),
        /// A stage that gets no further with a job for this long, and the same again for every GiB of the job, hangs.
        stage_deadline: HumanDuration = HumanDuration(Duration::from_secs(600)),
        /// Folder of a full libtorch with CUDA; empty: the CPU libraries that stunetd came with.
        libtorch_dir: PathBuf = PathBuf::new(),
        /// Where the daemon keeps its ledger, and what only it may touch.
        state: PathBuf = PathBuf::from("/var/lib/stunetd/state"),
        /// Folders that studies arrive in.
        watch: Vec<Watch> = vec![Watch::default()],
        /// Receiving over DICOM.
        dimse: Dimse = Dimse::default(),
        /// Receiving over HTTP.
        stow: Stow = Stow::default(),
        /// What is received.
        spool: Spool = Spool::default(),
        /// When and which series are taken.
        intake: Intake = Intake::default(),
        /// What happens to a study at whose work the daemon died.
        jobs: Jobs = Jobs::default(),
        /// Which series are segmented, by which model: the first rule that matches decides. Without rules, all that the model is for.
        select: Vec<Select> = Vec::new(),
        /// The model and how it runs.
        model: Model = Model::default(),
        /// Where results go.
        output: Output = Output::default(),
        /// Who gets results beside that folder.
        destination: Vec<Destination> = Vec::new(),
        /// How long things are kept once nobody waits for them.
        retention: Retention = Retention::default(),
        /// Learning from signed-off cases outside of working hours.
        training: Training = Training::default(),
        /// Metrics and health.
        http: Http = Http::default(),
        /// Who hears of who did what.
        audit: Audit = Audit::default(),
        /// Log lines.
        log: Log = Log::default(),
    }
}

table! {
    /// One folder that studies arrive in.
    Watch {
        /// The folder; everything below it is looked at.
        path: PathBuf = PathBuf::from("/var/lib/stunetd/incoming"),
        /// What happens to the files once their result is published and everybody who gets it has it.
        after: After = After::Keep,
        /// Where they are moved to, with the folders that they are in.
        move_to: PathBuf = PathBuf::new(),
    }
}

table! {
    /// Receiving over DICOM: C-STORE and C-ECHO.
    Dimse {
        /// Address and port; nowhere when empty.
        listen: Listen = Listen(None),
        /// Our title, which callers have to name.
        ae_title: AeTitle = AeTitle::ours(),
        /// Titles of callers that may associate; empty: all.
        allow_ae_titles: Vec<AeTitle> = Vec::new(),
        /// Addresses and networks of callers that may connect; empty: all.
        allow_addresses: Vec<Network> = Vec::new(),
        /// Associations at a time.
        max_associations: usize = 32,
        /// Largest PDU that is received.
        max_pdu: ByteSize = ByteSize(256 << 10),
        /// A caller that is silent for this long is disconnected.
        idle: HumanDuration = HumanDuration(Duration::from_secs(60)),
        /// Our certificate and those above it, PEM; empty: no TLS.
        tls_certificate: PathBuf = PathBuf::new(),
        /// Its private key, PEM.
        tls_key: PathBuf = PathBuf::new(),
        /// Authorities, PEM; callers then have to show a certificate that one of them signed.
        tls_client_ca: PathBuf = PathBuf::new(),
    }
}

table! {
    /// Receiving over HTTP: STOW-RS at `http.listen`.
    Stow {
        /// Whether `/dicom-web/studies` takes objects.
        enabled: bool = false,
        /// Largest request.
        max_body: ByteSize = ByteSize(16 << 30),
        /// Most objects of a request.
        max_parts: usize = 20_000,
        /// Requests at a time.
        max_requests: usize = 4,
        /// A caller that is silent for this long is disconnected.
        idle: HumanDuration = HumanDuration(Duration::from_secs(60)),
    }
}

table! {
    /// Where objects of the network are kept.
    Spool {
        /// The folder.
        path: PathBuf = PathBuf::from("/var/lib/stunetd/spool"),
        /// Largest object.
        max_instance: ByteSize = ByteSize(4 << 30),
        /// With less than this free on the disk of the ledger, of the spool or of the results nothing is taken.
        min_free: ByteSize = ByteSize(2 << 30),
        /// With less than this free there, what is optional is not written.
        low_free: ByteSize = ByteSize(5 << 30),
    }
}

table! {
    /// When and which series are taken.
    Intake {
        /// A series is taken when no file of it came or changed for this long; for three times as long when something is missing.
        quiet: HumanDuration = HumanDuration(Duration::from_secs(30)),
        /// The same for a series whose files came quickly; at most `quiet`.
        quiet_min: HumanDuration = HumanDuration(Duration::from_secs(5)),
        /// The folders are looked through at least this often, whether or not the system reported a change.
        rescan: HumanDuration = HumanDuration(Duration::from_secs(60)),
        /// Missing slices or varying distances.
        irregular: Irregular = Irregular::Refuse,
        /// A study has to be quiet for this long before its best series is chosen, or its PET and CT are brought together.
        study_quiet: HumanDuration = HumanDuration(Duration::from_secs(60)),
        /// Series with fewer slices are refused.
        min_slices: usize = 3,
        /// Take an injected dose below 10 kBq for one in MBq; results say so.
        assume_mbq: bool = false,
    }
}

table! {
    /// What happens to a study at whose work the daemon died.
    Jobs {
        /// After so many crashes it goes to the end of the line and runs alone.
        suspect_after: u32 = 2,
        /// After so many crashes while it ran alone it is parked.
        park_after: u32 = 3,
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
        /// Lay windows only over the part of a CT that holds more than air: faster, with slightly other labels.
        skip_air: bool = false,
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
    /// How long things are kept once nobody waits for them.
    Retention {
        /// What was received, after its study's results were published and delivered.
        received: Keep = Keep::days(7),
        /// What was received of studies with parked jobs.
        parked: Keep = Keep::days(30),
        /// Results and their rows, after they were published and delivered.
        results: Keep = Keep(None),
        /// The ledger's journal.
        journal: Keep = Keep::days(400),
    }
}

table! {
    /// Learning from signed-off cases outside of working hours.
    Training {
        /// Whether cases are taken and runs are started.
        enabled: bool = false,
        /// Folders of labelled cases, one folder a case.
        curated: Vec<PathBuf> = Vec::new(),
        /// Local studies without labels that are kept, to rehearse and to compare models on.
        keep_studies: usize = 100,
        /// When runs may compute, by the clock on the wall.
        windows: Vec<String> = vec!["Mon-Fri 20:00-06:00".into(), "Sat,Sun 00:00-24:00".into()],
        /// The time zone of that wall.
        zone: String = "UTC".into(),
        /// What may change and what has to be shown before.
        plan: PathBuf = PathBuf::from("/etc/stunetd/change-plan.toml"),
        /// Where networks are taught and compared.
        device: DeviceChoice = DeviceChoice::Auto,
        /// Threads on the CPU; 0: all cores.
        threads: usize = 0,
        /// A run that has been paused for this long gives the device's memory back too.
        evict_after: HumanDuration = HumanDuration(Duration::from_secs(10)),
        /// No clinical work for this long before a run starts or goes on.
        calm: HumanDuration = HumanDuration(Duration::from_secs(120)),
    }
}

table! {
    /// Metrics and health.
    Http {
        /// Serves `/metrics`, `/livez` and `/readyz`.
        listen: LoopbackAddress = LoopbackAddress::port(9117),
        /// Where other machines get the same, over TLS and with the token; nowhere when empty.
        remote: Listen = Listen(None),
        /// Our certificate and those above it, PEM.
        tls_certificate: PathBuf = PathBuf::new(),
        /// Its private key, PEM.
        tls_key: PathBuf = PathBuf::new(),
        /// File with the token that callers have to know.
        token: PathBuf = PathBuf::new(),
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
        let paths = self.watch.iter_mut().map(|w| &mut w.path);
        for path in paths.chain([&mut self.state, &mut self.model.path, &mut self.output.path, &mut self.spool.path]) {
            *path = base.join(&path);
        }
        let models = self.select.iter_mut().map(|rule| &mut rule.model);
        let Dimse { tls_certificate, tls_key, tls_client_ca, .. } = &mut self.dimse;
        let http = &mut self.http;
        let ours = [&mut http.tls_certificate, &mut http.tls_key, &mut http.token];
        for path in [&mut self.libtorch_dir, tls_certificate, tls_key, tls_client_ca].into_iter().chain(ours).chain(models) {
            if !path.as_os_str().is_empty() {
                *path = base.join(&path);
            }
        }
        for path in self.audit.paths() {
            *path = base.join(&path);
        }
        for path in self.training.curated.iter_mut().chain([&mut self.training.plan]) {
            *path = base.join(&path);
        }
        for path in self.watch.iter_mut().map(|w| &mut w.move_to).filter(|path| !path.as_os_str().is_empty()) {
            *path = base.join(&path);
        }
        for path in self.destination.iter_mut().flat_map(Destination::paths) {
            *path = base.join(&path);
        }
        self
    }

    /// Files with certificates, by the keys that name them.
    pub fn certificates(&self) -> Vec<(String, &Path)> {
        let Config { dimse, http, audit, .. } = self;
        let ours = [
            ("dimse.tls_certificate", &dimse.tls_certificate),
            ("dimse.tls_client_ca", &dimse.tls_client_ca),
            ("http.tls_certificate", &http.tls_certificate),
            ("audit.tls_ca", &audit.tls_ca),
            ("audit.tls_certificate", &audit.tls_certificate),
        ];
        let ours = ours.into_iter().map(|(key, path)| (key.to_owned(), path));
        let theirs = self.destination.iter().flat_map(|d| {
            [("tls_ca", &d.tls_ca), ("tls_certificate", &d.tls_certificate)]
                .map(|(key, path)| (format!("destination.{}.{key}", d.name), path))
        });
        let all = ours.chain(theirs).filter(|(_, path)| !path.as_os_str().is_empty());
        all.map(|(key, path)| (key, path.as_path())).collect()
    }

    /// Folders that nothing else may lie in: those of the daemon, and those that are watched.
    fn places(&self) -> Vec<(&'static str, &Path)> {
        let ours: [(&str, &Path); 3] = [("output.path", &self.output.path), ("spool.path", &self.spool.path), ("state", &self.state)];
        ours.into_iter().chain(self.watch.iter().map(|w| ("watch.path", &*w.path))).collect()
    }

    /// Whether anything is taken from the network.
    pub fn receives(&self) -> bool {
        self.dimse.listen.0.is_some() || self.stow.enabled
    }

    /// What is wrong with values that are well formed: the key, the item of a list, what. Nothing here looks at the machine.
    pub(super) fn check(&self) -> Vec<(&'static str, usize, String)> {
        let mut wrong = Vec::new();
        if self.watch.is_empty() && !self.receives() {
            wrong.push(("watch", 0, "at least one folder has to be watched, or `dimse.listen` or `stow.enabled` be set".to_string()));
        }
        for (i, watch) in self.watch.iter().enumerate() {
            if watch.path.as_os_str().is_empty() {
                wrong.push(("watch.path", i, "the path is empty".into()));
            }
            for (name, other) in [("output.path", &self.output.path), ("spool.path", &self.spool.path), ("state", &self.state)] {
                if overlap(&watch.path, other) {
                    let detail = format!("{} and {name} {} lie in each other", watch.path.display(), other.display());
                    wrong.push(("watch.path", i, detail));
                }
            }
            wrong.extend(watch.check(&self.places()).into_iter().map(|(key, why)| (key, i, why)));
            if self.watch[..i].iter().any(|other| overlap(&other.path, &watch.path)) {
                wrong.push(("watch.path", i, format!("{} lies in, or holds, another watched folder", watch.path.display())));
            }
        }
        if overlap(&self.spool.path, &self.output.path) {
            wrong.push(("spool.path", 0, format!("it and output.path {} lie in each other", self.output.path.display())));
        }
        if overlap(&self.state, &self.output.path) {
            wrong.push(("state", 0, format!("it and output.path {} lie in each other", self.output.path.display())));
        }
        if self.stage_deadline.0 < Duration::from_secs(1) {
            wrong.push(("stage_deadline", 0, "at least 1 s".into()));
        }
        wrong.extend(self.dimse.check());
        wrong.extend(self.audit.check());
        for (key, path) in
            [("http.tls_certificate", &self.http.tls_certificate), ("http.tls_key", &self.http.tls_key), ("http.token", &self.http.token)]
        {
            if self.http.remote.0.is_some() && path.as_os_str().is_empty() {
                wrong.push(("http.remote", 0, format!("`{key}` has to be given too")));
            }
        }
        wrong.extend(Destination::check(&self.destination, &self.output.formats));
        let folders = [("output.path", &self.output.path), ("spool.path", &self.spool.path), ("state", &self.state)];
        let folders: Vec<_> = folders.into_iter().chain(self.watch.iter().map(|w| ("watch.path", &w.path))).collect();
        for (i, destination) in self.destination.iter().enumerate() {
            for (name, other) in folders.iter().filter(|(_, other)| overlap(&destination.path, other)) {
                wrong.push(("destination.path", i, format!("it and {name} {} lie in each other", other.display())));
            }
        }
        wrong.extend(self.training.check(&folders));
        if self.stow.max_requests == 0 || self.stow.max_parts == 0 {
            wrong.push((if self.stow.max_parts == 0 { "stow.max_parts" } else { "stow.max_requests" }, 0, "at least 1".into()));
        }
        let Config { state, model, output, spool, .. } = self;
        for (key, path) in [("state", state), ("model.path", &model.path), ("output.path", &output.path), ("spool.path", &spool.path)] {
            if path.as_os_str().is_empty() {
                wrong.push((key, 0, "the path is empty".into()));
            }
        }
        wrong.extend(Select::check(&self.select));
        if self.host_memory < ByteSize(1 << 30) {
            wrong.push(("host_memory", 0, format!("{} is too little for any study; at least 1 GiB", self.host_memory)));
        }
        if self.device_memory.0.is_some_and(|bytes| bytes < 1 << 30) {
            wrong.push(("device_memory", 0, "too little for any model; at least 1 GiB".into()));
        }
        if spool.low_free < spool.min_free {
            wrong.push(("spool.low_free", 0, format!("at least `spool.min_free`, {}", spool.min_free)));
        }
        if self.intake.rescan.0 < Duration::from_millis(100) {
            wrong.push(("intake.rescan", 0, "at least 100 ms".into()));
        }
        for (key, count) in [("jobs.suspect_after", self.jobs.suspect_after), ("jobs.park_after", self.jobs.park_after)] {
            if count == 0 {
                wrong.push((key, 0, "at least 1".into()));
            }
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

impl Watch {
    fn check(&self, places: &[(&'static str, &Path)]) -> Vec<(&'static str, String)> {
        let given = !self.move_to.as_os_str().is_empty();
        let mut wrong = Vec::new();
        if given != (self.after == After::Move) {
            wrong.push(("watch.move_to", "it belongs to `after = \"move\"`, and has to be given there".into()));
        }
        for (name, other) in places.iter().filter(|(_, other)| overlap(&self.move_to, other)) {
            wrong.push(("watch.move_to", format!("it and {name} {} lie in each other", other.display())));
        }
        wrong
    }
}

impl Dimse {
    fn check(&self) -> Vec<(&'static str, usize, String)> {
        let mut wrong = Vec::new();
        let has = |path: &Path| !path.as_os_str().is_empty();
        if self.max_associations == 0 {
            wrong.push(("dimse.max_associations", 0, "at least 1".into()));
        }
        if !(4 << 10..=16 << 20).contains(&self.max_pdu.0) {
            wrong.push(("dimse.max_pdu", 0, "from 4 KiB to 16 MiB".into()));
        }
        if self.idle.0.is_zero() {
            wrong.push(("dimse.idle", 0, "at least 1 ms".into()));
        }
        if has(&self.tls_certificate) != has(&self.tls_key) {
            let (given, lacking) = if has(&self.tls_key) { ("tls_key", "tls_certificate") } else { ("tls_certificate", "tls_key") };
            let key = if given == "tls_key" { "dimse.tls_key" } else { "dimse.tls_certificate" };
            wrong.push((key, 0, format!("`dimse.{lacking}` has to be given too")));
        }
        if has(&self.tls_client_ca) && !has(&self.tls_certificate) {
            wrong.push(("dimse.tls_client_ca", 0, "`dimse.tls_certificate` has to be given too".into()));
        }
        wrong
    }
}

impl Training {
    /// `others` are folders with their keys.
    fn check(&self, others: &[(&str, &PathBuf)]) -> Vec<(&'static str, usize, String)> {
        let mut wrong = Vec::new();
        if let Err(why) = Windows::parse(&self.windows, &self.zone) {
            let key = if Windows::parse(&self.windows[..0], &self.zone).is_err() { "training.zone" } else { "training.windows" };
            wrong.push((key, 0, why));
        }
        for (i, folder) in self.curated.iter().enumerate() {
            if folder.as_os_str().is_empty() {
                wrong.push(("training.curated", 0, "a path is empty".into()));
            }
            let earlier = self.curated[..i].iter().map(|other| ("another folder of cases", other));
            for (name, other) in others.iter().copied().chain(earlier).filter(|(_, other)| overlap(folder, other)) {
                wrong.push(("training.curated", 0, format!("{} and {name} {} lie in each other", folder.display(), other.display())));
            }
        }
        if self.plan.as_os_str().is_empty() {
            wrong.push(("training.plan", 0, "the path is empty".into()));
        }
        wrong
    }
}

fn overlap(a: &Path, b: &Path) -> bool {
    let given = !a.as_os_str().is_empty() && !b.as_os_str().is_empty();
    given && (a.starts_with(b) || b.starts_with(a))
}
