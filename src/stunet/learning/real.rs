//! f32 and f64, for kernels that are written once.

use crate::stunet::Error;
use crate::stunet::fused::is_channels_last;
use crate::stunet::simd;
use std::ops::{Add, Div, Mul, Sub};
use tch::{Device, Kind, Tensor};

/// A floating point number that losses are computed in.
pub(super) trait Real:
    Copy + Send + Sync + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + 'static
{
    /// libtorch's name of this kind.
    const KIND: Kind;
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Below every number.
    const LOWEST: Self;
    /// To the nearest.
    fn of(wide: f64) -> Self;
    /// Exact.
    fn wide(self) -> f64;
    /// `e^x` for `x <= 0`.
    fn exp_negative(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;

    /// The numbers of a CPU tensor `[N, C, X, Y, Z]` of this kind, contiguous or dense channels-last, as they lie in memory.
    fn elements(tensor: &Tensor) -> Result<&[Self], Error> {
        dense::<Self>(tensor)?;
        // SAFETY: a dense CPU tensor has `numel` numbers of its kind, initialised, from `data_ptr` on; the borrow of the
        // tensor keeps them alive, and nobody writes to it meanwhile.
        Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) })
    }

    /// As [`elements`](Self::elements), to be written.
    ///
    /// # Safety
    /// No other tensor or slice may refer to the same numbers while the slice lives.
    unsafe fn elements_mut(tensor: &mut Tensor) -> Result<&mut [Self], Error> {
        dense::<Self>(tensor)?;
        // SAFETY: as in `elements`, and exclusive by the caller's promise; every bit pattern is a number.
        Ok(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) })
    }
}

fn dense<T: Real>(tensor: &Tensor) -> Result<(), Error> {
    if tensor.device() == Device::Cpu && tensor.f_kind()? == T::KIND && tensor.numel() > 0 && tensor.is_contiguous() {
        return Ok(());
    }
    is_channels_last(tensor, T::KIND)
}

impl Real for f32 {
    const KIND: Kind = Kind::Float;
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const LOWEST: f32 = f32::MIN;
    #[inline(always)]
    fn of(wide: f64) -> f32 {
        wide as f32
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self.into()
    }
    #[inline(always)]
    fn exp_negative(self) -> f32 {
        simd::exp(self)
    }
    #[inline(always)]
    fn ln(self) -> f32 {
        f32::ln(self)
    }
}

impl Real for f64 {
    const KIND: Kind = Kind::Double;
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const LOWEST: f64 = f64::MIN;
    #[inline(always)]
    fn of(wide: f64) -> f64 {
        wide
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    #[inline(always)]
    fn exp_negative(self) -> f64 {
        self.exp()
    }
    #[inline(always)]
    fn ln(self) -> f64 {
        f64::ln(self)
    }
}
