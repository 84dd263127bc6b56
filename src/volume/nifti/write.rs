//! Label maps and volumes as `.nii.gz`.

use super::NiftiGeometry;
use super::header::{self, Number};
use crate::volume::{Affine, LabelMap, Labels, Source, Volume};
use flate2::{Compression, write::GzEncoder};
use rayon::prelude::*;
use std::io::{self, Write};

/// Bytes that are compressed as one member of the file.
const MEMBER: usize = 4 << 20;

/// Writes a label map as gzip-compressed NIfTI-1 of u8 or u16. From a NIfTI source the geometry fields are the source's own; else they are made from
/// the affine. Equal labels give equal bytes.
///
/// # Errors
/// What the writer says, and `InvalidInput` for an axis longer than 32,767.
pub fn write_labels(writer: impl Write, labels: &LabelMap) -> io::Result<()> {
    let geometry = geometry_of(labels.source(), labels.affine());
    match labels.labels() {
        Labels::U8(values) => compressed(writer, header::encode(labels.shape(), 1, Number::U8, &geometry), values, |v, out| out.push(*v)),
        Labels::U16(values) => {
            let header = header::encode(labels.shape(), 1, Number::U16, &geometry);
            compressed(writer, header, values, |v, out| out.extend(v.to_le_bytes()))
        }
    }
}

/// Writes a volume as gzip-compressed NIfTI-1: i16 where every value is a whole number in its range, else f32. Several channels become a fourth axis.
///
/// # Errors
/// As [`write_labels`].
pub fn write_volume(writer: impl Write, volume: &Volume) -> io::Result<()> {
    let geometry = geometry_of(&volume.source, &volume.affine);
    let whole = volume.data.par_iter().all(|&v| v == f32::from(v as i16));
    let number = if whole { Number::I16 } else { Number::F32 };
    let header = header::encode(volume.shape, volume.channels, number, &geometry);
    if whole {
        compressed(writer, header, &volume.data, |v, out| out.extend((*v as i16).to_le_bytes()))
    } else {
        compressed(writer, header, &volume.data, |v, out| out.extend(v.to_le_bytes()))
    }
}

fn geometry_of(source: &Source, affine: &Affine) -> NiftiGeometry {
    match source {
        Source::Nifti { geometry, .. } => **geometry,
        Source::Case(_) => NiftiGeometry::from_affine(affine),
    }
}

/// Header and values as gzip members that are made side by side.
fn compressed<T: Sync>(
    mut writer: impl Write,
    header: Option<[u8; header::FIRST_VOXEL]>,
    values: &[T],
    put: impl Fn(&T, &mut Vec<u8>) + Sync,
) -> io::Result<()> {
    let header = header.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an axis is longer than NIfTI-1 can say"))?;
    writer.write_all(&member(&header)?)?;
    let parts: Vec<&[T]> = values.chunks(MEMBER / size_of::<T>().max(1)).collect();
    // a few members at a time, so that little memory is held
    for group in parts.chunks(2 * rayon::current_num_threads()) {
        let members: Vec<io::Result<Vec<u8>>> = group
            .par_iter()
            .map(|part| {
                let mut bytes = Vec::with_capacity(size_of_val(*part));
                part.iter().for_each(|v| put(v, &mut bytes));
                member(&bytes)
            })
            .collect();
        for member in members {
            writer.write_all(&member?)?;
        }
    }
    writer.flush()
}

fn member(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(3));
    encoder.write_all(bytes)?;
    encoder.finish()
}
