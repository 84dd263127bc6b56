//! InstanceNorm + LeakyReLU in place, with what is added before and after.

use super::gather::Gather;
use super::{Shared, by_kind, elements, elements_mut, five, shape, vector};
use crate::stunet::Error;
use crate::stunet::shim::parallel;
use crate::stunet::simd::{self, Bf16, Element, Kernel, LANES};
use std::ops::Range;
use tch::{Kind, Tensor};

/// InstanceNorm's epsilon.
pub(in crate::stunet) const EPSILON: f64 = 1e-5;
/// LeakyReLU's slope below zero.
const SLOPE: f32 = 0.01;
/// Numbers in a part that one thread takes at a time: they stay in its first or second cache between passes.
const PART: usize = 16_384;

/// What is added besides the input itself. Tensors are channels-last and of the input's kind.
#[derive(Default)]
pub(in crate::stunet) struct Terms<'a> {
    /// Before the norm: eight phases, interleaved to the input's shape (see `gather`).
    pub phases: Option<&'a Tensor>,
    /// After the norm: a tensor of the input's shape.
    pub residual: Option<&'a Tensor>,
    /// After the norm: a tensor of half the size on each axis, repeated.
    pub low: Option<&'a Tensor>,
    /// After the norm: `[C]`, f32.
    pub bias: Option<&'a Tensor>,
}

/// `y = leaky_relu(instance_norm(y + interleave(phases)) * weight + bias + residual + repeat(low) + terms.bias)`, in place.
///
/// `y` is channels-last `[N, C, X, Y, Z]` and shared with nobody; `weight` and `bias` are `[C]` in f32.
pub(in crate::stunet) fn norm_act(y: &mut Tensor, weight: &Tensor, bias: &Tensor, terms: &Terms) -> Result<(), Error> {
    by_kind!(y.f_kind()?, norm_act_of(y, weight, bias, terms))
}

fn norm_act_of<T: Element>(y: &mut Tensor, weight: &Tensor, bias: &Tensor, terms: &Terms) -> Result<(), Error> {
    let size = five(y)?;
    let (channels, length) = (size[1], size[1..].iter().product::<usize>());
    let (weight, bias) = (vector(weight, channels)?, vector(bias, channels)?);
    let more = terms.bias.map(|b| vector(b, channels)).transpose()?;
    let phases = terms.phases.map(|phases| Gather::interleave(phases)?.to(size, phases)).transpose()?;
    let low = terms.low.map(|low| Gather::repeat(low, [2; 3])?.to(size, low)).transpose()?;
    let residual = match terms.residual {
        Some(r) if five(r)? != size => return Err(shape(r)),
        residual => residual.map(elements::<T>).transpose()?,
    };
    let layout = Layout::new(channels, length);
    // SAFETY: the caller shares `y` with nobody, so these are the only references to its numbers.
    let all = unsafe { elements_mut::<T>(y)? };
    for (instance, data) in all.chunks_exact_mut(length).enumerate() {
        let residual = residual.map(|r| &r[instance * length..][..length]);
        let added = Added { instance, phases: phases.as_ref(), low: low.as_ref(), residual };
        let (mean, variance) = layout.moments(data, &added);
        let affine = layout.affine(|c| {
            let scale = f64::from(weight[c]) / (variance[c] + EPSILON).sqrt();
            [mean[c], scale, f64::from(bias[c]) + more.map_or(0.0, |b| f64::from(b[c]))]
        });
        layout.apply(data, &added, &affine);
    }
    Ok(())
}

/// What is added to one instance.
struct Added<'a, T> {
    instance: usize,
    phases: Option<&'a Gather<'a, T>>,
    low: Option<&'a Gather<'a, T>>,
    residual: Option<&'a [T]>,
}

impl<T: Element> Added<'_, T> {
    /// The numbers `range` of a finer tensor, if there is one.
    fn fill<'s>(&self, gather: Option<&Gather<T>>, range: &Range<usize>, scratch: &'s mut Vec<T>) -> Option<&'s [T]> {
        let gather = gather?;
        if scratch.len() < range.len() {
            scratch.resize(range.len(), T::narrow(0.0));
        }
        gather.fill(self.instance, range.clone(), scratch);
        Some(&scratch[..range.len()])
    }
}

/// Mean, scale and shift of each lane of a period.
type Affine = [[[f32; LANES]; 3]];

/// How one instance `[voxels, channels]` is cut into parts: the flat numbers repeat their channels after `period`, a
/// multiple of both the channels and [`LANES`].
struct Layout {
    channels: usize,
    length: usize,
    period: usize,
    part: usize,
}

impl Layout {
    fn new(channels: usize, length: usize) -> Layout {
        let gcd = 1 << channels.trailing_zeros().min(LANES.trailing_zeros());
        let period = channels / gcd * LANES;
        Layout { channels, length, period, part: (PART / period).max(1) * period }
    }

    /// Whole periods end here; less than one period of whole voxels follows.
    fn tail(&self) -> usize {
        self.length / self.period * self.period
    }

    fn parts(&self) -> usize {
        self.tail().div_ceil(self.part)
    }

    fn range(&self, part: usize) -> Range<usize> {
        part * self.part..((part + 1) * self.part).min(self.tail())
    }

    /// Lays out what `of` says of each channel: mean, scale, shift.
    fn affine(&self, of: impl Fn(usize) -> [f64; 3]) -> Vec<[[f32; LANES]; 3]> {
        let block = |b: usize| {
            let lanes: [[f64; 3]; LANES] = std::array::from_fn(|lane| of((b * LANES + lane) % self.channels));
            std::array::from_fn(|which| lanes.map(|lane| lane[which] as f32))
        };
        (0..self.period / LANES).map(block).collect()
    }

    /// Mean and biased variance of each channel. Each part is summed about its own mean; the parts are joined in f64.
    fn moments<T: Element>(&self, data: &[T], added: &Added<T>) -> (Vec<f64>, Vec<f64>) {
        let (parts, channels, period) = (self.parts(), self.channels, self.period);
        let mut partial = vec![(0f32, 0f32); parts * period];
        let out = Shared(partial.as_mut_ptr());
        parallel(parts, |range| {
            let mut scratch = Vec::new();
            for part in range {
                let range = self.range(part);
                // SAFETY: each part has its own `period` numbers of `partial`, which outlives the call.
                let out = unsafe { std::slice::from_raw_parts_mut(out.at(part * period), period) };
                let more = added.fill(added.phases, &range, &mut scratch);
                simd::run(Moments { data: &data[range], more, out });
            }
        });
        let tail = self.tail()..self.length;
        let mut scratch = Vec::new();
        let more = added.fill(added.phases, &tail, &mut scratch);
        let value = |(i, v): (usize, &T)| f64::from(v.widen() + more.map_or(0.0, |m| m[i].widen()));
        let tail: Vec<f64> = data[tail].iter().enumerate().map(value).collect();
        let voxels = (self.length / channels) as f64;
        let (mut mean, mut variance) = (vec![0.0; channels], vec![0.0; channels]);
        let rows = |part: usize| (self.range(part).len() / period) as f64;
        for part in 0..parts {
            for (lane, (m, _)) in partial[part * period..][..period].iter().enumerate() {
                mean[lane % channels] += f64::from(*m) * rows(part);
            }
        }
        tail.iter().enumerate().for_each(|(i, v)| mean[i % channels] += v);
        mean.iter_mut().for_each(|m| *m /= voxels);
        for part in 0..parts {
            for (lane, (m, squares)) in partial[part * period..][..period].iter().enumerate() {
                let off = f64::from(*m) - mean[lane % channels];
                variance[lane % channels] += f64::from(*squares) + off * off * rows(part);
            }
        }
        tail.iter().enumerate().for_each(|(i, v)| variance[i % channels] += (v - mean[i % channels]).powi(2));
        variance.iter_mut().for_each(|v| *v /= voxels);
        (mean, variance)
    }

    fn apply<T: Element>(&self, data: &mut [T], added: &Added<T>, affine: &Affine) {
        let (tail, length) = (self.tail(), self.length);
        let out = Shared(data.as_mut_ptr());
        let run = |range: Range<usize>, scratch: &mut [Vec<T>; 2]| {
            // SAFETY: the parts' ranges and the tail are disjoint and lie in `data`, which outlives the calls.
            let y = unsafe { std::slice::from_raw_parts_mut(out.at(range.start), range.len()) };
            let [phases, low] = scratch;
            let phases = added.fill(added.phases, &range, phases);
            let low = added.fill(added.low, &range, low);
            let residual = added.residual.map(|r| &r[range]);
            simd::run(Apply { y, affine, before: phases, after: [residual, low] });
        };
        parallel(self.parts(), |parts| {
            let mut scratch = [Vec::new(), Vec::new()];
            parts.for_each(|part| run(self.range(part), &mut scratch));
        });
        run(tail..length, &mut [Vec::new(), Vec::new()]);
    }
}

#[inline(always)]
fn activate(x: f32) -> f32 {
    if x >= 0.0 { x } else { x * SLOPE }
}

/// Mean and sum of squared deviations of each lane of a period, over the rows of `data` (+ `more`).
struct Moments<'a, T: Element> {
    data: &'a [T],
    more: Option<&'a [T]>,
    out: &'a mut [(f32, f32)],
}

impl<T: Element> Kernel for Moments<'_, T> {
    #[inline(always)]
    fn run(self) {
        let blocks = self.data.as_chunks::<LANES>().0;
        let more = self.more.map(|more| more.as_chunks::<LANES>().0);
        let step = self.out.len() / LANES;
        let rows = blocks.len() / step;
        let share = 1.0 / rows as f32;
        let values = |i: usize| {
            let mut values = widen(&blocks[i]);
            if let Some(more) = more {
                add(&mut values, &more[i]);
            }
            values
        };
        for (b, out) in self.out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut sum = [0f32; LANES];
            for row in 0..rows {
                let x = values(row * step + b);
                for lane in 0..LANES {
                    sum[lane] += x[lane];
                }
            }
            let centre = sum.map(|s| s * share);
            let (mut first, mut second) = ([0f32; LANES], [0f32; LANES]);
            for row in 0..rows {
                let x = values(row * step + b);
                for lane in 0..LANES {
                    let off = x[lane] - centre[lane];
                    first[lane] += off;
                    second[lane] += off * off;
                }
            }
            // The first moment about `centre` is its rounding error, and is taken out of both.
            for lane in 0..LANES {
                let off = first[lane] * share;
                out[lane] = (centre[lane] + off, second[lane] - off * first[lane]);
            }
        }
    }
}

#[inline(always)]
fn widen<T: Element>(block: &[T; LANES]) -> [f32; LANES] {
    block.map(T::widen)
}

#[inline(always)]
fn add<T: Element>(values: &mut [f32; LANES], block: &[T; LANES]) {
    for lane in 0..LANES {
        values[lane] += block[lane].widen();
    }
}

/// `y = activate((y + before - mean) * scale + shift + after)`, from the start of a period on.
struct Apply<'a, T: Element> {
    y: &'a mut [T],
    affine: &'a Affine,
    before: Option<&'a [T]>,
    after: [Option<&'a [T]>; 2],
}

impl<T: Element> Kernel for Apply<'_, T> {
    #[inline(always)]
    fn run(self) {
        let Apply { y, affine, before, after } = self;
        let (blocks, rest) = y.as_chunks_mut::<LANES>();
        let whole = blocks.len() * LANES;
        fn cut<T>(values: Option<&[T]>) -> Option<&[[T; LANES]]> {
            values.map(|v| v.as_chunks().0)
        }
        let (before_blocks, after_blocks) = (cut(before), after.map(cut));
        for (i, y) in blocks.iter_mut().enumerate() {
            let [mean, scale, shift] = &affine[i % affine.len()];
            let mut values = widen(y);
            if let Some(before) = before_blocks {
                add(&mut values, &before[i]);
            }
            for lane in 0..LANES {
                values[lane] = (values[lane] - mean[lane]) * scale[lane] + shift[lane];
            }
            for after in after_blocks.iter().flatten() {
                add(&mut values, &after[i]);
            }
            for lane in 0..LANES {
                y[lane] = T::narrow(activate(values[lane]));
            }
        }
        for (lane, y) in rest.iter_mut().enumerate() {
            let [mean, scale, shift] = &affine[whole / LANES % affine.len()];
            let value = |values: Option<&[T]>| values.map_or(0.0, |v| v[whole + lane].widen());
            let normal = (y.widen() + value(before) - mean[lane]) * scale[lane] + shift[lane];
            *y = T::narrow(activate(normal + value(after[0]) + value(after[1])));
        }
    }
}
