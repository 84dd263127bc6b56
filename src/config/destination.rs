//! `[[destination]]`: who gets results, and how.

use super::choices::{Format, choice};
use super::network::{AeTitle, WebAddress};
use super::reader::{FromToml, Reader, Value};
use super::schema::table;
use super::units::{HumanDuration, by_text};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

table! {
    /// One that gets results.
    Destination {
        /// For the ledger, logs, metrics and `stunetd jobs`. Deliveries that wait belong to the name.
        name: String = String::new(),
        /// How they get there.
        kind: DestinationKind = DestinationKind::Cstore,
        /// Of which models.
        accepts: Accepts = Accepts::Clinical,
        /// Which files of a result.
        formats: Vec<Format> = vec![Format::Seg],
        /// Names of the labels that DICOM objects for it hold; empty: all.
        labels: Vec<String> = Vec::new(),
        /// `cstore`, `stow`: objects larger than so many megabytes (1,000,000 bytes) go as a label map, or in parts; 0: as they are.
        max_object_mb: u32 = 0,
        /// `cstore`, `stow`: when a result takes the place of one that it got, it also gets a note that rejects the earlier objects.
        iocm: bool = false,
        /// `folder`: the folder.
        path: PathBuf = PathBuf::new(),
        /// `cstore`: host and port.
        address: String = String::new(),
        /// `cstore`: the title that is called.
        ae_title: Option<AeTitle> = None,
        /// `cstore`: our title.
        calling_ae_title: AeTitle = AeTitle::ours(),
        /// `stow`: what `/studies` is below.
        url: Option<WebAddress> = None,
        /// `stow`: a file with a token that is sent as bearer; empty: none.
        token_file: PathBuf = PathBuf::new(),
        /// What happens with an object that may have arrived, when the destination can not be asked.
        resend: Resend = Resend::Once,
        /// A destination that is silent for this long is given up for now.
        timeout: HumanDuration = HumanDuration(Duration::from_secs(60)),
        /// `cstore`: it is asked to commit itself to keeping what it got (storage commitment), and counts as having it when it has done so.
        commitment: bool = false,
        /// Without an answer to that for this long it is asked what it has.
        commitment_wait: HumanDuration = HumanDuration(Duration::from_secs(3600)),
        /// `cstore`: over TLS; `stow` is with https.
        tls: bool = false,
        /// Authorities, PEM; empty: those of the system.
        tls_ca: PathBuf = PathBuf::new(),
        /// Our certificate and those above it, PEM; empty: none is shown.
        tls_certificate: PathBuf = PathBuf::new(),
        /// Its private key, PEM.
        tls_key: PathBuf = PathBuf::new(),
    }
}

choice! {
    /// How results get to a destination.
    DestinationKind {
        /// Copied into a folder.
        Folder = "folder",
        /// DICOM C-STORE.
        Cstore = "cstore",
        /// DICOMweb, STOW-RS.
        Stow = "stow",
    }
}

choice! {
    /// Results of which models go to a destination.
    Accepts {
        /// Approved ones only.
        Clinical = "clinical",
        /// Also those that nobody approved.
        Research = "research",
    }
}

choice! {
    /// What happens with an object that may have arrived, when the destination can not be asked.
    Resend {
        /// The same bytes are sent once more.
        Once = "once",
        /// It is parked for a person to decide.
        Never = "never",
    }
}

impl Format {
    /// Whether it is a DICOM object.
    pub fn is_dicom(self) -> bool {
        matches!(self, Format::Seg | Format::LabelMap)
    }
}

impl Destination {
    /// The paths that start from the folder of the configuration file, as far as they are given.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.path, &mut self.token_file, &mut self.tls_ca, &mut self.tls_certificate, &mut self.tls_key]
            .into_iter()
            .filter(|p| !p.as_os_str().is_empty())
    }

    /// What is wrong with the destinations: the key, the item of the list, what. `made` are the formats that results have.
    pub(super) fn check(all: &[Destination], made: &[Format]) -> Vec<(&'static str, usize, String)> {
        let mut wrong = Vec::new();
        for (i, d) in all.iter().enumerate() {
            let mut say = |key, what: String| wrong.push((key, i, what));
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
            if d.name.is_empty() || d.name.len() > 32 || !d.name.chars().all(fits) {
                say("destination.name", "1 to 32 of a-z, 0-9, `-` and `_`".into());
            }
            if all[..i].iter().any(|other| other.name == d.name) {
                say("destination.name", format!("there is another destination `{}`", d.name));
            }
            let has = |path: &Path| !path.as_os_str().is_empty();
            match d.kind {
                DestinationKind::Folder if !has(&d.path) => say("destination", "a folder needs `path`".into()),
                DestinationKind::Cstore if d.ae_title.is_none() => say("destination", "`cstore` needs `ae_title`".into()),
                DestinationKind::Cstore if !is_host_and_port(&d.address) => {
                    say("destination", "`cstore` needs `address`: a host and a port, such as \"pacs.example:104\"".into());
                }
                DestinationKind::Stow if d.url.is_none() => say("destination", "`stow` needs `url`".into()),
                _ => {}
            }
            if has(&d.token_file) && d.url.as_ref().is_some_and(|url| !url.keeps_secrets()) {
                say("destination.token_file", "a token is sent over https or to this machine only".into());
            }
            if d.formats.is_empty() {
                say("destination.formats", "at least one format".into());
            }
            for format in &d.formats {
                if !made.contains(format) {
                    say("destination.formats", format!("`output.formats` has no `{format}`"));
                } else if d.kind != DestinationKind::Folder && !format.is_dicom() {
                    say("destination.formats", format!("`{format}` is no DICOM object"));
                }
            }
            if d.commitment && d.kind != DestinationKind::Cstore {
                say("destination.commitment", "storage commitment goes with `cstore` only".into());
            }
            if d.kind == DestinationKind::Folder && d.max_object_mb > 0 {
                say("destination.max_object_mb", "a folder takes objects of any size".into());
            }
            if d.kind == DestinationKind::Folder && d.iocm {
                say("destination.iocm", "a folder is no archive that hides objects".into());
            }
            if !d.labels.is_empty() && !d.formats.iter().any(|f| f.is_dicom()) {
                say("destination.labels", "they are those of DICOM objects, and `formats` has none".into());
            }
            if d.timeout.0.is_zero() {
                say("destination.timeout", "at least 1 ms".into());
            }
            if has(&d.tls_certificate) != has(&d.tls_key) {
                let key = if has(&d.tls_key) { "destination.tls_key" } else { "destination.tls_certificate" };
                say(key, "`tls_certificate` and `tls_key` are given together".into());
            }
        }
        wrong
    }
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}
