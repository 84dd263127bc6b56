//! What lies between two convolutions, in as few passes over channels-last memory as possible.
//!
//! * [`norm`]: InstanceNorm + LeakyReLU, with what is added before and after.
//! * [`gather`]: values of a coarser grid, repeated or interleaved to a finer one.
//! * [`sums`]: from features to the sums over windows.
//!
//! CPU only, f32 and bf16, without gradients. The plain twins are libtorch's own operators as `layers` calls them; the
//! tests hold the two equal. Sums run over fixed parts of the data in a fixed order, so a result does not depend on the
//! number of threads.

mod gather;
mod norm;
mod sums;

pub(super) use gather::{interleave_weight, repeat_concat};
pub(super) use norm::{EPSILON, Terms, norm_act};
pub(super) use sums::{Head, add_features, add_probabilities};

use super::Error;
use super::simd::Element;
use tch::{Device, Kind, Tensor};

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
use by_kind;

/// The start of an array whose disjoint parts are written by several threads.
pub(super) struct Shared<T>(pub *mut T);

// SAFETY: only a pointer; whoever makes slices of it proves that they do not overlap.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `index` must lie in the array.
    pub unsafe fn at(&self, index: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index) }
    }
}

fn shape(tensor: &Tensor) -> Error {
    Error::Torch(format!("fused kernels do not take shape {:?} with strides {:?} here", tensor.size(), tensor.stride()))
}

pub(super) fn five(tensor: &Tensor) -> Result<[usize; 5], Error> {
    match *tensor.size().as_slice() {
        [n, c, x, y, z] => Ok([n, c, x, y, z].map(|edge| edge as usize)),
        _ => Err(shape(tensor)),
    }
}

/// Checks that a tensor is on the CPU, of this kind, and dense in channels-last order.
pub(super) fn is_channels_last(tensor: &Tensor, kind: Kind) -> Result<(), Error> {
    let [_, c, x, y, z] = five(tensor)?;
    let dense = [c * x * y * z, 1, c * y * z, c * z, c];
    let fits = tensor.size().iter().zip(tensor.stride()).zip(dense).all(|((&n, stride), dense)| n <= 1 || stride == dense as i64);
    if tensor.device() != Device::Cpu || tensor.f_kind()? != kind || tensor.numel() == 0 || !fits { Err(shape(tensor)) } else { Ok(()) }
}

fn elements<T: Element>(tensor: &Tensor) -> Result<&[T], Error> {
    is_channels_last(tensor, T::KIND)?;
    // SAFETY: a dense CPU tensor has `numel` numbers of its kind, initialised, from `data_ptr` on; the borrow of the
    // tensor keeps them alive, and this room writes only to tensors that it shares with nobody.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<T>(), tensor.numel()) })
}

/// # Safety
/// No other tensor or slice may refer to the same numbers while the slice lives.
unsafe fn elements_mut<T: Element>(tensor: &mut Tensor) -> Result<&mut [T], Error> {
    is_channels_last(tensor, T::KIND)?;
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
