//! From a window's features to the weighted sums over windows, without logits or probabilities in memory:
//! head, softmax, times weight, added.

use super::{Shared, elements, five, shape};
use crate::stunet::Error;
use crate::stunet::shim::parallel;
use crate::stunet::simd::{self, Bf16, Element, Kernel, exp};
use tch::{Device, Kind, Tensor};

/// Numbers in a 512-bit vector of f32.
const VECTOR: usize = 16;
/// Voxels that go through the head side by side: their sums of products fill vector registers.
const VOXELS: usize = 8;

/// A 1×1×1 head laid out for [`add_probabilities`].
pub(in crate::stunet) struct Head {
    features: usize,
    classes: usize,
    /// `classes`, rounded up to whole vectors.
    padded: usize,
    /// `[padded / VECTOR][features][VECTOR]`.
    weight: Vec<[f32; VECTOR]>,
    /// `[padded / VECTOR][VECTOR]`; below everything for classes that are none.
    bias: Vec<[f32; VECTOR]>,
}

impl Head {
    /// From the weight `[classes, features, 1, 1, 1]` and the bias `[classes]`.
    pub fn new(weight: &Tensor, bias: &Tensor) -> Result<Head, Error> {
        let [classes, features, ..] = five(weight)?;
        let flat = |t: &Tensor| -> Result<Vec<f32>, Error> {
            Ok(Vec::try_from(t.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_reshape([-1])?)?)
        };
        let (w, b) = (flat(weight)?, flat(bias)?);
        let blocks = classes.div_ceil(VECTOR);
        let class = |block: usize, lane: usize| Some(block * VECTOR + lane).filter(|&c| c < classes);
        let weight = (0..blocks * features)
            .map(|i| std::array::from_fn(|lane| class(i / features, lane).map_or(0.0, |c| w[c * features + i % features])))
            .collect();
        let bias = (0..blocks).map(|block| std::array::from_fn(|lane| class(block, lane).map_or(f32::MIN, |c| b[c]))).collect();
        Ok(Head { features, classes, padded: blocks * VECTOR, weight, bias })
    }
}

/// Adds `softmax(head(features)) * weights` to `sums`.
///
/// `features` is channels-last `[1, features, z, y, x]` (f32 or bf16); `weights` f32 `[z, y, x]`, contiguous; `sums` f32
/// `[z, y, x, classes]`, dense in its last two axes: a block of a larger tensor will do. All on the CPU.
pub(in crate::stunet) fn add_probabilities(head: &Head, features: &Tensor, weights: &Tensor, sums: &mut Tensor) -> Result<(), Error> {
    match features.f_kind()? {
        Kind::BFloat16 => Rows::<Bf16>::new(features, weights, sums, head.features, head.classes)?.probabilities(head),
        _ => Rows::<f32>::new(features, weights, sums, head.features, head.classes)?.probabilities(head),
    }
    Ok(())
}

/// Adds `features * weights` to `sums` `[z, y, x, features]`; layouts as for [`add_probabilities`].
pub(in crate::stunet) fn add_features(features: &Tensor, weights: &Tensor, sums: &mut Tensor) -> Result<(), Error> {
    let channels = five(features)?[1];
    match features.f_kind()? {
        Kind::BFloat16 => Rows::<Bf16>::new(features, weights, sums, channels, channels)?.features(),
        _ => Rows::<f32>::new(features, weights, sums, channels, channels)?.features(),
    }
    Ok(())
}

/// Rows along x of features, weights and sums.
struct Rows<'a, T> {
    features: &'a [T],
    weights: &'a [f32],
    sums: Shared<f32>,
    /// Distance of slices and rows in `sums`.
    strides: [usize; 2],
    /// Slices, rows in a slice, voxels in a row.
    size: [usize; 3],
    channels: usize,
    outputs: usize,
}

impl<'a, T: Element> Rows<'a, T> {
    fn new(features: &'a Tensor, weights: &'a Tensor, sums: &'a mut Tensor, channels: usize, outputs: usize) -> Result<Rows<'a, T>, Error> {
        let [n, c, z, y, x] = five(features)?;
        if n != 1 || c != channels {
            return Err(shape(features));
        }
        let is = |tensor: &Tensor, size: &[usize]| {
            tensor.size().iter().map(|&n| n as usize).eq(size.iter().copied()) && tensor.device() == Device::Cpu
        };
        let f32_of = |tensor: &Tensor| tensor.f_kind().is_ok_and(|kind| kind == Kind::Float);
        if !is(weights, &[z, y, x]) || !f32_of(weights) || !weights.is_contiguous() {
            return Err(shape(weights));
        }
        let strides: Vec<usize> = sums.stride().iter().map(|&s| s as usize).collect();
        let row = x * outputs;
        if !is(sums, &[z, y, x, outputs])
            || !f32_of(sums)
            || strides[2..] != [outputs, 1]
            || strides[1] < row
            || strides[0] < strides[1] * (y - 1) + row
        {
            return Err(shape(sums));
        }
        Ok(Rows {
            features: elements::<T>(features)?,
            // SAFETY: a contiguous CPU tensor of this many f32, borrowed for 'a.
            weights: unsafe { std::slice::from_raw_parts(weights.data_ptr().cast(), z * y * x) },
            sums: Shared(sums.data_ptr().cast()),
            strides: [strides[0], strides[1]],
            size: [z, y, x],
            channels,
            outputs,
        })
    }

    /// Runs `body` on each row: features, weights, sums.
    fn each(&self, body: impl Fn(&[T], &[f32], &mut [f32], &mut Vec<f32>) + Sync) {
        let [z, y, x] = self.size;
        parallel(z * y, |rows| {
            let mut scratch = Vec::new();
            for row in rows {
                let at = row / y * self.strides[0] + row % y * self.strides[1];
                // SAFETY: `new` has checked that rows lie in the tensor, which is borrowed mutably for as long as `self`
                // lives, and do not overlap.
                let sums = unsafe { std::slice::from_raw_parts_mut(self.sums.at(at), x * self.outputs) };
                let (features, weights) = (&self.features[row * x * self.channels..][..x * self.channels], &self.weights[row * x..][..x]);
                body(features, weights, sums, &mut scratch);
            }
        });
    }

    fn probabilities(&self, head: &Head) {
        self.each(|features, weights, sums, scratch| simd::run(Probabilities { features, weights, sums, head, scratch }));
    }

    fn features(&self) {
        self.each(|features, weights, sums, _| simd::run(Weighted { features, weights, sums }));
    }
}

struct Weighted<'a, T> {
    features: &'a [T],
    weights: &'a [f32],
    sums: &'a mut [f32],
}

impl<T: Element> Kernel for Weighted<'_, T> {
    #[inline(always)]
    fn run(self) {
        let channels = self.features.len() / self.weights.len().max(1);
        let voxels = self.sums.chunks_exact_mut(channels).zip(self.features.chunks_exact(channels));
        for ((sums, features), &weight) in voxels.zip(self.weights) {
            for (sum, value) in sums.iter_mut().zip(features) {
                *sum += value.widen() * weight;
            }
        }
    }
}

struct Probabilities<'a, T> {
    features: &'a [T],
    weights: &'a [f32],
    sums: &'a mut [f32],
    head: &'a Head,
    scratch: &'a mut Vec<f32>,
}

impl<T: Element> Kernel for Probabilities<'_, T> {
    #[inline(always)]
    fn run(self) {
        let Head { features: channels, classes, padded, weight, bias } = self.head;
        self.scratch.clear();
        self.scratch.resize(VOXELS * (channels + padded), 0.0);
        let (wide, logits) = self.scratch.split_at_mut(VOXELS * channels);
        let groups = self.features.chunks(VOXELS * channels).zip(self.weights.chunks(VOXELS));
        for ((features, weights), sums) in groups.zip(self.sums.chunks_mut(VOXELS * classes)) {
            for (wide, value) in wide.iter_mut().zip(features) {
                *wide = value.widen();
            }
            multiply(wide, *channels, weight, bias, logits);
            for ((logits, &weight), sums) in logits.chunks_exact_mut(*padded).zip(weights).zip(sums.chunks_exact_mut(*classes)) {
                let share = weight / exponentials(logits.as_chunks_mut().0);
                for (sum, e) in sums.iter_mut().zip(logits) {
                    *sum += *e * share;
                }
            }
        }
    }
}

/// Logits `[VOXELS][padded]` of features `[VOXELS][channels]`.
#[inline(always)]
fn multiply(features: &[f32], channels: usize, weight: &[[f32; VECTOR]], bias: &[[f32; VECTOR]], logits: &mut [f32]) {
    let padded = bias.len() * VECTOR;
    for (block, (weight, bias)) in weight.chunks_exact(channels).zip(bias).enumerate() {
        let mut sums = [*bias; VOXELS];
        for (feature, weight) in weight.iter().enumerate() {
            for voxel in 0..VOXELS {
                let value = features[voxel * channels + feature];
                for lane in 0..VECTOR {
                    sums[voxel][lane] = value.mul_add(weight[lane], sums[voxel][lane]);
                }
            }
        }
        for (voxel, sums) in sums.iter().enumerate() {
            logits[voxel * padded + block * VECTOR..][..VECTOR].copy_from_slice(sums);
        }
    }
}

/// Replaces logits by `exp(logit - largest)` and returns their sum.
#[inline(always)]
fn exponentials(logits: &mut [[f32; VECTOR]]) -> f32 {
    let mut largest = [f32::MIN; VECTOR];
    for block in logits.iter() {
        for lane in 0..VECTOR {
            largest[lane] = if block[lane] > largest[lane] { block[lane] } else { largest[lane] };
        }
    }
    let largest = largest.iter().fold(f32::MIN, |a, &b| if b > a { b } else { a });
    let mut sum = [0f32; VECTOR];
    for block in logits.iter_mut() {
        for lane in 0..VECTOR {
            block[lane] = exp(block[lane] - largest);
            sum[lane] += block[lane];
        }
    }
    sum.iter().sum()
}
