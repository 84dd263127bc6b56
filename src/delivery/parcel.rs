//! What goes to a destination: the published files of a result, compared with what the ledger says of them.

use crate::config::{Destination, Format};
use crate::dicom::guard::Limits;
use crate::dicom::{Identity, read_identity};
use crate::fault::{Code, Fault};
use crate::ledger::{Delivery, DeliveryState, Job, Object, Reader, Which};
use crate::results::{REJECTION_FILE, Share, file_digest, file_name};
use crate::sys::durable::{Step, StorageError};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The files of one result for one destination.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The published folder.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    /// The files; at least one.
    pub items: Vec<Item>,
    /// What goes in their place to a destination that does not accept one of them.
    pub otherwise: Option<Vec<Item>>,
    /// Something stands for an object that is too large.
    pub shrunk: bool,
    /// They may have arrived although nobody heard so.
    pub doubtful: bool,
    /// How often they were sent again although nobody could tell whether they are there.
    pub resends: u32,
    /// How often the destination said no.
    pub refusals: u32,
    /// The destination was asked to commit itself to keeping them (storage commitment).
    pub asked: bool,
}

/// A file of a result, byte for byte as it was published.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// Of DICOM objects: which one it is.
    pub identity: Option<Identity>,
}

impl Parcel {
    /// The files of a delivery as its destination wants them. `results.changed` when one is not what was published, `delivery.nothing_to_send`
    /// when the result has none of them, `delivery.too_large` when the destination takes nothing as large.
    pub fn open(ledger: &dyn Reader, output: &Path, delivery: &Delivery, destination: &Destination) -> Result<Parcel, Fault> {
        let gone = || Fault::new(Code::ResultsChanged, format!("The result of job {} is not there any more.", delivery.job));
        let job = ledger.job(delivery.job)?.ok_or_else(gone)?;
        let result = job.result.clone().ok_or_else(gone)?;
        let folder = output.join(&result.folder);
        let objects = ledger.objects(delivery.job)?;
        let mut chosen = Chosen::default();
        for &format in &destination.formats {
            chosen.add(destination, format, &objects)?;
        }
        if chosen.first.is_empty() {
            let names: Vec<&str> = destination.formats.iter().map(|f| f.name()).collect();
            return Err(Fault::new(Code::DeliveryNothing, format!("{} has none of: {}.", result.folder, names.join(", "))));
        }
        if destination.iocm
            && let Some(note) = objects.iter().find(|o| o.file == REJECTION_FILE)
            && has_earlier(ledger, &job, &destination.name)?
        {
            // Last: what takes the place of the earlier objects is there when they are hidden.
            chosen.first.push(note);
            chosen.other.push(note);
        }
        let items =
            |objects: &[&Object]| objects.iter().map(|object| Item::open(&folder, &result.folder, object)).collect::<Result<Vec<_>, _>>();
        let otherwise = chosen.differs.then(|| items(&chosen.other)).transpose()?;
        let Delivery { doubtful, resends, refusals, ref transaction, .. } = *delivery;
        Ok(Parcel {
            items: items(&chosen.first)?,
            otherwise,
            shrunk: chosen.shrunk,
            folder,
            name: result.folder,
            doubtful,
            resends,
            refusals,
            asked: transaction.is_some(),
        })
    }
}

/// The files that go to a destination.
#[derive(Default)]
struct Chosen<'a> {
    /// Those that it gets.
    first: Vec<&'a Object>,
    /// Those that it gets if it does not accept one of the first.
    other: Vec<&'a Object>,
    differs: bool,
    shrunk: bool,
}

impl<'a> Chosen<'a> {
    fn add(&mut self, destination: &Destination, format: Format, objects: &'a [Object]) -> Result<(), Fault> {
        let find = |name: &str| objects.iter().find(|o| o.file == name);
        if !format.is_dicom() {
            self.both(find(file_name(format)));
            return Ok(());
        }
        let share = Share::of(destination, format);
        let fits = |o: &&Object| share.limit.is_none_or(|limit| o.bytes <= limit);
        let whole = find(&share.file());
        if let Some(object) = whole.filter(fits) {
            self.both(Some(object));
            return Ok(());
        }
        let (mut map, mut parts) = (None, Vec::new());
        if format == Format::Seg {
            map = find(&share.as_label_map().file()).filter(fits);
            parts.extend(objects.iter().filter_map(|o| Some((share.part(&o.file)?, o))));
            parts.sort_by_key(|(number, _)| *number);
        }
        match (map, whole) {
            (None, Some(whole)) if parts.is_empty() => {
                let mb = |bytes: u64| bytes as f64 / 1e6;
                let (own, limit) = (mb(whole.bytes), mb(share.limit.unwrap_or_default()));
                let detail = format!("{} has {own:.1} MB, the destination takes {limit:.1} MB, and there is nothing smaller.", whole.file);
                return Err(Fault::new(Code::DeliveryTooLarge, detail));
            }
            (None, None) if parts.is_empty() => {}
            (Some(map), _) => {
                self.shrunk = true;
                self.differs |= !parts.is_empty();
                if !self.first.contains(&map) {
                    self.first.push(map);
                }
                self.other.extend(parts.into_iter().map(|(_, part)| part));
            }
            (None, _) => parts.into_iter().for_each(|(_, part)| self.both(Some(part))),
        }
        Ok(())
    }

    fn both(&mut self, object: Option<&'a Object>) {
        for list in [&mut self.first, &mut self.other] {
            let new = object.filter(|o| !list.contains(o));
            list.extend(new);
        }
    }
}

/// Whether the destination may have an earlier result of the same series.
fn has_earlier(ledger: &dyn Reader, job: &Job, destination: &str) -> Result<bool, Fault> {
    let of_series = ledger.jobs(&Which { uid: Some(job.series.series.clone()), ..Which::default() })?;
    let earlier: Vec<_> =
        of_series.iter().filter(|other| other.series == job.series && other.id < job.id && other.result.is_some()).collect();
    for other in &earlier {
        let reached = |d: &Delivery| d.doubtful || matches!(d.state, DeliveryState::Delivered | DeliveryState::Sending);
        if ledger.deliveries(other.id)?.iter().any(|d| d.destination == destination && reached(d)) {
            return Ok(true);
        }
    }
    // Their rows may be gone while the result tells of them.
    Ok(earlier.is_empty())
}

impl Item {
    /// A published file, compared with what the ledger says of it.
    fn open(folder: &Path, result: &str, object: &Object) -> Result<Item, Fault> {
        let path = folder.join(&object.file);
        let (bytes, digest) = file_digest(&path)?;
        if (bytes, &digest) != (object.bytes, &object.sha256) {
            return Err(Fault::new(Code::ResultsChanged, format!("{} in {result} is not what was published.", object.file)));
        }
        let limits = Limits { file_bytes: bytes, ..Limits::default() };
        let identity = object.file.ends_with(".dcm").then(|| read_identity(&path, &limits)).transpose();
        let identity = identity.map_err(|e| Fault::new(Code::ResultsDamaged, format!("{} in {result}", object.file)).caused_by(e))?;
        Ok(Item { name: object.file.clone(), path, bytes, identity })
    }

    /// Whether it is a note about earlier objects, not the result itself.
    pub fn is_note(&self) -> bool {
        self.name == REJECTION_FILE
    }

    /// The data set of a DICOM object, and its length: what follows the file meta information (PS3.10 section 7.1).
    pub fn data_set(&self) -> Result<(File, u64), Fault> {
        let failed = |e| Fault::from(StorageError::at(Step::Read, &self.path)(e));
        let mut file = File::open(&self.path).map_err(failed)?;
        let mut head = [0; 144];
        file.read_exact(&mut head).map_err(failed)?;
        // Preamble, prefix, and the group length, which our writer puts first.
        let meta = (head[128..140] == *b"DICM\x02\0\0\0UL\x04\0").then(|| u32::from_le_bytes([head[140], head[141], head[142], head[143]]));
        let start = meta.map(|meta| 144 + u64::from(meta)).filter(|start| *start <= self.bytes);
        let start =
            start.ok_or_else(|| Fault::new(Code::ResultsDamaged, format!("{} has no file meta information.", self.path.display())))?;
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        Ok((file, self.bytes - start))
    }
}
