//! What goes to a destination: the published files of a result, compared with what the ledger says of them.

use crate::config::Format;
use crate::dicom::guard::Limits;
use crate::dicom::{Identity, read_identity};
use crate::fault::{Code, Fault};
use crate::ledger::{Delivery, Reader};
use crate::results::{file_digest, file_name};
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
    /// What it is.
    pub format: Format,
    /// The file.
    pub path: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// Of DICOM objects: which one it is.
    pub identity: Option<Identity>,
}

impl Parcel {
    /// The files of a delivery in these formats. `results.changed` when one is not what was published, `delivery.nothing` when the result
    /// has none of them.
    pub fn open(ledger: &dyn Reader, output: &Path, delivery: &Delivery, formats: &[Format]) -> Result<Parcel, Fault> {
        let gone = || Fault::new(Code::ResultsChanged, format!("The result of job {} is not there any more.", delivery.job));
        let result = ledger.job(delivery.job)?.and_then(|job| job.result).ok_or_else(gone)?;
        let folder = output.join(&result.folder);
        let mut items = Vec::new();
        let objects = ledger.objects(delivery.job)?;
        for &format in formats {
            let Some(object) = objects.iter().find(|o| o.file == file_name(format)) else { continue };
            let path = folder.join(&object.file);
            let (bytes, digest) = file_digest(&path)?;
            if (bytes, &digest) != (object.bytes, &object.sha256) {
                return Err(Fault::new(Code::ResultsChanged, format!("{} in {} is not what was published.", object.file, result.folder)));
            }
            let limits = Limits { file_bytes: bytes, ..Limits::default() };
            let identity = format.is_dicom().then(|| read_identity(&path, &limits)).transpose();
            let identity =
                identity.map_err(|e| Fault::new(Code::ResultsDamaged, format!("{} in {}", object.file, result.folder)).caused_by(e))?;
            items.push(Item { format, path, bytes, identity });
        }
        if items.is_empty() {
            let names: Vec<&str> = formats.iter().map(|f| f.name()).collect();
            return Err(Fault::new(Code::DeliveryNothing, format!("{} has none of: {}.", result.folder, names.join(", "))));
        }
        let Delivery { doubtful, resends, refusals, ref transaction, .. } = *delivery;
        Ok(Parcel { folder, name: result.folder, items, doubtful, resends, refusals, asked: transaction.is_some() })
    }
}

impl Item {
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
