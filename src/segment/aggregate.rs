//! Windows through the network, blended, and handed on slab by slab.
//!
//! Rows of windows with one z start run one after the other, z ascending. Sums are held for as many slices as a window is
//! deep. Once a row is done, no later window touches the slices before the next row: they are divided by their weights and
//! given to the sink, and their memory serves the slices to come.

use super::gaussian::gaussian;
use super::sums::{Block, Sums};
use super::tiles::Tiling;
use super::timings::{Timer, Timings};
use super::{Accumulation, Progress, SegmentError};
use crate::models::Aggregation;
use crate::stunet::Network;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// How windows are averaged.
#[derive(Clone, Debug, PartialEq)]
pub struct Blending {
    /// Logits or probabilities.
    pub aggregation: Aggregation,
    /// Each output is a region of its own: its probability is a sigmoid instead of a softmax over all.
    pub regions: bool,
    /// Axes (0, 1, 2) whose mirrored copies are averaged, all subsets of them; empty: none.
    pub mirror_axes: Vec<usize>,
    /// Windows (and mirrored copies) that the network gets at once.
    pub batch: usize,
    /// What is held on the network's device.
    pub accumulation: Accumulation,
}

/// Takes finished slices of averaged outputs, ascending in z.
pub trait SlabSink {
    /// The next slices: f32 `[n, y, x, output]`, contiguous; logits or probabilities as the blending says.
    fn slab(&mut self, values: &Tensor) -> Result<(), SegmentError>;
}

impl Accumulation {
    /// Where image and sums are.
    pub(super) fn sums_on(self, device: Device) -> Device {
        if self == Accumulation::Host { Device::Cpu } else { device }
    }
}

/// What is summed up over windows.
#[derive(Clone, Copy, PartialEq)]
enum Summed {
    /// Decoder features: the head is linear, so it may come after the average.
    Features,
    /// Logits, where there are fewer of them than features.
    Logits,
    /// Probabilities.
    Probabilities,
}

/// Bytes of outputs that are averaged at once on the CPU: about what stays in the caches.
pub(super) const CPU_SLAB_BYTES: usize = 32 << 20;
/// Bytes of a window's outputs that are worked on at once: threads want parts of some size.
pub(super) const WINDOW_BYTES: usize = 128 << 20;
/// Bytes of outputs that are averaged at once on a CUDA device.
pub(super) const CUDA_SLAB_BYTES: usize = 256 << 20;

/// Runs all windows of `tiling` over `input` (f32 `[channel, z, y, x]` of the padded grid) and gives every slice of the grid
/// without padding to `sink`. `progress` is called after every window and stops the run by answering `false`.
pub fn aggregate(
    network: &Network,
    input: Tensor,
    tiling: &Tiling,
    blending: &Blending,
    sink: &mut dyn SlabSink,
    timings: &mut Timings,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<(), SegmentError> {
    let _no_gradients = tch::no_grad_guard();
    let image = input.f_to_device(blending.accumulation.sums_on(network.device()))?;
    drop(input);
    let mut run = Run::new(network, tiling, blending, timings.exact)?;
    let starts = &tiling.starts[0];
    for (row, &z) in starts.iter().enumerate() {
        run.row(&image, z, timings, progress)?;
        let end = starts.get(row + 1).copied().unwrap_or(tiling.padded[0]);
        run.release(z..end, sink, timings)?;
        if row + 1 < starts.len() {
            run.sums.clear(z..end)?;
        }
    }
    Ok(())
}

/// A study on its way.
struct Run<'a> {
    network: &'a Network,
    tiling: &'a Tiling,
    blending: &'a Blending,
    summed: Summed,
    sums: Sums,
    /// Weights `[z, y, x]` of a window's voxels, and the same shared among the mirrored copies.
    weights: Tensor,
    weights_of_copy: Tensor,
    /// Axes to flip, for each copy.
    copies: Vec<Vec<i64>>,
    /// Slices of the grid whose outputs are worked on at once, and slices of a window.
    slab: usize,
    slab_of_window: usize,
    timer: Timer,
    done: usize,
}

impl<'a> Run<'a> {
    fn new(network: &'a Network, tiling: &'a Tiling, blending: &'a Blending, exact: bool) -> Result<Run<'a>, SegmentError> {
        let architecture = network.architecture();
        let (features, outputs) = (architecture.dims[0], architecture.num_classes);
        let summed = match blending.aggregation {
            Aggregation::Softmax => Summed::Probabilities,
            Aggregation::Logits if outputs <= features => Summed::Logits,
            Aggregation::Logits => Summed::Features,
        };
        let channels = if summed == Summed::Features { features } else { outputs };
        // The reference weighs a single window of a v1 model evenly.
        let table = match blending.aggregation {
            Aggregation::Softmax if tiling.windows() == 1 => vec![1.0; tiling.patch.iter().product()],
            aggregation => gaussian(tiling.patch, aggregation),
        };
        let copies = copies(&blending.mirror_axes)?;
        let sums_on = blending.accumulation.sums_on(network.device());
        let weights = Tensor::f_from_slice(&table)?.f_view(tiling.patch.map(|p| p as i64))?.f_to_device(sums_on)?;
        let slices = |bytes: usize, edges: [usize; 3]| match blending.accumulation {
            Accumulation::Device => (bytes / (edges[1] * edges[2] * outputs * size_of::<f32>())).max(1),
            Accumulation::Slabs | Accumulation::Host => 1,
        };
        let slab_bytes = match network.device() {
            Device::Cuda(_) => CUDA_SLAB_BYTES,
            _ => CPU_SLAB_BYTES,
        };
        Ok(Run {
            network,
            tiling,
            blending,
            summed,
            sums: Sums::new([tiling.patch[0], tiling.padded[1], tiling.padded[2]], channels, sums_on)?,
            weights_of_copy: weights.f_div_scalar(copies.len() as f64)?,
            weights,
            copies,
            slab: slices(slab_bytes, tiling.padded),
            slab_of_window: slices(WINDOW_BYTES, tiling.patch),
            timer: Timer::new(network.device(), exact)?,
            done: 0,
        })
    }

    /// Runs the windows that start at slice `z`.
    fn row(
        &mut self,
        input: &Tensor,
        z: usize,
        timings: &mut Timings,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(), SegmentError> {
        let of = self.tiling.windows() * self.copies.len();
        let jobs: Vec<([usize; 3], usize)> =
            self.tiling.row().flat_map(|[y, x]| (0..self.copies.len()).map(move |copy| ([z, y, x], copy))).collect();
        let watch = self.timer.start_many();
        for batch in batches(&jobs, self.blending.batch) {
            let windows = self.timer.run(&mut timings.gather, || self.gather(input, batch))?;
            let features = self.timer.run(&mut timings.network, || Ok(self.network.features(&windows)?))?;
            drop(windows);
            for (i, &(start, copy)) in batch.iter().enumerate() {
                self.timer.run(&mut timings.accumulate, || {
                    let window = self.unmirror(&features.f_narrow(0, i as i64, 1)?, copy)?;
                    self.add(start, &window, copy)
                })?;
                self.done += 1;
                timings.windows += 1;
                if !progress(Progress { done: self.done, of }) {
                    return Err(SegmentError::Stopped { done: self.done, of });
                }
            }
        }
        self.timer.stop(watch, &mut timings.network)
    }

    /// The images of a batch, `[n, channel, z, y, x]`, mirrored where the copy asks for it.
    fn gather(&self, input: &Tensor, batch: &[([usize; 3], usize)]) -> Result<Tensor, SegmentError> {
        let mut windows = Vec::with_capacity(batch.len());
        for &(start, copy) in batch {
            let mut window = input.shallow_clone();
            for ((dimension, start), length) in (1..).zip(start).zip(self.tiling.patch) {
                window = window.f_narrow(dimension, start as i64, length as i64)?;
            }
            windows.push(if copy == 0 { window } else { window.f_flip(shifted(&self.copies[copy], 1))? });
        }
        Ok(Tensor::f_stack(&windows, 0)?)
    }

    /// Features `[1, feature, z, y, x]` of a mirrored copy, as the window lies.
    fn unmirror(&self, features: &Tensor, copy: usize) -> Result<Tensor, SegmentError> {
        Ok(if copy == 0 { features.shallow_clone() } else { features.f_flip(shifted(&self.copies[copy], 2))? })
    }

    /// Adds a window, given by its features `[1, feature, z, y, x]`, to the sums; the first copy brings the weights too.
    fn add(&self, start: [usize; 3], features: &Tensor, copy: usize) -> Result<(), SegmentError> {
        for mut block in self.sums.blocks(start, self.tiling.patch)? {
            let (from, slices) = (block.from, block.slices);
            if copy == 0 {
                let _ = block.weights.f_add_(&self.weights.f_narrow(0, from, slices)?)?;
            }
            let part = features.f_narrow(2, from, slices)?;
            let weights = self.weights_of_copy.f_narrow(0, from, slices)?;
            let together = self.blending.accumulation != Accumulation::Host;
            match self.summed {
                Summed::Features if together => self.network.add_features(&part, &weights, &mut block.values)?,
                // Fused on the CPU. A CUDA device would hold a whole window's logits and probabilities.
                Summed::Probabilities if together && self.network.device() == Device::Cpu && !self.blending.regions => {
                    self.network.add_probabilities(&part, &weights, &mut block.values)?;
                }
                _ => self.add_outputs(&part, &weights, &mut block)?,
            }
        }
        Ok(())
    }

    /// Adds what the network has no single step for. Outputs of a whole window can be larger than all else: some slices at a time.
    fn add_outputs(&self, features: &Tensor, weights: &Tensor, block: &mut Block) -> Result<(), SegmentError> {
        for first in (0..block.slices).step_by(self.slab_of_window) {
            let part = features.f_narrow(2, first, block.slices.min(first + self.slab_of_window as i64) - first)?;
            let values = match self.summed {
                Summed::Features => voxels_first(&part)?.f_to_kind(Kind::Float)?,
                Summed::Logits => self.logits(&part)?,
                Summed::Probabilities if self.blending.regions => self.logits(&part)?.f_sigmoid()?,
                Summed::Probabilities => self.logits(&part)?.f_softmax(-1, Kind::Float)?,
            };
            block.add(first, &values, weights)?;
        }
        Ok(())
    }

    /// Logits f32 `[z, y, x, output]` of features `[1, feature, z, y, x]`.
    fn logits(&self, features: &Tensor) -> Result<Tensor, SegmentError> {
        Ok(voxels_first(&self.network.head(features)?)?.f_to_kind(Kind::Float)?)
    }

    /// Hands finished slices of the padded grid on.
    fn release(&mut self, slices: Range<usize>, sink: &mut dyn SlabSink, timings: &mut Timings) -> Result<(), SegmentError> {
        let below = self.tiling.pad_below[0];
        let wanted = slices.start.max(below)..slices.end.min(below + self.tiling.shape[0]);
        let watch = self.timer.start_many();
        for piece in self.sums.pieces(wanted, self.slab) {
            let (timer, sums, tiling) = (&self.timer, &self.sums, self.tiling);
            let mean = timer.run(&mut timings.head, || {
                let mean = sums.mean(piece.clone(), [1, 2].map(|a| tiling.pad_below[a]..tiling.pad_below[a] + tiling.shape[a]))?;
                match self.summed {
                    Summed::Features => Ok(self.logits(&mean.f_permute([3, 0, 1, 2])?.f_unsqueeze(0)?)?.f_contiguous()?),
                    Summed::Logits | Summed::Probabilities => Ok(mean),
                }
            })?;
            timer.run(&mut timings.export, || sink.slab(&mean))?;
        }
        self.timer.stop(watch, &mut timings.export)
    }
}

/// Cuts jobs into batches of at most `most`. What is left at the end goes in halves of that, quarters and so on: a device
/// prepares itself for every size of batch that it meets, so they should be few.
fn batches<T>(jobs: &[T], most: usize) -> Vec<&[T]> {
    let (mut batches, mut rest, mut size) = (Vec::new(), jobs, most.max(1));
    while !rest.is_empty() {
        while size > rest.len() {
            size /= 2;
        }
        let (batch, after) = rest.split_at(size);
        batches.push(batch);
        rest = after;
    }
    batches
}

/// The axes to flip for each copy: first none, then every subset of the mirror axes.
fn copies(mirror_axes: &[usize]) -> Result<Vec<Vec<i64>>, SegmentError> {
    let mut axes = mirror_axes.to_vec();
    axes.sort_unstable();
    axes.dedup();
    if axes.iter().any(|&a| a > 2) {
        return Err(SegmentError::Inconsistent(format!("mirror axes {mirror_axes:?}; axes are 0, 1 and 2")));
    }
    Ok((0..1usize << axes.len())
        .map(|subset| (0..axes.len()).filter(|bit| subset >> bit & 1 == 1).map(|bit| axes[bit] as i64).collect())
        .collect())
}

/// Dimensions of a tensor whose spatial axes start at `first`.
fn shifted(axes: &[i64], first: i64) -> Vec<i64> {
    axes.iter().map(|a| a + first).collect()
}

/// `[1, c, z, y, x]` seen as `[z, y, x, c]`; contiguous where the network lays its tensors out channels last.
fn voxels_first(tensor: &Tensor) -> Result<Tensor, SegmentError> {
    Ok(tensor.f_squeeze_dim(0)?.f_permute([1, 2, 3, 0])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_few_sizes() {
        let sizes = |jobs: usize, most: usize| batches(&vec![(); jobs], most).iter().map(|b| b.len()).collect::<Vec<_>>();
        assert_eq!([sizes(23, 8), sizes(3, 8), sizes(0, 8)], [vec![8, 8, 4, 2, 1], vec![2, 1], vec![]]);
        assert_eq!([sizes(3, 1), sizes(3, 0)], [vec![1; 3], vec![1; 3]]);
    }

    #[test]
    fn copies_are_all_subsets() {
        assert_eq!(copies(&[]).ok(), Some(vec![vec![]]));
        assert_eq!(copies(&[2, 0]).ok(), Some(vec![vec![], vec![0], vec![2], vec![0, 2]]));
        assert_eq!(copies(&[0, 1, 2]).map(|c| c.len()).ok(), Some(8));
        assert!(copies(&[3]).is_err());
    }
}
