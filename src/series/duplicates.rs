//! Instances that came twice: the same image, or two images under one UID.

use super::phases::Member;
use super::types::{PlaneDigest, Refusal};
use crate::dicom::Instance;
use crate::fault::Code;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Keeps one instance per SOP Instance UID. `Err`: two of them differ in pixels or geometry, or can not be compared.
///
/// Returned in the order of the paths; the others are dropped, for they hold nothing new.
pub(super) fn unique_instances(mut instances: Vec<Instance>, digest: PlaneDigest) -> Result<Vec<Instance>, Refusal> {
    instances.sort_by(|a, b| a.sop_instance_uid.cmp(&b.sop_instance_uid).then_with(|| a.relative.cmp(&b.relative)));
    let mut kept: Vec<Instance> = Vec::with_capacity(instances.len());
    for instance in instances {
        match kept.last() {
            Some(first) if first.sop_instance_uid == instance.sop_instance_uid => {
                if !same_image(first, &instance, digest)? {
                    let detail = format!("SOP Instance UID {}", instance.sop_instance_uid);
                    return Err(Refusal { code: Code::SeriesDuplicateConflict, detail });
                }
            }
            _ => kept.push(instance),
        }
    }
    kept.sort_by(|a, b| a.relative.cmp(&b.relative));
    Ok(kept)
}

/// Whether all planes at each position hold the same pixels and rescale: then the first of each position.
pub(super) fn first_of_equal<'a>(positions: Vec<Vec<Member<'a>>>, digest: PlaneDigest) -> Result<Option<Vec<Member<'a>>>, Refusal> {
    let mut kept = Vec::with_capacity(positions.len());
    for position in positions {
        let Some((first, others)) = position.split_first() else { continue };
        for other in others {
            let same = first.frame.rescale == other.frame.rescale && digest_of(first, digest)? == digest_of(other, digest)?;
            if !same {
                return Ok(None);
            }
        }
        kept.push(*first);
    }
    Ok(Some(kept))
}

fn digest_of(member: &Member, digest: PlaneDigest) -> Result<[u8; 32], Refusal> {
    let instance = member.instance;
    digest(&instance.path, member.frame.number.unwrap_or(1), &instance.pixels)
        .map_err(|fault| Refusal { code: fault.code, detail: fault.detail })
}

fn same_image(a: &Instance, b: &Instance, digest: PlaneDigest) -> Result<bool, Refusal> {
    if a.size == b.size && same_bytes(&a.path, &b.path).unwrap_or(false) {
        return Ok(true);
    }
    let alike = a.frames.len() == b.frames.len()
        && (a.pixels.rows, a.pixels.columns) == (b.pixels.rows, b.pixels.columns)
        && a.frames.iter().zip(&b.frames).all(|(a, b)| {
            (a.position, a.orientation, a.pixel_spacing, a.rescale) == (b.position, b.orientation, b.pixel_spacing, b.rescale)
        });
    if !alike {
        return Ok(false);
    }
    for (x, y) in a.frames.iter().zip(&b.frames) {
        if digest_of(&Member { instance: a, frame: x }, digest)? != digest_of(&Member { instance: b, frame: y }, digest)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two files hold the same bytes.
fn same_bytes(a: &Path, b: &Path) -> std::io::Result<bool> {
    const BLOCK: usize = 64 << 10;
    let (mut a, mut b) = (BufReader::with_capacity(BLOCK, File::open(a)?), BufReader::with_capacity(BLOCK, File::open(b)?));
    let (mut x, mut y) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let n = fill(&mut a, &mut x)?;
        if fill(&mut b, &mut y)? != n || x[..n] != y[..n] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match reader.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
