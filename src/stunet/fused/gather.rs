//! Values of a coarser grid at the voxels of a finer one.

use super::{Shared, by_kind, elements, elements_mut, five, shape};
use crate::stunet::Error;
use crate::stunet::shim::parallel;
use crate::stunet::simd::{Bf16, Element};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Where a fine voxel's values lie among a coarse tensor's numbers: an offset for each axis, summed.
pub(super) struct Gather<'a, T> {
    numbers: &'a [T],
    /// Numbers of one instance.
    instance: usize,
    offsets: [Vec<usize>; 3],
    channels: usize,
}

impl<'a, T: Element> Gather<'a, T> {
    /// Nearest-neighbour repeat of `low` `[N, C, X, Y, Z]` to `[N, C, X·a, Y·b, Z·c]`.
    pub fn repeat(low: &'a Tensor, factors: [usize; 3]) -> Result<Gather<'a, T>, Error> {
        let [_, channels, x, y, z] = five(low)?;
        let strides = [y * z * channels, z * channels, channels];
        let offsets = std::array::from_fn(|axis| (0..[x, y, z][axis] * factors[axis]).map(|i| i / factors[axis] * strides[axis]).collect());
        Ok(Gather { numbers: elements(low)?, instance: x * y * z * channels, offsets, channels })
    }

    /// Interleaving of the eight phases `[N, 8·C, X+1, Y+1, Z+1]` that a convolution with [`interleave_weight`] gives, to
    /// `[N, C, 2X, 2Y, 2Z]`.
    pub fn interleave(phases: &'a Tensor) -> Result<Gather<'a, T>, Error> {
        let [_, all, x, y, z] = five(phases)?;
        if all % 8 != 0 || [x, y, z].contains(&1) {
            return Err(shape(phases));
        }
        let channels = all / 8;
        let strides = [y * z * all, z * all, all];
        let phase = [4 * channels, 2 * channels, channels];
        let offsets = std::array::from_fn(|axis| {
            (0..2 * ([x, y, z][axis] - 1)).map(|i| (i / 2 + i % 2) * strides[axis] + i % 2 * phase[axis]).collect()
        });
        Ok(Gather { numbers: elements(phases)?, instance: x * y * z * all, offsets, channels })
    }

    /// Itself, if the fine tensor has this shape `[N, C, X, Y, Z]`; `of` is what it is made of.
    pub fn to(self, size: [usize; 5], of: &Tensor) -> Result<Gather<'a, T>, Error> {
        let [x, y, z] = &self.offsets;
        let fine = [self.numbers.len() / self.instance, self.channels, x.len(), y.len(), z.len()];
        if fine == size { Ok(self) } else { Err(shape(of)) }
    }

    /// Writes the fine numbers `range` (in channels-last order, from voxel to voxel) of an instance to `out`.
    pub fn fill(&self, instance: usize, range: Range<usize>, out: &mut [T]) {
        // Known sizes let the compiler copy by vectors.
        match self.channels {
            16 => self.fill_by(instance, range, out, |to, from| to[..16].copy_from_slice(&from[..16])),
            32 => self.fill_by(instance, range, out, |to, from| to[..32].copy_from_slice(&from[..32])),
            _ => self.fill_by(instance, range, out, |to, from| to.copy_from_slice(from)),
        }
    }

    #[inline(always)]
    fn fill_by(&self, instance: usize, range: Range<usize>, out: &mut [T], copy: impl Fn(&mut [T], &[T])) {
        let numbers = &self.numbers[instance * self.instance..][..self.instance];
        let [xs, ys, zs] = &self.offsets;
        let first = range.start / self.channels;
        let (mut row, mut z) = (first / zs.len(), first % zs.len());
        let mut voxels = out[..range.len()].chunks_exact_mut(self.channels);
        loop {
            let start = xs[row / ys.len() % xs.len()] + ys[row % ys.len()];
            for offset in &zs[z..] {
                let Some(voxel) = voxels.next() else { return };
                copy(voxel, &numbers[start + offset..][..self.channels]);
            }
            (row, z) = (row + 1, 0);
        }
    }
}

/// The weight of a 3×3×3 convolution over a tensor that was repeated by 2 on each axis, as one of a 2×2×2 convolution with
/// padding 1 over the tensor itself: `[out, in, 3, 3, 3]` → `[8·out, in, 2, 2, 2]`, a third of the work.
///
/// On one axis, fine voxel `2i + p` sees coarse voxels `i-1, i, i` (p = 0) or `i, i, i+1` (p = 1). So phase 0 is a
/// convolution with `(w0, w1 + w2)` and phase 1 one with `(w0 + w1, w2)` a voxel further on.
pub(in crate::stunet) fn interleave_weight(weight: &Tensor) -> Result<Tensor, Error> {
    let size = weight.size();
    let (out, cin) = (size[0], size[1]);
    // [phase, tap of 2, tap of 3]
    let taps =
        Tensor::f_from_slice(&[1f64, 0., 0., 0., 1., 1., 1., 1., 0., 0., 0., 1.])?.f_reshape([2, 2, 3])?.f_to_kind(weight.f_kind()?)?;
    let phases = Tensor::f_einsum("oixyz,pax,qby,rcz->pqroiabc", &[weight, &taps, &taps, &taps], None::<i64>)?;
    Ok(phases.f_reshape([8 * out, cin, 2, 2, 2])?)
}

/// `cat([repeat(low, factors), skip], channels)` for channels-last tensors of one kind, in one pass.
pub(in crate::stunet) fn repeat_concat(low: &Tensor, factors: [usize; 3], skip: &Tensor) -> Result<Tensor, Error> {
    by_kind!(skip.f_kind()?, repeat_concat_of(low, factors, skip))
}

fn repeat_concat_of<T: Element>(low: &Tensor, factors: [usize; 3], skip: &Tensor) -> Result<Tensor, Error> {
    let ([_, cl, ..], [n, cs, x, y, z]) = (five(low)?, five(skip)?);
    let gather = Gather::<T>::repeat(low, factors)?.to([n, cl, x, y, z], low)?;
    let channels = cl + cs;
    let size = [n, x, y, z, channels].map(|edge| edge as i64);
    let mut out = Tensor::f_empty(size, (T::KIND, Device::Cpu))?.f_permute([0, 4, 1, 2, 3])?;
    let skip = elements::<T>(skip)?;
    // SAFETY: `out` was made here and nobody else has it.
    let start = Shared(unsafe { elements_mut::<T>(&mut out)? }.as_mut_ptr());
    parallel(n * x * y, |rows| {
        let mut repeated = vec![T::narrow(0.0); z * cl];
        for row in rows {
            let (instance, in_instance) = (row / (x * y), row % (x * y));
            gather.fill(instance, in_instance * z * cl..(in_instance + 1) * z * cl, &mut repeated);
            // SAFETY: each row has its own `z * channels` numbers of `out`, which outlives the call.
            let out = unsafe { std::slice::from_raw_parts_mut(start.at(row * z * channels), z * channels) };
            let skip = skip[row * z * cs..][..z * cs].chunks_exact(cs);
            for ((out, low), skip) in out.chunks_exact_mut(channels).zip(repeated.chunks_exact(cl)).zip(skip) {
                out[..cl].copy_from_slice(low);
                out[cl..].copy_from_slice(skip);
            }
        }
    });
    Ok(out)
}
