//! What a loss over softmax probabilities needs of the logits: a few sums, and the gradient that goes with them.
//!
//! A loss is a function of [`Sums`]; its derivatives by them are [`Slopes`]. On the CPU both passes run over the logits as
//! they lie in memory and hold neither probabilities nor one-hot labels; elsewhere libtorch's operators do the same
//! (`plain`). Softmax runs over the classes that are allowed in a sample: all, or the background and those that a person
//! reviewed. The gradient of the logits of all other classes is exactly 0.

use super::real::Real;
use crate::stunet::Error;
use crate::stunet::fused::{Shared, five, is_channels_last};
use crate::stunet::shim::parallel;
use crate::stunet::simd::{self, Kernel};
use tch::{Device, Kind, Tensor};

/// The label of a voxel that no loss looks at.
pub const IGNORED: u16 = u16::MAX;
/// Voxels side by side in a block.
pub(super) const LANES: usize = 16;
/// Voxels in a part that one thread takes at a time.
const PART: usize = 4096;
/// A class without a place among the allowed ones.
const NOWHERE: u16 = u16::MAX;

/// The labels of a batch, and the classes that softmax runs over in each of its samples.
pub struct Truth {
    /// `[N, X, Y, Z]`, row-major; [`IGNORED`], or a class. A class that is not allowed in the sample is ignored too.
    pub labels: Vec<u16>,
    /// Per sample: the allowed classes, ascending.
    pub allowed: Vec<Vec<u16>>,
}

/// Sums over the voxels of one sample that are not ignored. Vectors are indexed by class; 0 for classes that are not
/// allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// Of `-ln p[label]`.
    pub entropy: f64,
    /// Voxels.
    pub voxels: u64,
    /// Of `p[c]` where the label is `c`.
    pub hit: Vec<f64>,
    /// Of `p[c]`.
    pub predicted: Vec<f64>,
    /// Voxels with label `c`.
    pub truth: Vec<f64>,
}

/// The derivatives of a loss by the [`Sums`] of one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Slopes {
    /// By `entropy`.
    pub entropy: f64,
    /// By `hit[c]`.
    pub hit: Vec<f64>,
    /// By `predicted[c]`.
    pub predicted: Vec<f64>,
}

impl Sums {
    pub(super) fn zero(classes: usize) -> Sums {
        Sums { entropy: 0.0, voxels: 0, hit: vec![0.0; classes], predicted: vec![0.0; classes], truth: vec![0.0; classes] }
    }
}

/// The sums of each sample; `logits` is `[N, K, X, Y, Z]`, f32 or f64, in any layout.
pub fn softmax_sums(logits: &Tensor, truth: &Truth) -> Result<Vec<Sums>, Error> {
    let classes = check(logits, truth)?;
    if logits.device() != Device::Cpu {
        return super::plain::softmax_sums(logits, truth);
    }
    match logits.f_kind()? {
        Kind::Double => sums_of::<f64>(logits, truth, classes),
        _ => sums_of::<f32>(logits, truth, classes),
    }
}

/// The gradient of the loss by the logits, as they are shaped; on the CPU laid out as they are.
pub fn softmax_gradient(logits: &Tensor, truth: &Truth, slopes: &[Slopes]) -> Result<Tensor, Error> {
    let classes = check(logits, truth)?;
    if slopes.len() != truth.allowed.len() || slopes.iter().any(|s| s.hit.len() != classes || s.predicted.len() != classes) {
        return Err(Error::Input("slopes that do not fit the logits".into()));
    }
    if logits.device() != Device::Cpu {
        return super::plain::softmax_gradient(logits, truth, slopes);
    }
    match logits.f_kind()? {
        Kind::Double => gradient_of::<f64>(logits, truth, slopes),
        _ => gradient_of::<f32>(logits, truth, slopes),
    }
}

/// Checks that labels and classes fit; returns the number of classes.
pub(super) fn check(logits: &Tensor, truth: &Truth) -> Result<usize, Error> {
    let [n, k, x, y, z] = five(logits)?;
    let ascending = |allowed: &Vec<u16>| allowed.windows(2).all(|pair| pair[0] < pair[1]);
    let known = |allowed: &Vec<u16>| allowed.last().is_some_and(|&last| usize::from(last) < k);
    let labels = truth.labels.iter().all(|&label| label == IGNORED || usize::from(label) < k);
    if truth.labels.len() != n * x * y * z || truth.allowed.len() != n || !labels || k >= usize::from(NOWHERE) {
        return Err(Error::Input(format!("labels that do not fit logits of shape {:?}", logits.size())));
    }
    if !truth.allowed.iter().all(|allowed| ascending(allowed) && known(allowed)) {
        return Err(Error::Input(format!("the allowed classes are not an ascending choice of {k}")));
    }
    Ok(k)
}

/// How far apart the numbers of neighbouring classes and voxels of a sample lie in memory.
#[derive(Clone, Copy)]
struct Layout {
    class: usize,
    voxel: usize,
}

/// The logits in one of the two layouts that are read as they are: contiguous or channels-last.
fn laid_out(logits: &Tensor) -> Result<(Tensor, Layout), Error> {
    let [_, classes, x, y, z] = five(logits)?;
    if is_channels_last(logits, logits.f_kind()?).is_ok() && !logits.is_contiguous() {
        return Ok((logits.shallow_clone(), Layout { class: 1, voxel: classes }));
    }
    Ok((logits.f_contiguous()?, Layout { class: x * y * z, voxel: 1 }))
}

/// The voxels of one sample.
#[derive(Clone, Copy)]
struct Sample<'a, T> {
    /// All its numbers.
    logits: &'a [T],
    layout: Layout,
    labels: &'a [u16],
    allowed: &'a [u16],
    /// By class: its place in `allowed`, or [`NOWHERE`].
    places: &'a [u16],
}

fn places(allowed: &[u16], classes: usize) -> Vec<u16> {
    let mut places = vec![NOWHERE; classes];
    allowed.iter().enumerate().for_each(|(place, &class)| places[usize::from(class)] = place as u16);
    places
}

impl<T: Real> Sample<'_, T> {
    /// Probabilities of the voxels from `first` on, by place and lane. Lanes past the end repeat the last voxel. Returns
    /// for each lane the logarithm of the sum of exponentials of the logits.
    #[inline(always)]
    fn probabilities(&self, first: usize, p: &mut [[T; LANES]]) -> [T; LANES] {
        let last = self.labels.len() - 1;
        let Layout { class: of_class, voxel: of_voxel } = self.layout;
        let at: [usize; LANES] = std::array::from_fn(|lane| (first + lane).min(last) * of_voxel);
        let side_by_side = of_voxel == 1 && first + LANES <= self.labels.len();
        let mut largest = [T::LOWEST; LANES];
        for (&class, p) in self.allowed.iter().zip(p.iter_mut()) {
            let start = usize::from(class) * of_class;
            if side_by_side {
                p.copy_from_slice(&self.logits[start + first..][..LANES]);
            } else {
                *p = at.map(|at| self.logits[start + at]);
            }
            for lane in 0..LANES {
                largest[lane] = if p[lane] > largest[lane] { p[lane] } else { largest[lane] };
            }
        }
        let mut sum = [T::ZERO; LANES];
        for p in p.iter_mut() {
            for lane in 0..LANES {
                p[lane] = T::exp_negative(p[lane] - largest[lane]);
                sum[lane] = sum[lane] + p[lane];
            }
        }
        let share = sum.map(|sum| T::ONE / sum);
        for p in p.iter_mut() {
            for lane in 0..LANES {
                p[lane] = p[lane] * share[lane];
            }
        }
        std::array::from_fn(|lane| largest[lane] + sum[lane].ln())
    }

    /// The place of each lane's label, if the voxel counts.
    #[inline(always)]
    fn label_places(&self, first: usize) -> [Option<usize>; LANES] {
        std::array::from_fn(|lane| {
            let label = self.labels.get(first + lane).copied().filter(|&label| label != IGNORED)?;
            let place = self.places[usize::from(label)];
            (place != NOWHERE).then_some(usize::from(place))
        })
    }
}

/// The sums of one part of a sample; `hit` and the others are indexed by place.
struct Sum<'a, T> {
    sample: Sample<'a, T>,
    range: std::ops::Range<usize>,
    out: &'a mut Sums,
}

impl<T: Real> Kernel for Sum<'_, T> {
    #[inline(always)]
    fn run(self) {
        let Sum { sample, range, out } = self;
        let mut p = vec![[T::ZERO; LANES]; sample.allowed.len()];
        for first in range.clone().step_by(LANES) {
            let inside = LANES.min(range.end - first);
            let logarithm = sample.probabilities(first, &mut p);
            let labels = sample.label_places(first);
            let mut weight = [T::ZERO; LANES];
            for lane in 0..inside {
                let Some(place) = labels[lane] else { continue };
                weight[lane] = T::ONE;
                let logit = sample.logits[(first + lane) * sample.layout.voxel + usize::from(sample.allowed[place]) * sample.layout.class];
                out.entropy += (logarithm[lane] - logit).wide();
                out.voxels += 1;
                out.hit[place] += p[place][lane].wide();
                out.truth[place] += 1.0;
            }
            for (p, predicted) in p.iter().zip(&mut out.predicted) {
                let mut sum = T::ZERO;
                for lane in 0..LANES {
                    sum = sum + p[lane] * weight[lane];
                }
                *predicted += sum.wide();
            }
        }
    }
}

fn sums_of<T: Real>(logits: &Tensor, truth: &Truth, classes: usize) -> Result<Vec<Sums>, Error> {
    let (logits, layout) = laid_out(logits)?;
    let all = T::elements(&logits)?;
    let voxels = truth.labels.len() / truth.allowed.len();
    let samples = truth.allowed.iter().enumerate().map(|(n, allowed)| {
        let places = places(allowed, classes);
        let (logits, labels) = (&all[n * voxels * classes..][..voxels * classes], &truth.labels[n * voxels..][..voxels]);
        let sample = Sample { logits, layout, labels, allowed, places: &places };
        let mut partial = vec![Sums::zero(allowed.len()); voxels.div_ceil(PART)];
        let out = Shared(partial.as_mut_ptr());
        parallel(partial.len(), |parts| {
            for part in parts {
                // SAFETY: each part has its own element of `partial`, which outlives the call.
                let out = unsafe { &mut *out.at(part) };
                simd::run(Sum { sample, range: part * PART..((part + 1) * PART).min(voxels), out });
            }
        });
        let mut sums = Sums::zero(classes);
        for part in &partial {
            sums.entropy += part.entropy;
            sums.voxels += part.voxels;
            for (place, &class) in allowed.iter().enumerate() {
                sums.hit[usize::from(class)] += part.hit[place];
                sums.predicted[usize::from(class)] += part.predicted[place];
                sums.truth[usize::from(class)] += part.truth[place];
            }
        }
        sums
    });
    Ok(samples.collect())
}

/// The gradient of one part of a sample.
struct Gradient<'a, T> {
    sample: Sample<'a, T>,
    range: std::ops::Range<usize>,
    entropy: T,
    /// By place.
    hit: &'a [T],
    /// By place.
    predicted: &'a [T],
    /// The whole sample's, laid out as the logits.
    out: Shared<T>,
}

impl<T: Real> Kernel for Gradient<'_, T> {
    #[inline(always)]
    fn run(self) {
        let Gradient { sample, range, entropy, hit, predicted, out } = self;
        let mut p = vec![[T::ZERO; LANES]; sample.allowed.len()];
        for first in range.clone().step_by(LANES) {
            sample.probabilities(first, &mut p);
            let labels = sample.label_places(first);
            // Softmax: dz[c] = p[c] (q[c] - sum p q), q the slope by p.
            let mut mean = [T::ZERO; LANES];
            for (p, &slope) in p.iter().zip(predicted) {
                for lane in 0..LANES {
                    mean[lane] = mean[lane] + p[lane] * slope;
                }
            }
            let mut extra = [T::ZERO; LANES];
            for lane in 0..LANES {
                if let Some(place) = labels[lane] {
                    extra[lane] = p[place][lane] * hit[place] - entropy;
                    mean[lane] = mean[lane] + p[place][lane] * hit[place];
                }
            }
            let counts = labels.map(|label| if label.is_some() { T::ONE } else { T::ZERO });
            for (p, &slope) in p.iter_mut().zip(predicted) {
                for lane in 0..LANES {
                    p[lane] = p[lane] * (slope - mean[lane] + entropy) * counts[lane];
                }
            }
            for lane in 0..LANES {
                if let Some(place) = labels[lane] {
                    p[place][lane] = p[place][lane] + extra[lane];
                }
            }
            let inside = LANES.min(range.end - first);
            for (p, &class) in p.iter().zip(sample.allowed) {
                let start = usize::from(class) * sample.layout.class + first * sample.layout.voxel;
                for (lane, value) in p.iter().enumerate().take(inside) {
                    // SAFETY: the place of this class and voxel in the sample, which lies in the tensor; parts have voxels of their own.
                    unsafe { *out.at(start + lane * sample.layout.voxel) = *value };
                }
            }
        }
    }
}

fn gradient_of<T: Real>(logits: &Tensor, truth: &Truth, slopes: &[Slopes]) -> Result<Tensor, Error> {
    let (logits, layout) = laid_out(logits)?;
    let [_, classes, x, y, z] = five(&logits)?;
    // Classes that are not allowed and voxels that are ignored keep this 0.
    let mut gradient = logits.f_zeros_like()?;
    if gradient.stride() != logits.stride() {
        return Err(Error::Torch(format!("a gradient with strides {:?} for logits with {:?}", gradient.stride(), logits.stride())));
    }
    let (all, voxels) = (T::elements(&logits)?, x * y * z);
    // SAFETY: the tensor was made above and is shared with nobody.
    let out = Shared(unsafe { T::elements_mut(&mut gradient)? }.as_mut_ptr());
    for (n, (allowed, slopes)) in truth.allowed.iter().zip(slopes).enumerate() {
        let places = places(allowed, classes);
        let by_place = |slopes: &[f64]| allowed.iter().map(|&class| T::of(slopes[usize::from(class)])).collect::<Vec<T>>();
        let (hit, predicted) = (by_place(&slopes.hit), by_place(&slopes.predicted));
        let (logits, labels) = (&all[n * voxels * classes..][..voxels * classes], &truth.labels[n * voxels..][..voxels]);
        let sample = Sample { logits, layout, labels, allowed, places: &places };
        parallel(voxels.div_ceil(PART), |parts| {
            for part in parts {
                let range = part * PART..((part + 1) * PART).min(voxels);
                // SAFETY: samples lie one after the other in the tensor, which outlives the call.
                let out = Shared(unsafe { out.at(n * voxels * classes) });
                simd::run(Gradient { sample, range, entropy: T::of(slopes.entropy), hit: &hit, predicted: &predicted, out });
            }
        });
    }
    Ok(gradient)
}
