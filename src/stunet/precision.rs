//! What numbers the network computes with.

use super::{Error, shim};
use tch::{Device, Kind};

/// Channels from which on a stage computes in bf16. In narrower ones each rounding weighs more, and bf16 gains little: of the
/// demo model's roundings three quarters of the variance come from its stages of 8 and 16 channels (docs/performance.md).
const BF16_CHANNELS: usize = 32;

/// The kind of number that activations and convolution weights are held in. Statistics and sums are f32 at least
/// (f64 with [`F64`](Precision::F64)), and logits are f32 at least, whatever the precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// The fastest that the device has in hardware and that keeps the labels: bf16, else f32. A network is never
    /// *in* this precision: it is resolved when the network is opened.
    Auto,
    /// IEEE single; TF32 stays off.
    F32,
    /// IEEE double, for checking.
    F64,
    /// bfloat16: f32's range, 8 bits of mantissa. Stages of fewer than 32 channels compute in f32.
    Bf16,
    /// IEEE half; CUDA devices only.
    F16,
}

impl Precision {
    /// The concrete precision on a device: `Auto` becomes `Bf16` where the device computes it in hardware
    /// (AVX512-BF16 or AMX-BF16; CUDA compute capability 8 or later), else `F32`.
    pub fn resolve(self, device: Device) -> Result<Precision, Error> {
        match (self, device) {
            (Precision::Auto, Device::Cpu) if cpu_has_bf16() => Ok(Precision::Bf16),
            (Precision::Auto, Device::Cuda(_)) if shim::cuda_has_bf16()? => Ok(Precision::Bf16),
            (Precision::Auto, _) => Ok(Precision::F32),
            (Precision::F16, Device::Cpu) => {
                Err(Error::Unsupported("precision f16 needs a CUDA device; choose bf16, f32 or auto on the CPU".into()))
            }
            (Precision::Bf16, Device::Cpu) if !cpu_can_bf16() => {
                Err(Error::Unsupported("precision bf16 needs a CPU with AVX-512 (BW, DQ, VL); choose f32 or auto".into()))
            }
            (concrete, _) => Ok(concrete),
        }
    }

    /// Bytes of one activation in a stage of so many channels.
    pub fn activation_bytes(self, channels: usize) -> usize {
        self.kind(channels).elt_size_in_bytes()
    }

    /// libtorch's kind for the activations and convolution weights of a stage of so many channels.
    pub(super) fn kind(self, channels: usize) -> Kind {
        match self {
            Precision::Auto | Precision::F32 => Kind::Float,
            Precision::F64 => Kind::Double,
            Precision::Bf16 if channels < BF16_CHANNELS => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        }
    }

    /// libtorch's kind for statistics, affine parameters, heads and logits in this precision.
    pub(super) fn wide_kind(self) -> Kind {
        match self {
            Precision::F64 => Kind::Double,
            _ => Kind::Float,
        }
    }

    /// The name that users write: `auto`, `f32`, `f64`, `bf16`, `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::F32 => "f32",
            Precision::F64 => "f64",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Precision {
    type Err = String;
    fn from_str(name: &str) -> Result<Precision, String> {
        [Precision::Auto, Precision::F32, Precision::F64, Precision::Bf16, Precision::F16]
            .into_iter()
            .find(|p| p.name() == name)
            .ok_or_else(|| format!("{name:?} is not a precision; choose auto, f32, f64, bf16 or f16"))
    }
}

/// Whether oneDNN computes bf16 on this CPU, in hardware or through f32.
fn cpu_can_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("avx512bw") && has!("avx512dq") && has!("avx512vl")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether this CPU multiplies bf16 in hardware. Every CPU with AMX-BF16 has AVX512-BF16 too.
pub fn cpu_has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512bf16") && cpu_can_bf16()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}
