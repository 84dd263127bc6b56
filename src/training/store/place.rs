//! Where curated cases lie, and the site's secret that pseudonyms are made with.

use super::Stored;
use crate::fault::{Code, Fault};
use crate::sys::durable::{self, Step, StorageError};
use crate::training::cases::{CaseError, patient_key};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Bytes of the secret.
const SECRET: usize = 32;
/// Most cases that are listed.
const MAX_CASES: usize = 100_000;
/// Hexadecimal digits of a case's name.
const NAME: usize = 16;

/// The folder `<state>/training`: nobody but the daemon's user may look into it.
pub struct Store {
    root: PathBuf,
    secret: [u8; SECRET],
}

impl Store {
    /// Opens the store of a state folder; makes it, and draws the secret, where there is none.
    ///
    /// # Errors
    /// `disk.*`; `cases.leak` for a secret that is not one: with another secret patients would get new roles.
    pub fn open(state: &Path) -> Result<Store, Fault> {
        let root = state.join("training");
        durable::create_dir_all(&root)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).map_err(StorageError::at(Step::Create, &root))?;
        durable::create_dir_all(&root.join("cases"))?;
        let path = root.join("secret");
        if !path.exists() {
            let mut drawn = [0; SECRET];
            let random = Path::new("/dev/urandom");
            fs::File::open(random).and_then(|mut file| file.read_exact(&mut drawn)).map_err(StorageError::at(Step::Read, random))?;
            write_private(&path, &drawn)?;
        }
        let mut secret = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(SECRET as u64 + 1).read_to_end(&mut secret));
        read.map_err(StorageError::at(Step::Read, &path))?;
        let secret = secret.try_into().map_err(|_| {
            let detail = format!("{} does not hold {SECRET} bytes: restore it, or patients lose their roles", path.display());
            Fault::new(Code::CasesLeak, detail)
        })?;
        Ok(Store { root, secret })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The site's secret: for pseudonyms and for signing reports.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// The pseudonym of a patient.
    pub fn patient(&self, issuer: &str, patient_id: &str) -> String {
        patient_key(&self.secret, issuer, patient_id)
    }

    /// The pseudonym of something else: `what` keeps studies, frames of reference and volumes apart from each other and from patients.
    pub fn pseudonym(&self, what: &str, name: &str) -> String {
        patient_key(&self.secret, &format!("\0{what}"), name)
    }

    /// A case's name: the same for the same image with the same labels.
    pub fn case_name(&self, volume: &str, labels: &str) -> String {
        let mut name = self.pseudonym("case", &format!("{volume}\0{labels}"));
        name.truncate(NAME);
        name
    }

    /// The folder of a case.
    pub(super) fn folder_of(&self, case: &str) -> PathBuf {
        self.root.join("cases").join(case)
    }

    /// One case.
    ///
    /// # Errors
    /// `cases.unknown`; `disk.*`.
    pub fn case(&self, case: &str) -> Result<Stored, Fault> {
        let plain = case.len() == NAME && case.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !plain || !self.folder_of(case).is_dir() {
            return Err(CaseError::Unknown(case.chars().filter(char::is_ascii_alphanumeric).take(NAME).collect()).into());
        }
        Stored::open(case, &self.folder_of(case))
    }

    /// All cases by name.
    ///
    /// # Errors
    /// `disk.*`, and what is wrong with a case's record.
    pub fn cases(&self) -> Result<Vec<Stored>, Fault> {
        let folder = self.root.join("cases");
        let unreadable = |e| Fault::from(StorageError::at(Step::Read, &folder)(e));
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(unreadable)?.take(MAX_CASES) {
            let name = entry.map_err(unreadable)?.file_name();
            names.extend(name.to_str().filter(|name| !name.starts_with('.')).map(String::from));
        }
        names.sort();
        names.iter().map(|name| self.case(name)).collect()
    }

    /// Removes a case and all that was made of it; whether it was there.
    ///
    /// # Errors
    /// `disk.*`.
    pub fn remove(&self, case: &str) -> Result<bool, Fault> {
        let stored = match self.case(case) {
            Err(fault) if fault.code == Code::CasesUnknown => return Ok(false),
            other => other?,
        };
        // Removed with what is in it when it is dropped: nobody sees half a case.
        let aside = durable::StagingDir::new_in(&self.root)?;
        durable::rename(&stored.folder, &aside.path().join(case))?;
        Ok(true)
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    durable::write_file_with(path, |file| {
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(StorageError::at(Step::Create, path))?;
        file.write_all(bytes).map_err(StorageError::at(Step::Write, path))
    })
}
