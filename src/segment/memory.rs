//! How much memory a study needs, said before any is reserved.

use super::SegmentError;
use super::aggregate::{CPU_SLAB_BYTES, CUDA_SLAB_BYTES, WINDOW_BYTES};
use super::label_sinks::DEVICE_BYTES;
use crate::models::{Aggregation, Manifest};

/// Full-resolution tensors of the first stage's width that are alive at once in the network's last stage.
const LIVE_TENSORS: u64 = 7;
/// As many more for what cuDNN takes to convolve: input and output once again, in its own layout.
const WORKSPACE_TENSORS: u64 = 3;
/// Windows that a CUDA device gets at once, where they fit.
const BATCHES: [usize; 4] = [8, 4, 2, 1];
/// libtorch's code and its own tables, convolution scratch space.
const LIBRARY_BYTES: u64 = 400 << 20;

/// The grids of a study, voxels along each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grids {
    /// The network's grid (`Prepared::shape`).
    pub network: [usize; 3],
    /// The cropped grid that labels are made on (`WayBack::cropped`).
    pub cropped: [usize; 3],
    /// The source grid (`WayBack::source_shape`).
    pub source: [usize; 3],
}

/// What of a study is held on the network's device while its windows run: each takes less memory of it than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Accumulation {
    /// Image and sums; the outputs of many slices are worked on at once.
    #[default]
    Device,
    /// The same, one slice of outputs at a time.
    Slabs,
    /// Neither: the host holds image, sums and labels, the device its weights and one window.
    Host,
}

/// Where and how a study would run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// On a CUDA device instead of the CPU.
    pub cuda: bool,
    /// Bytes of a number in the network's first stage, which holds the largest tensors: 4 for f32, 2 for bf16 and f16.
    pub number: usize,
    /// Windows that the network gets at once.
    pub batch: usize,
    /// What is held where.
    pub accumulation: Accumulation,
}

/// Bytes that a study needs at its peak, the model's weights included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Of the host.
    pub host: u64,
    /// Of the CUDA device; 0 on the CPU.
    pub device: u64,
}

/// Most bytes that may be used; `None`: no limit is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Of the host.
    pub host: Option<u64>,
    /// Of the CUDA device.
    pub device: Option<u64>,
}

/// What [`super::TorchEngine`] needs at its peak to segment a study with a model, from the manifest alone. An estimate from above
/// for the parts that grow with study and model; it saturates instead of overflowing.
pub fn bytes_needed(manifest: &Manifest, grids: &Grids, placement: &Placement) -> MemoryNeed {
    let architecture = &manifest.architecture;
    let patch = manifest.inference.patch;
    let padded: [usize; 3] = std::array::from_fn(|a| grids.network[a].max(patch[a]));
    let outputs = architecture.num_classes;
    let summed = match manifest.inference.aggregation {
        Aggregation::Softmax => outputs,
        Aggregation::Logits => outputs.min(architecture.dims[0]),
    };
    let number = placement.number as u64;
    let image = product(&[architecture.in_channels, voxels(padded), 4]);
    let weights = manifest.weights.parameters.saturating_mul(number.max(4));
    let tensors = if placement.cuda { LIVE_TENSORS + WORKSPACE_TENSORS } else { LIVE_TENSORS };
    let activations =
        product(&[voxels(patch), architecture.dims[0], placement.batch.max(1)]).saturating_mul(number).saturating_mul(tensors);
    let table = product(&[voxels(patch), 4, 2]);
    let sums = product(&[patch[0], padded[1], padded[2], summed.saturating_add(1), 4]);
    // The outputs of some slices: averaged, through the head, on their way to labels.
    let slice = product(&[padded[1], padded[2], outputs, 4]);
    let of_window = product(&[patch[1], patch[2], outputs, 4]);
    let thin = placement.accumulation != Accumulation::Device;
    let at_once = |least: u64, bytes: usize| if thin { least } else { least.max(bytes as u64) };
    let slabs = |bytes| at_once(slice, bytes).saturating_mul(3).saturating_add(at_once(of_window, WINDOW_BYTES).saturating_mul(2));
    let label = if manifest.labels.max_value() > 255 { 2 } else { 1 };
    let cropped_labels = product(&[voxels(grids.cropped), label]);
    let labels = cropped_labels.saturating_add(product(&[voxels(grids.source), label]));
    let sum = |parts: &[u64]| parts.iter().fold(0u64, |a, &b| a.saturating_add(b));
    let host = sum(&[image, labels, LIBRARY_BYTES]);
    if !placement.cuda {
        // Two slices are held to interpolate between, a third is filled.
        let held = slice.saturating_mul(3);
        return MemoryNeed { host: sum(&[host, image, weights, activations, table, sums, slabs(CPU_SLAB_BYTES), held]), device: 0 };
    }
    let interpolated = product(&[grids.cropped[1].max(padded[1]), grids.cropped[2].max(padded[2]), outputs, 4]);
    let interpolated = at_once(interpolated, DEVICE_BYTES).saturating_mul(3);
    // Image and labels once more, in page-locked memory on their way.
    let host = sum(&[host, image, cropped_labels]);
    let blending = table.saturating_add(sums);
    let device = sum(&[weights, activations, slabs(CUDA_SLAB_BYTES), LIBRARY_BYTES]);
    match placement.accumulation {
        Accumulation::Host => MemoryNeed { host: sum(&[host, image, blending, slice.saturating_mul(6)]), device },
        _ => MemoryNeed { host, device: sum(&[device, image, interpolated, cropped_labels, blending]) },
    }
}

impl MemoryNeed {
    /// Refuses what exceeds the limits, with the numbers.
    pub fn check(&self, limits: &MemoryLimits, network: [usize; 3]) -> Result<(), SegmentError> {
        let one = |name: &str, needed: u64, limit: Option<u64>| match limit {
            Some(limit) if needed > limit => Err(SegmentError::TooLarge {
                what: format!("{name} memory for a grid of {} × {} × {} voxels", network[0], network[1], network[2]),
                needed: needed.div_ceil(1 << 20),
                limit: limit >> 20,
            }),
            _ => Ok(()),
        };
        one("host", self.host, limits.host)?;
        one("device", self.device, limits.device)
    }
}

/// The ladder of a device that has memory of its own, fastest first: ever smaller batches, one window, one slice of outputs at a time, sums
/// on the host. `windows`: how many there are to run side by side.
pub(super) fn ladder(cuda: bool, number: usize, windows: usize) -> Vec<Placement> {
    let single = Placement { cuda, number, batch: 1, accumulation: Accumulation::Device };
    let useful = BATCHES.into_iter().filter(|&batch| batch == 1 || batch / 2 < windows);
    let mut placements: Vec<Placement> = useful.map(|batch| Placement { batch, ..single }).collect();
    placements.extend([Accumulation::Slabs, Accumulation::Host].map(|accumulation| Placement { accumulation, ..single }));
    placements
}

/// The part of the ladder of a CUDA device that fits its limit. There is always one placement, the most frugal.
pub(super) fn placements_on_device(
    manifest: &Manifest,
    grids: &Grids,
    number: usize,
    windows: usize,
    limits: &MemoryLimits,
) -> Vec<Placement> {
    let mut placements = ladder(true, number, windows);
    let fits = |placement: &Placement| limits.device.is_none_or(|limit| bytes_needed(manifest, grids, placement).device <= limit);
    let first = placements.iter().position(fits).unwrap_or(placements.len() - 1);
    placements.split_off(first)
}

fn voxels(shape: [usize; 3]) -> usize {
    shape.iter().fold(1, |a, &b| a.saturating_mul(b))
}

fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1u64, |a, &b| a.saturating_mul(b as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_with_the_memory() {
        let model = crate::models::Generation::open(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"));
        let manifest = model.expect("models/demo").manifest;
        let grids = Grids { network: [40, 200, 180], cropped: [80, 400, 360], source: [80, 512, 512] };
        let all = |windows, device| placements_on_device(&manifest, &grids, 2, windows, &MemoryLimits { host: None, device });
        use Accumulation::{Device, Host, Slabs};
        let shape = |placements: &[Placement]| placements.iter().map(|p| (p.batch, p.accumulation)).collect::<Vec<_>>();
        let every = all(100, None);
        assert_eq!(shape(&every), [(8, Device), (4, Device), (2, Device), (1, Device), (1, Slabs), (1, Host)]);
        let needs: Vec<u64> = every.iter().map(|p| bytes_needed(&manifest, &grids, p).device).collect();
        assert!(needs.is_sorted_by(|a, b| a > b), "{needs:?}");
        for (i, &need) in needs.iter().enumerate() {
            assert_eq!(all(100, Some(need)), every[i..]);
            assert_eq!(all(100, Some(need - 1)), every[(i + 1).min(5)..], "the last is tried even where it does not fit");
        }
        // No larger batch than there is work for.
        assert_eq!(shape(&all(3, None))[0], (4, Device));
        assert_eq!(shape(&all(1, None)), [(1, Device), (1, Slabs), (1, Host)]);
        assert!(all(1, None).iter().all(|p| p.cuda && p.number == 2));
    }
}
