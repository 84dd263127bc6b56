//! What destinations get in place of whole objects: those that take some labels only, or nothing large. It is made with the result, once, so that every
//! attempt to deliver it sends the same bytes.

use super::identity::{Identity, hex};
use super::segmentation::{Role, write_object};
use super::{Found, Output, ResultRequest, ResultsError, file_name, output};
use crate::config::{Destination, DestinationKind, Format};
use crate::dicom::seg::{Kind, LabelValues, WriteError, slices_with};
use crate::models::Label;
use crate::series::Case;
use crate::volume::{LabelMap, Labels};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::Path;

/// Largest object where a destination says nothing: native pixel data end at 4 GiB.
const LARGEST: u64 = 4_000_000_000;
/// What a frame, a segment and the rest of an object take at most beside the pixels, in bytes. An object that turns out larger than its
/// limit all the same is not used.
const OF_FRAME: u64 = 1024;
const OF_SEGMENT: u64 = 2048;
const OF_OBJECT: u64 = 64 << 10;

/// What destinations get beside, or in place of, whole objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A result that takes the place of an earlier one comes with a note that rejects the earlier objects.
    pub rejections: bool,
    /// Objects for destinations.
    pub shares: BTreeSet<Share>,
}

/// An object as a destination wants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// `seg` or `labelmap`.
    pub format: Format,
    /// Names of the labels that are in it, ascending; empty: all.
    pub labels: Vec<String>,
    /// Largest size in bytes.
    pub limit: Option<u64>,
}

impl Wanted {
    /// By these destinations.
    pub fn by(destinations: &[Destination]) -> Wanted {
        let of = |d: &Destination| d.formats.iter().filter(|f| f.is_dicom()).map(|f| Share::of(d, *f)).collect::<Vec<_>>();
        Wanted { rejections: destinations.iter().any(|d| d.iocm), shares: destinations.iter().flat_map(of).collect() }
    }
}

impl Share {
    /// A DICOM format as a destination wants it.
    pub fn of(destination: &Destination, format: Format) -> Share {
        let labels: BTreeSet<&String> = destination.labels.iter().collect();
        let sent = destination.kind != DestinationKind::Folder && destination.max_object_mb > 0;
        let limit = sent.then(|| u64::from(destination.max_object_mb) * 1_000_000);
        Share { format, labels: labels.into_iter().cloned().collect(), limit }
    }

    /// Name of the file with all of it.
    pub fn file(&self) -> String {
        let name = file_name(self.format);
        match self.stem() {
            stem if stem == self.format.name() => name.into(),
            stem => format!("{stem}.dcm"),
        }
    }

    /// The same labels as a label map.
    pub fn as_label_map(&self) -> Share {
        Share { format: Format::LabelMap, ..self.clone() }
    }

    /// Which part of the whole, from 1, a file is.
    pub fn part(&self, file: &str) -> Option<u32> {
        file.strip_prefix(&self.parts())?.strip_suffix(".dcm")?.parse().ok()
    }

    /// How names of its parts begin.
    fn parts(&self) -> String {
        format!("{}-{}mb-", self.stem(), self.limit.unwrap_or(LARGEST) / 1_000_000)
    }

    fn stem(&self) -> String {
        if self.labels.is_empty() {
            return self.format.name().into();
        }
        let mut hash = Sha256::new();
        self.labels.iter().for_each(|name| hash.update([name.as_bytes(), &[0]].concat()));
        format!("{}-{}", self.format.name(), hex(&hash.finalize()[..4]))
    }

    fn holds(&self, label: &Label) -> bool {
        self.labels.is_empty() || self.labels.contains(&label.name)
    }

    fn kind(&self) -> Kind {
        if self.format == Format::Seg { Kind::Binary } else { Kind::LabelMap }
    }
}

/// What shares are made from.
pub(super) struct Source<'a> {
    pub case: &'a Case,
    pub found: &'a Found<'a>,
    pub request: &'a ResultRequest<'a>,
    pub identity: &'a Identity,
    pub dir: &'a Path,
}

impl Source<'_> {
    /// Writes a share as a whole; none when the model has none of its labels.
    pub fn write(&self, share: &Share) -> Result<Option<Output>, ResultsError> {
        let stem = share.stem();
        let keep = |label: &Label| share.holds(label);
        let role = Role { kind: share.kind(), series: stem.clone(), instance: stem, number: 1, keep: &keep };
        self.object(&share.file(), share, &role)
    }

    /// Adds to `outputs` what the shares need and is not there.
    pub fn add(&self, shares: &BTreeSet<Share>, outputs: &mut Vec<Output>) -> Result<(), ResultsError> {
        for share in shares {
            if !self.found.labels.table().iter().any(|label| share.holds(label)) {
                continue;
            }
            let there = |outputs: &[Output], share: &Share| outputs.iter().find(|o| o.file == share.file()).map(|o| o.bytes);
            // The whole was asked for before this, and was too large for one object.
            let impossible = share.labels.is_empty() && there(outputs, share).is_none() && self.request.formats.contains(&share.format);
            if there(outputs, share).is_none() && !impossible {
                match self.write(share) {
                    Ok(written) => outputs.extend(written),
                    Err(ResultsError::Object(WriteError::TooLarge { .. })) if share.format == Format::Seg => {}
                    Err(error) => return Err(error),
                }
            }
            let fits = there(outputs, share).is_some_and(|bytes| share.limit.is_none_or(|limit| bytes <= limit));
            if fits || share.format != Format::Seg {
                continue;
            }
            let label_map = share.as_label_map();
            if there(outputs, &label_map).is_none() {
                outputs.extend(self.write(&label_map)?);
            }
            outputs.extend(self.write_parts(share)?);
        }
        Ok(())
    }

    /// Several objects in place of one, each with some of the labels in their order; none when a label alone is too large.
    fn write_parts(&self, share: &Share) -> Result<Vec<Output>, ResultsError> {
        let limit = share.limit.unwrap_or(LARGEST);
        let Some(groups) = self.groups(share, limit) else { return Ok(Vec::new()) };
        let stem = share.parts();
        let mut parts = Vec::new();
        for (number, group) in (1u32..).zip(&groups) {
            let keep = |label: &Label| group.contains(&label.value);
            let role = Role { kind: share.kind(), series: stem.clone(), instance: format!("{stem}{number}"), number, keep: &keep };
            parts.extend(self.object(&format!("{stem}{number}.dcm"), share, &role)?);
        }
        if parts.iter().all(|part| part.bytes <= limit) {
            return Ok(parts);
        }
        for part in parts {
            // Whatever stays in the staging folder is not published with the result: it is not in its manifest.
            let _ = std::fs::remove_file(self.dir.join(part.file));
        }
        Ok(Vec::new())
    }

    /// Label values by part.
    fn groups(&self, share: &Share, limit: u64) -> Option<Vec<BTreeSet<u16>>> {
        let [slices, ..] = self.found.labels.shape();
        let area = self.found.labels.labels().len() / slices.max(1);
        let held: Vec<u16> = self.found.labels.table().iter().filter(|label| share.holds(label)).map(|label| label.value).collect();
        let frames = slices_with(values(self.found.labels), area, usize::from(*held.iter().max()?) + 1);
        let (mut groups, mut size) = (Vec::new(), u64::MAX);
        for value in held {
            let own = frames[usize::from(value)] as u64 * (area as u64 / 8 + 1 + OF_FRAME) + OF_SEGMENT;
            if OF_OBJECT + own > limit {
                return None;
            }
            if size.saturating_add(own) > limit {
                groups.push(BTreeSet::new());
                size = OF_OBJECT;
            }
            size += own;
            groups.last_mut()?.insert(value);
        }
        Some(groups)
    }

    fn object(&self, file: &str, share: &Share, role: &Role<'_>) -> Result<Option<Output>, ResultsError> {
        let path = self.dir.join(file);
        let written = write_object(&path, role, self.case, self.found, self.request, self.identity)?;
        written.map(|(_, uids)| output(share.format.name(), file, &path, Some(uids))).transpose()
    }
}

fn values(labels: &LabelMap) -> LabelValues<'_> {
    match labels.labels() {
        Labels::U8(v) => LabelValues::U8(v),
        Labels::U16(v) => LabelValues::U16(v),
    }
}
