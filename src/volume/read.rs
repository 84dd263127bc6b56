//! From a case to a volume: planes decoded in parallel into HU or SUV, and the key that names their content.

use super::decode::{Conversion, Decoder, PlaneJob, decode_planes, layout};
use super::join::onto_grid;
use super::plausible::Census;
use super::suv::{self, NoSuv, SuvFactors};
use super::{Affine, Overlap, Quantity, Source, Volume};
use crate::dicom::guard::Limits;
use crate::dicom::{PlaneTiming, Rescale};
use crate::fault::{Code, Fault};
use crate::series::{Case, DOSE_ASSUMED, Plane, Refusal, Series};
use sha2::{Digest, Sha256};

/// HU that replaces pixel padding: air, which every CT normalisation knows.
const PADDED_HU: f32 = -1024.0;

/// A partner that covers less of the grid than this share is warned of: a slice or a row less at the borders is usual.
const COVERED: f64 = 0.95;

/// What a read may take, and what PET values become.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Bytes that the voxels of a case may take in memory (f32, all channels, the step onto the common grid included).
    pub memory: u64,
    /// Limits on each file.
    pub files: Limits,
    /// What PET values become.
    pub pet: PetValues,
    /// Whether a dose below 10 kBq may be taken as MBq; the series then carries the warning `dose_assumed_mbq`.
    pub assume_mbq: bool,
}

impl Default for ReadLimits {
    /// 8 GiB, SUV, no assumption.
    fn default() -> ReadLimits {
        ReadLimits { memory: 8 << 30, files: Limits::default(), pet: PetValues::Suv, assume_mbq: false }
    }
}

/// What PET values become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PetValues {
    /// SUVbw. A series for which there is none keeps its unit, is `Quantity::PetUnits`, and its `hold` says why.
    Suv,
    /// The unit of the header, for statistics.
    Stored,
}

/// Reads the voxels of a case.
///
/// CT values are HU with padding replaced by -1024; a CT whose histogram can not be HU, or that the header side holds back, is
/// [`Quantity::NotHu`] and its series' `hold` says why. PET values become SUVbw. All planes are read or none; values are finite. The
/// grid is that of the case's grid channel; the others are interpolated onto it, and where one covers less than all of it a warning says so. The case in the volume's source has its `volume_key`.
///
/// # Errors
/// `memory.volume_too_large`, `input.*` for files that are not what their headers said, `codec.*` for pixel data that can not be decoded.
pub fn read(mut case: Case, limits: &ReadLimits, decoder: &Decoder) -> Result<Volume, Fault> {
    let Some(grid) = case.grid_series() else {
        return Err(Fault::new(Code::InternalBug, "A case without a series for its grid."));
    };
    let (shape, affine) = (shape_of(grid)?, affine_of(grid)?);
    check_memory(&case, limits)?;
    let (mut data, mut quantity, mut digests) = (Vec::new(), Vec::new(), Vec::new());
    let channels = case.channels.len();
    for series in &mut case.channels {
        let channel = read_series(series, limits, decoder)?;
        quantity.push(channel.quantity);
        digests.push(channel.digest);
        let (own_shape, own_affine) = (shape_of(series)?, affine_of(series)?);
        if channels == 1 {
            data = channel.data;
        } else {
            if data.is_empty() {
                reserve(&mut data, channels * shape.iter().product::<usize>())?;
            }
            let outside = if channel.quantity == Quantity::Hu { PADDED_HU } else { 0.0 };
            onto_grid(&channel.data, own_shape, &own_affine, shape, &affine, outside, &mut data);
        }
    }
    case.volume_key = key(&digests, case.grid);
    if Overlap::partial(&case).iter().any(|overlap| overlap.share() < COVERED)
        && let Some(grid) = case.channels.get_mut(case.grid)
    {
        grid.warnings.push("partner_covers_part".into());
    }
    Ok(Volume { data, channels, shape, affine, quantity, source: Source::Case(Box::new(case)) })
}

struct Channel {
    data: Vec<f32>,
    quantity: Quantity,
    digest: [u8; 32],
}

fn read_series(series: &mut Series, limits: &ReadLimits, decoder: &Decoder) -> Result<Channel, Fault> {
    let [planes, rows, columns] = shape_of(series)?;
    let pixels = rows * columns;
    let ct = series.modality == "CT";
    let scale = if ct { None } else { suv_scale(series, limits) };
    let applied: Vec<Rescale> = (0..planes).map(|k| scaled(series.planes[k].rescale, scale.as_ref().map_or(1.0, |s| s[k]))).collect();

    let mut data: Vec<f32> = Vec::new();
    reserve(&mut data, planes * pixels)?;
    let mut digests = vec![[0; 32]; planes];
    let slabs = data.spare_capacity_mut()[..planes * pixels].chunks_exact_mut(pixels);
    let mut jobs = Vec::with_capacity(planes);
    for (k, ((plane, out), digest)) in series.planes.iter().zip(slabs).zip(&mut digests).enumerate() {
        if (usize::from(plane.pixels.rows), usize::from(plane.pixels.columns)) != (rows, columns) {
            return Err(Fault::new(Code::InternalBug, "A plane's size is not its series'."));
        }
        let conversion = Conversion::new(&plane.pixels, applied[k], ct.then_some(PADDED_HU)).map_err(layout)?;
        let (frame, format) = (plane.frame.unwrap_or(1), &plane.pixels);
        jobs.push(PlaneJob { path: &plane.path, frame, format, conversion, out, digest });
    }
    decode_planes(jobs, &limits.files, decoder).map_err(|(index, fault)| {
        let detail = format!("Plane {} of {planes}: {}", index + 1, fault.detail);
        Fault { detail, ..fault }
    })?;
    // SAFETY: the capacity was reserved; the slabs of `pixels` numbers are disjoint and cover the first `planes * pixels` ones, a job was
    // made for each, and `decode_planes` returns Ok only when every job's numbers have been written.
    unsafe { data.set_len(planes * pixels) };

    let quantity = match (ct, scale.is_some()) {
        (true, _) => {
            if series.hold.is_none() {
                series.hold = Census::of(&data, PADDED_HU).refusal();
                warn(series, series.hold.as_ref().map(|h| h.code));
            }
            if series.hold.is_none() { Quantity::Hu } else { Quantity::NotHu }
        }
        (false, true) => Quantity::SuvBw,
        (false, false) => Quantity::PetUnits,
    };
    let digest = series_digest(series, &applied, &digests);
    Ok(Channel { data, quantity, digest })
}

/// The SUV factors that the voxels are multiplied with, one a plane; `None` if they keep their unit. Leaves the reason with the series.
fn suv_scale(series: &mut Series, limits: &ReadLimits) -> Option<Vec<f64>> {
    let timing: Vec<PlaneTiming> = series.planes.iter().map(|p| p.timing).collect();
    let outcome = match &series.pet {
        Some(pet) => suv::factors(pet, &timing, limits.assume_mbq),
        None => Err(NoSuv::Unknown("the header says nothing of the unit".into())),
    };
    match outcome {
        Ok(SuvFactors { per_plane, decay_corrected, dose_in_mbq }) => {
            if dose_in_mbq {
                series.warnings.push(DOSE_ASSUMED.into());
            }
            if !decay_corrected {
                series.warnings.push("not_decay_corrected".into());
            }
            (limits.pet == PetValues::Suv).then_some(per_plane)
        }
        Err(why) => {
            warn(series, Some(why.code()));
            series.hold.get_or_insert(Refusal { code: why.code(), detail: why.to_string() });
            None
        }
    }
}

fn warn(series: &mut Series, code: Option<Code>) {
    let reason = code.map(|c| c.reason().to_owned()).filter(|r| !series.warnings.contains(r));
    series.warnings.extend(reason);
}

fn scaled(rescale: Rescale, factor: f64) -> Rescale {
    Rescale { slope: rescale.slope * factor, intercept: rescale.intercept * factor, ..rescale }
}

/// `[nz, ny, nx]` of a series.
pub(super) fn shape_of(series: &Series) -> Result<[usize; 3], Fault> {
    let shape = [series.planes.len(), series.geometry.rows, series.geometry.columns];
    if shape.contains(&0) { Err(Fault::new(Code::InternalBug, "A series without pixels.")) } else { Ok(shape) }
}

/// Index to patient LPS mm. For planes at uneven distances, the line through the first one with the mean step.
pub(super) fn affine_of(series: &Series) -> Result<Affine, Fault> {
    let g = &series.geometry;
    let times = |v: [f64; 3], s: f64| v.map(|x| x * s);
    let origin = series.planes.first().map(|p| p.position).unwrap_or_default();
    Affine::new(times(g.row_direction, g.pixel_spacing.dx), times(g.column_direction, g.pixel_spacing.dy), g.slice_step, origin)
        .ok_or_else(|| Fault::new(Code::InternalBug, "The geometry of the series gives no invertible affine."))
}

fn check_memory(case: &Case, limits: &ReadLimits) -> Result<(), Fault> {
    let (mut common, mut largest) = (0u64, 0u64);
    for (index, series) in case.channels.iter().enumerate() {
        let [z, y, x] = shape_of(series)?;
        let own = z as u64 * y as u64 * x as u64;
        largest = largest.max(own);
        if index == case.grid {
            common = own;
        }
    }
    // Of several channels the one that is being read is there beside the common grid.
    let several = case.channels.len() > 1;
    let voxels = common.saturating_mul(case.channels.len() as u64).saturating_add(if several { largest } else { 0 });
    let bytes = voxels.saturating_mul(size_of::<f32>() as u64);
    if bytes > limits.memory {
        return Err(Fault::new(Code::MemoryTooLarge, format!("It needs {bytes} bytes, {} are allowed.", limits.memory)));
    }
    Ok(())
}

fn reserve(data: &mut Vec<f32>, voxels: usize) -> Result<(), Fault> {
    let bytes = voxels.saturating_mul(size_of::<f32>());
    data.try_reserve_exact(voxels).map_err(|_| Fault::new(Code::MemoryTooLarge, format!("{bytes} bytes can not be had.")))
}

/// SHA-256 over the sorted planes of a series: SOP Instance UID, frame number, stored values, place, and how they become numbers.
fn series_digest(series: &Series, applied: &[Rescale], digests: &[[u8; 32]]) -> [u8; 32] {
    let mut planes: Vec<(&Plane, &Rescale, &[u8; 32])> =
        series.planes.iter().zip(applied).zip(digests).map(|((p, r), d)| (p, r, d)).collect();
    planes.sort_by_key(|(p, ..)| (p.sop_instance_uid.as_str(), p.frame));
    let g = &series.geometry;
    let mut hash = Sha256::new();
    let numbers = |hash: &mut Sha256, values: &[f64]| values.iter().for_each(|v| hash.update((v + 0.0).to_le_bytes()));
    hash.update((g.rows as u64).to_le_bytes());
    hash.update((g.columns as u64).to_le_bytes());
    numbers(&mut hash, &g.row_direction);
    numbers(&mut hash, &g.column_direction);
    numbers(&mut hash, &[g.pixel_spacing.dx, g.pixel_spacing.dy]);
    for (plane, rescale, digest) in planes {
        let uid = plane.sop_instance_uid.as_str();
        hash.update([uid.len() as u8]);
        hash.update(uid);
        hash.update(plane.frame.unwrap_or(0).to_le_bytes());
        hash.update(digest);
        hash.update([u8::from(plane.pixels.signed)]);
        numbers(&mut hash, &plane.position);
        numbers(&mut hash, &[rescale.slope, rescale.intercept]);
        for bound in plane.pixels.padding.map_or([1, 0], |(low, high)| [low, high]) {
            hash.update(bound.to_le_bytes());
        }
    }
    hash.finalize().into()
}

/// The key of a volume: over its channels in their order, and over which one's grid it is on where that is not the first's.
fn key(channels: &[[u8; 32]], grid: usize) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"stunetd volume 1");
    channels.iter().for_each(|c| hash.update(c));
    if grid > 0 {
        hash.update((grid as u64).to_le_bytes());
    }
    hash.finalize().into()
}
