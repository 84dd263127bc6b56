//! What lies between two convolutions, in as few passes over channels-last memory as possible:
//! InstanceNorm + LeakyReLU (+ residual), and nearest-neighbour repeat + concatenation.
//!
//! CPU only, without gradients. The plain twins are libtorch's own operators as `layers` calls them; the tests below hold
//! the two equal. Sums run over fixed parts of the data in a fixed order, so a result does not depend on the number of
//! threads.

mod sums;

pub(super) use sums::{Head, add_features, add_probabilities};

use super::Error;
use super::shim::parallel;
use super::simd::{self, Bf16, Element, Kernel, LANES};
use tch::{Device, Kind, Tensor};

/// InstanceNorm's epsilon.
pub(super) const EPSILON: f64 = 1e-5;
/// LeakyReLU's slope below zero.
const SLOPE: f32 = 0.01;
/// Numbers in a part that one thread takes at a time: they stay in its first or second cache between passes.
const PART: usize = 16_384;

/// Calls a generic function with the element type of a kind.
macro_rules! by_kind {
    ($kind:expr, $function:ident($($argument:expr),*)) => {
        match $kind {
            Kind::Float => $function::<f32>($($argument),*),
            Kind::BFloat16 => $function::<Bf16>($($argument),*),
            other => Err(Error::Torch(format!("fused kernels do not take {other:?}"))),
        }
    };
}

/// `y = leaky_relu(instance_norm(y) * weight + bias)`, in place; with a residual `r` and its per-channel `r_bias`,
/// `y = leaky_relu(instance_norm(y) * weight + bias + r + r_bias)`.
///
/// `y` and `r` are channels-last `[N, C, X, Y, Z]` of one kind, `y` shared with nobody. `weight`, `bias` and `r_bias` are
/// `[C]` in f32.
pub(super) fn norm_act(y: &mut Tensor, weight: &Tensor, bias: &Tensor, residual: Option<(&Tensor, Option<&Tensor>)>) -> Result<(), Error> {
    by_kind!(y.f_kind()?, norm_act_of(y, weight, bias, residual))
}

fn norm_act_of<T: Element>(
    y: &mut Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<(&Tensor, Option<&Tensor>)>,
) -> Result<(), Error> {
    let size = five(y)?;
    let channels = size[1];
    let weight = vector(weight, channels)?;
    let bias = vector(bias, channels)?;
    let (residual, residual_bias) = match residual {
        None => (None, None),
        Some((r, _)) if five(r)? != size => return Err(shape(r)),
        Some((r, b)) => (Some(elements::<T>(r)?), b.map(|b| vector(b, channels)).transpose()?),
    };
    let length = size[1..].iter().product::<usize>();
    let layout = Layout::new(channels, length);
    // SAFETY: the caller shares `y` with nobody, so these are the only references to its numbers.
    let all = unsafe { elements_mut::<T>(y)? };
    for (n, data) in all.chunks_exact_mut(length.max(1)).enumerate() {
        let affine = {
            let (mean, variance) = layout.moments(data);
            let scale = |c: usize| f64::from(weight[c]) / (variance[c] + EPSILON).sqrt();
            let extra = |c: usize| residual_bias.map_or(0.0, |b| f64::from(b[c]));
            layout.affine(|c| [mean[c], scale(c), f64::from(bias[c]) + extra(c)])
        };
        layout.apply(data, residual.map(|r| &r[n * length..][..length]), &affine);
    }
    Ok(())
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

    fn range(&self, part: usize) -> std::ops::Range<usize> {
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
    fn moments<T: Element>(&self, data: &[T]) -> (Vec<f64>, Vec<f64>) {
        let (parts, channels, period) = (self.parts(), self.channels, self.period);
        let mut partial = vec![(0f32, 0f32); parts * period];
        let out = Shared(partial.as_mut_ptr());
        parallel(parts, |range| {
            for part in range {
                // SAFETY: each part has its own `period` numbers of `partial`, which outlives the call.
                let out = unsafe { std::slice::from_raw_parts_mut(out.at(part * period), period) };
                simd::run(Moments { data: &data[self.range(part)], out });
            }
        });
        let tail: Vec<f64> = data[self.tail()..].iter().map(|v| f64::from(v.widen())).collect();
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

    fn apply<T: Element>(&self, data: &mut [T], residual: Option<&[T]>, affine: &Affine) {
        let tail = self.tail();
        let (whole, rest) = data.split_at_mut(tail);
        let out = Shared(whole.as_mut_ptr());
        parallel(self.parts(), |range| {
            for part in range {
                let range = self.range(part);
                // SAFETY: the parts' ranges are disjoint and lie in `whole`, which outlives the call.
                let y = unsafe { std::slice::from_raw_parts_mut(out.at(range.start), range.len()) };
                match residual {
                    None => simd::run(Apply { y, affine }),
                    Some(r) => simd::run(ApplyAdd { y, residual: &r[range], affine }),
                }
            }
        });
        for (i, y) in rest.iter_mut().enumerate() {
            let r = residual.map_or(0f32, |r| r[tail + i].widen());
            let (block, lane) = (&affine[i / LANES], i % LANES);
            *y = T::narrow(activate((y.widen() - block[0][lane]) * block[1][lane] + block[2][lane] + r));
        }
    }
}

/// The start of an array whose disjoint parts are written by several threads.
struct Shared<T>(*mut T);

// SAFETY: only a pointer; whoever makes slices of it proves that they do not overlap.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `index` must lie in the array.
    unsafe fn at(&self, index: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index) }
    }
}

#[inline(always)]
fn activate(x: f32) -> f32 {
    if x >= 0.0 { x } else { x * SLOPE }
}

/// Mean and sum of squared deviations of each lane of a period, over the rows of `data`.
struct Moments<'a, T: Element> {
    data: &'a [T],
    out: &'a mut [(f32, f32)],
}

impl<T: Element> Kernel for Moments<'_, T> {
    #[inline(always)]
    fn run(self) {
        let blocks = self.data.as_chunks::<LANES>().0;
        let step = self.out.len() / LANES;
        let rows = blocks.len() / step;
        let share = 1.0 / rows as f32;
        for (b, out) in self.out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut sum = [0f32; LANES];
            for row in 0..rows {
                let x = &blocks[row * step + b];
                for lane in 0..LANES {
                    sum[lane] += x[lane].widen();
                }
            }
            let centre = sum.map(|s| s * share);
            let (mut first, mut second) = ([0f32; LANES], [0f32; LANES]);
            for row in 0..rows {
                let x = &blocks[row * step + b];
                for lane in 0..LANES {
                    let off = x[lane].widen() - centre[lane];
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

struct Apply<'a, T: Element> {
    y: &'a mut [T],
    affine: &'a Affine,
}

impl<T: Element> Kernel for Apply<'_, T> {
    #[inline(always)]
    fn run(self) {
        for row in self.y.as_chunks_mut::<LANES>().0.chunks_mut(self.affine.len()) {
            for (y, [mean, scale, shift]) in row.iter_mut().zip(self.affine) {
                for lane in 0..LANES {
                    y[lane] = T::narrow(activate((y[lane].widen() - mean[lane]) * scale[lane] + shift[lane]));
                }
            }
        }
    }
}

struct ApplyAdd<'a, T: Element> {
    y: &'a mut [T],
    residual: &'a [T],
    affine: &'a Affine,
}

impl<T: Element> Kernel for ApplyAdd<'_, T> {
    #[inline(always)]
    fn run(self) {
        let residual = self.residual.as_chunks::<LANES>().0.chunks(self.affine.len());
        for (row, residual) in self.y.as_chunks_mut::<LANES>().0.chunks_mut(self.affine.len()).zip(residual) {
            for ((y, r), [mean, scale, shift]) in row.iter_mut().zip(residual).zip(self.affine) {
                for lane in 0..LANES {
                    let normal = (y[lane].widen() - mean[lane]) * scale[lane] + shift[lane];
                    y[lane] = T::narrow(activate(normal + r[lane].widen()));
                }
            }
        }
    }
}

/// `cat([repeat(low, factors), skip], channels)` for channels-last tensors of one kind, in one pass.
pub(super) fn repeat_concat(low: &Tensor, factors: [i64; 3], skip: &Tensor) -> Result<Tensor, Error> {
    by_kind!(skip.f_kind()?, repeat_concat_of(low, factors, skip))
}

fn repeat_concat_of<T: Element>(low: &Tensor, factors: [i64; 3], skip: &Tensor) -> Result<Tensor, Error> {
    let ([n, cl, lx, ly, lz], [sn, cs, x, y, z]) = (five(low)?, five(skip)?);
    let [fx, fy, fz] = factors.map(|f| f as usize);
    if (n, lx * fx, ly * fy, lz * fz) != (sn, x, y, z) {
        return Err(shape(low));
    }
    let channels = cl + cs;
    let size = [n, x, y, z, channels].map(|edge| edge as i64);
    let mut out = Tensor::f_empty(size, (T::KIND, Device::Cpu))?.f_permute([0, 4, 1, 2, 3])?;
    let (low, skip) = (elements::<T>(low)?, elements::<T>(skip)?);
    // SAFETY: `out` was made here and nobody else has it.
    let start = Shared(unsafe { elements_mut::<T>(&mut out)? }.as_mut_ptr());
    parallel(n * x * y, |rows| {
        for row in rows {
            let (instance, at_x, at_y) = (row / (x * y), row / y % x, row % y);
            let low_row = (instance * lx + at_x / fx) * ly + at_y / fy;
            // SAFETY: each row has its own `z * channels` numbers of `out`, which outlives the call.
            let out = unsafe { std::slice::from_raw_parts_mut(start.at(row * z * channels), z * channels) };
            let (low, skip) = (&low[low_row * lz * cl..][..lz * cl], &skip[row * z * cs..][..z * cs]);
            for (at_z, (out, skip)) in out.chunks_exact_mut(channels).zip(skip.chunks_exact(cs)).enumerate() {
                out[..cl].copy_from_slice(&low[at_z / fz * cl..][..cl]);
                out[cl..].copy_from_slice(skip);
            }
        }
    });
    Ok(out)
}

fn shape(tensor: &Tensor) -> Error {
    Error::Torch(format!("fused kernels do not take shape {:?} with strides {:?} here", tensor.size(), tensor.stride()))
}

fn five(tensor: &Tensor) -> Result<[usize; 5], Error> {
    match *tensor.size().as_slice() {
        [n, c, x, y, z] => Ok([n, c, x, y, z].map(|edge| edge as usize)),
        _ => Err(shape(tensor)),
    }
}

/// Checks that a tensor is on the CPU, of kind `T`, and dense in channels-last order.
fn is_channels_last<T: Element>(tensor: &Tensor) -> Result<(), Error> {
    let [_, c, x, y, z] = five(tensor)?;
    let dense = [c * x * y * z, 1, c * y * z, c * z, c];
    let fits = tensor.size().iter().zip(tensor.stride()).zip(dense).all(|((&n, stride), dense)| n <= 1 || stride == dense as i64);
    if tensor.device() != Device::Cpu || tensor.f_kind()? != T::KIND || tensor.numel() == 0 || !fits { Err(shape(tensor)) } else { Ok(()) }
}

fn elements<T: Element>(tensor: &Tensor) -> Result<&[T], Error> {
    is_channels_last::<T>(tensor)?;
    // SAFETY: a dense CPU tensor has `numel` numbers of its kind, initialised, from `data_ptr` on; the borrow of the
    // tensor keeps them alive, and this room writes only to tensors that it shares with nobody.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<T>(), tensor.numel()) })
}

/// # Safety
/// No other tensor or slice may refer to the same numbers while the slice lives.
unsafe fn elements_mut<T: Element>(tensor: &mut Tensor) -> Result<&mut [T], Error> {
    is_channels_last::<T>(tensor)?;
    // SAFETY: as in `elements`, and exclusive by the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<T>(), tensor.numel()) })
}

fn vector(tensor: &Tensor, channels: usize) -> Result<&[f32], Error> {
    if tensor.device() != Device::Cpu || tensor.f_kind()? != Kind::Float || tensor.size() != [channels as i64] || !tensor.is_contiguous() {
        return Err(shape(tensor));
    }
    // SAFETY: as in `elements`.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<f32>(), channels) })
}

#[cfg(test)]
mod tests;
