//! From a volume to the network's grid: orientation, crop, normalisation, resampling.

use super::crop::{nonzero_mask, nonzero_region};
use super::normalize::VoxelMap;
use super::orient::Axes;
use super::rectify::rectify;
use super::resample::{Grid, Interpolation, LabelRule, Resize, Rows, resampled_shape, resize_labels, separate_axis};
use super::{Limits, Prepared, Quantity, Source, Volume, WayBack};
use crate::fault::{Code, Fault};
use crate::models::{Manifest, NormalizationOrder, Orientation, Preprocessing, Resampling};
use rayon::prelude::*;

/// Why a volume can not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The image has another number of channels than the model.
    #[error("the image has {image} channel(s), the model takes {model}")]
    Channels {
        /// Of the image.
        image: usize,
        /// Of the model.
        model: usize,
    },
    /// A channel whose values are not what models are made for.
    #[error("channel {channel} is not segmented: {detail}")]
    Held {
        /// The channel, from 0.
        channel: usize,
        /// Why.
        code: Code,
        /// What exactly.
        detail: String,
    },
    /// The number of voxels does not fit the shape, or there are none.
    #[error("the volume's voxels do not fill its shape")]
    Dimensions,
    /// Slices that do not rise along their normal.
    #[error("the positions of the slices do not rise along their normal")]
    Slices,
    /// The network's grid would be too large.
    #[error("{channels} channel(s) of {shape:?} voxels are needed; at most {limit} voxels are allowed")]
    TooLarge {
        /// The shape of the grid.
        shape: [usize; 3],
        /// Its channels.
        channels: usize,
        /// The limit.
        limit: u64,
    },
    /// NaN or infinity in the image, or made by its normalisation.
    #[error("channel {channel} has {voxels} voxels that are not finite numbers after normalisation")]
    NotFinite {
        /// The channel, from 0.
        channel: usize,
        /// How many.
        voxels: usize,
    },
}

impl From<PrepareError> for Fault {
    fn from(error: PrepareError) -> Fault {
        let code = match &error {
            PrepareError::Channels { .. } => Code::ModelChannels,
            PrepareError::Held { code, .. } => *code,
            PrepareError::Dimensions => Code::InternalBug,
            PrepareError::Slices => Code::SeriesNonCollinear,
            PrepareError::TooLarge { .. } => Code::MemoryTooLarge,
            PrepareError::NotFinite { .. } => Code::VolumeNotFinite,
        };
        Fault::new(code, format!("{error}.")).caused_by(error)
    }
}

/// Brings a volume onto the grid that the model's manifest asks for, with nnU-Net's steps in the order of its version: v2 normalises the
/// cropped image and resamples, v1 resamples and normalises. v1 also takes NaN for 0.
///
/// Tilted or unevenly spaced slices are made upright and even first (`WayBack::rectified`).
///
/// Memory: beside the volume the result, and per channel at most one array that is resampled along some axes only; for slices that had to
/// be made upright also the upright copy. Models that normalise inside a mask hold one byte a voxel for it.
///
/// # Errors
/// `model.channel_mismatch`, `memory.volume_too_large` (before memory is reserved), `volume.not_finite`, `series.non_collinear`, or the code for which
/// a series is held back (`quantity.*`).
pub fn prepare(volume: &Volume, manifest: &Manifest, limits: &Limits) -> Result<Prepared, Fault> {
    Ok(prepare_volume(volume, manifest, limits)?)
}

fn prepare_volume(volume: &Volume, manifest: &Manifest, limits: &Limits) -> Result<Prepared, PrepareError> {
    let steps = &manifest.preprocessing;
    let channels = volume.channels;
    if channels != steps.channels.len() || channels == 0 {
        return Err(PrepareError::Channels { image: channels, model: steps.channels.len() });
    }
    if volume.data.is_empty() || Some(volume.data.len()) != volume.shape.iter().try_fold(channels, |n, &s| n.checked_mul(s)) {
        return Err(PrepareError::Dimensions);
    }
    (0..channels).try_for_each(|channel| may_be_segmented(volume, channel))?;
    let upright = rectify(volume, steps.spacing.into_iter().fold(f64::INFINITY, f64::min), limits)?;
    let (data, shape, affine, spacing) = match &upright {
        Some(u) => (&u.data, u.slices.shape, &u.affine, u.spacing),
        None => (&volume.data, volume.shape, &volume.affine, volume.spacing_zyx()),
    };
    let axes = match steps.orientation {
        Orientation::AsStored => Axes::AS_STORED,
        Orientation::Ras => Axes::ras(affine),
    };
    let axes = axes.transposed(steps.transpose);

    // in source order, where rows are contiguous
    let whole: Vec<Grid<f32>> = data.chunks_exact(shape.iter().product()).map(|channel| Grid::new(channel, shape)).collect();
    let region = nonzero_region(&whole);
    let inside: Vec<Grid<f32>> = whole.iter().map(|grid| grid.cropped(region.start, region.shape)).collect();
    let mask = steps.channels.iter().any(|channel| channel.use_mask).then(|| nonzero_mask(&inside));
    // in network order
    let turned = inside.iter().map(|grid| grid.reordered(axes.source_axis).flipped(axes.flipped));
    let mask = mask.as_ref().map(|mask| Grid::new(mask, region.shape).reordered(axes.source_axis).flipped(axes.flipped));
    let (uncropped, cropped, from_low) = (axes.pick(shape), axes.pick(region.shape), axes.pick(region.start));
    let crop_start = std::array::from_fn(|a| if axes.flipped[a] { uncropped[a] - from_low[a] - cropped[a] } else { from_low[a] });

    let grid = NetworkGrid::new(cropped, axes.pick(spacing), steps);
    let voxels =
        limits.voxels(channels, grid.shape).ok_or(PrepareError::TooLarge { shape: grid.shape, channels, limit: limits.max_voxels })?;
    let mut prepared = Vec::new();
    for (c, image) in turned.enumerate() {
        let one = grid.channel(&image, mask.as_ref(), steps, c);
        let bad = one.par_chunks(1 << 16).map(|chunk| chunk.iter().filter(|v| !v.is_finite()).count()).sum();
        if bad > 0 {
            return Err(PrepareError::NotFinite { channel: c, voxels: bad });
        }
        if channels == 1 {
            prepared = one;
        } else {
            prepared.reserve_exact(voxels - prepared.len());
            prepared.extend_from_slice(&one);
        }
    }
    let back = WayBack {
        cropped,
        separate_axis: grid.separate_on_return,
        crop_start,
        uncropped,
        source_axis: axes.source_axis,
        flipped: axes.flipped,
        source_shape: volume.shape,
        rectified: upright.map(|u| u.slices),
        affine: volume.affine,
        table: manifest.labels.clone(),
        source: volume.source.clone(),
    };
    Ok(Prepared { data: prepared, channels, shape: grid.shape, back })
}

/// Refuses HU that are none and PET that has no SUV; the series says why.
fn may_be_segmented(volume: &Volume, channel: usize) -> Result<(), PrepareError> {
    let (code, detail) = match volume.quantity.get(channel) {
        Some(Quantity::NotHu) => (Code::QuantityNotHu, "its values are not HU"),
        Some(Quantity::PetUnits) => (Code::QuantitySuv, "its values are not SUV"),
        Some(Quantity::Hu | Quantity::SuvBw | Quantity::Unknown) | None => return Ok(()),
    };
    let hold = match &volume.source {
        Source::Case(case) => case.channels.get(channel).and_then(|series| series.hold.clone()),
        Source::Nifti { .. } => None,
    };
    let (code, detail) = hold.map_or_else(|| (code, detail.to_owned()), |refusal| (refusal.code, refusal.detail));
    Err(PrepareError::Held { channel, code, detail })
}

/// The grid that the network sees, and how to get there from the cropped image. Network axis order.
struct NetworkGrid {
    shape: [usize; 3],
    resize: Resize,
    /// For the interpolation of the network's outputs back to the cropped shape.
    separate_on_return: Option<usize>,
}

impl NetworkGrid {
    fn new(cropped: [usize; 3], spacing: [f64; 3], steps: &Preprocessing) -> NetworkGrid {
        let shape = resampled_shape(cropped, spacing, steps.spacing).map(|n| n.max(1));
        let interpolation = match steps.resampling {
            Resampling::Default => Interpolation::Cubic,
            Resampling::Torch => Interpolation::Linear,
        };
        let separate_on_return = match steps.order {
            NormalizationOrder::ResampleFirst => separate_axis(spacing, steps.spacing),
            NormalizationOrder::NormalizeFirst => separate_axis(steps.spacing, spacing),
        };
        let resize = Resize { to: shape, interpolation, separate_axis: separate_axis(spacing, steps.spacing) };
        NetworkGrid { shape, resize, separate_on_return }
    }

    /// One channel, resampled and normalised.
    fn channel(&self, image: &Grid<f32>, mask: Option<&Grid<u8>>, steps: &Preprocessing, c: usize) -> Vec<f32> {
        let (channel, order) = (&steps.channels[c], steps.order);
        if order == NormalizationOrder::NormalizeFirst {
            let map = VoxelMap::of(channel, order, image, mask);
            return match map.is_identity() {
                true => self.resize.apply(image),
                false => self.resize.apply(&Changed { image: *image, change: Change::Map(map, mask.copied()) }),
            };
        }
        let mut out = self.resize.apply(&Changed { image: *image, change: Change::NanToZero });
        let mask = mask.filter(|_| channel.use_mask).map(|mask| self.resized_mask(mask));
        let mask = mask.as_ref().map(|mask| Grid::new(mask, self.shape));
        let map = VoxelMap::of(channel, order, &Grid::new(&out, self.shape), mask.as_ref());
        if !map.is_identity() {
            let [_, rows, width] = self.shape;
            out.par_chunks_mut((rows * width).max(1)).enumerate().for_each(|(a, plane)| {
                for (b, row) in plane.chunks_mut(width).enumerate() {
                    map.apply(row, mask.iter().flat_map(|m| m.row(a, b)));
                }
            });
        }
        out
    }

    /// The mask as v1 resamples its segmentation: outside where more than half of the interpolated weight is.
    fn resized_mask(&self, mask: &Grid<u8>) -> Vec<u8> {
        let shape = mask.shape();
        let mut dense = vec![0; shape.iter().product()];
        for (i, row) in dense.chunks_mut(shape[2].max(1)).enumerate() {
            mask.read(i / shape[1], i % shape[1], row);
        }
        resize_labels(&dense, shape, self.shape, self.resize.separate_axis, LabelRule::Majority)
    }
}

/// What is done to rows as the resize reads them.
#[derive(Clone, Copy)]
enum Change<'a> {
    NanToZero,
    Map(VoxelMap, Option<Grid<'a, u8>>),
}

/// An image whose rows are changed as they are read, so that no changed copy has to be kept.
struct Changed<'a> {
    image: Grid<'a, f32>,
    change: Change<'a>,
}

impl Rows for Changed<'_> {
    fn shape(&self) -> [usize; 3] {
        self.image.shape()
    }

    fn read(&self, a: usize, b: usize, row: &mut [f32]) {
        self.image.read(a, b, row);
        match &self.change {
            Change::NanToZero => row.iter_mut().for_each(|v| *v = if v.is_nan() { 0.0 } else { *v }),
            Change::Map(map, mask) => map.apply(row, mask.iter().flat_map(|m| m.row(a, b))),
        }
    }

    fn reordered(&self, order: [usize; 3]) -> Self {
        let change = match self.change {
            Change::Map(map, mask) => Change::Map(map, mask.map(|m| m.reordered(order))),
            Change::NanToZero => Change::NanToZero,
        };
        Changed { image: self.image.reordered(order), change }
    }
}
