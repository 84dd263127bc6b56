//! Which patients are trained on and which are locked away for validation: drawn once, for ever.

use super::{CaseError, Likeness};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// Where a patient's cases go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Learned from.
    Training,
    /// Only ever measured on.
    Locked,
}

/// What tells that two cases are of one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseKeys {
    /// The case's own name.
    pub case: String,
    /// [`patient_key`] of issuer and Patient ID.
    pub patient: String,
    /// Study Instance UID, or what stands for it.
    pub study: String,
    /// Frame of Reference UID, if there is one.
    pub frame_of_reference: Option<String>,
    /// Of the image.
    pub likeness: Option<Likeness>,
}

/// The roles that were drawn, by patient key. Only ever grows.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Roles {
    patients: BTreeMap<String, Role>,
}

impl FromIterator<(String, Role)> for Roles {
    fn from_iter<I: IntoIterator<Item = (String, Role)>>(roles: I) -> Roles {
        Roles { patients: roles.into_iter().collect() }
    }
}

impl Roles {
    /// All that were drawn, by patient key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Role)> {
        self.patients.iter().map(|(patient, role)| (patient.as_str(), *role))
    }

    /// The role of a patient, if it was drawn.
    pub fn of(&self, patient: &str) -> Option<Role> {
        self.patients.get(patient).copied()
    }

    /// Gives every case a role. A patient who has one keeps it; new ones are locked with probability `share`, by their key alone.
    /// Cases that share a patient, a study, a frame of reference or an image are of one person, and new keys take over the role that
    /// the person has. Nothing is changed on error.
    ///
    /// # Errors
    /// `cases.leak` when cases of one person have both roles: nothing may be trained then.
    pub fn assign(&mut self, cases: &[CaseKeys], share: f64) -> Result<BTreeMap<String, Role>, CaseError> {
        let groups = persons(cases);
        let mut drawn = self.patients.clone();
        let mut roles = BTreeMap::new();
        for group in groups {
            let members: Vec<&CaseKeys> = group.iter().map(|&i| &cases[i]).collect();
            let mut known: Vec<Role> = members.iter().filter_map(|case| drawn.get(&case.patient).copied()).collect();
            known.sort_unstable();
            known.dedup();
            let role = match known.as_slice() {
                [] => {
                    // The smallest key stands for the person, whatever the order of the cases.
                    let key = members.iter().map(|case| case.patient.as_str()).min().unwrap_or_default();
                    if fraction(key) < share { Role::Locked } else { Role::Training }
                }
                [role] => *role,
                _ => return Err(CaseError::Leak(members.iter().map(|case| case.case.as_str()).max().unwrap_or_default().into())),
            };
            for case in members {
                drawn.insert(case.patient.clone(), role);
                roles.insert(case.case.clone(), role);
            }
        }
        self.patients = drawn;
        Ok(roles)
    }
}

/// The cases of each person, as indices.
fn persons(cases: &[CaseKeys]) -> Vec<Vec<usize>> {
    let mut parent: Vec<usize> = (0..cases.len()).collect();
    fn root(parent: &mut [usize], mut i: usize) -> usize {
        while parent[i] != i {
            parent[i] = parent[parent[i]];
            i = parent[i];
        }
        i
    }
    for (i, a) in cases.iter().enumerate() {
        for (j, b) in cases.iter().enumerate().take(i) {
            let frame = a.frame_of_reference.is_some() && a.frame_of_reference == b.frame_of_reference;
            let image = a.likeness.zip(b.likeness).is_some_and(|(a, b)| a.is_like(&b));
            if a.patient == b.patient || a.study == b.study || frame || image {
                let (a, b) = (root(&mut parent, i), root(&mut parent, j));
                parent[a] = b;
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in 0..cases.len() {
        groups.entry(root(&mut parent, i)).or_default().push(i);
    }
    groups.into_values().collect()
}

/// A number in 0..1 that a key stands for.
fn fraction(key: &str) -> f64 {
    let digest = Sha256::digest(format!("role\0{key}"));
    let bits = digest.iter().take(8).fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The pseudonym of a patient: HMAC-SHA-256 (RFC 2104) of issuer and Patient ID under the site's own secret, hexadecimal. Without the
/// secret nobody can try names.
pub fn patient_key(secret: &[u8], issuer: &str, patient_id: &str) -> String {
    let mut key = [0u8; BLOCK];
    match secret.len() > BLOCK {
        true => key[..32].copy_from_slice(&Sha256::digest(secret)),
        false => key[..secret.len()].copy_from_slice(secret),
    }
    let padded = |by: u8| key.map(|byte| byte ^ by);
    let mut inner = Sha256::new();
    inner.update(padded(0x36));
    inner.update((issuer.len() as u64).to_le_bytes());
    inner.update(issuer);
    inner.update(patient_id);
    let mut outer = Sha256::new();
    outer.update(padded(0x5c));
    outer.update(inner.finalize());
    outer.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
