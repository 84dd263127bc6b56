//! Plain loops compiled for the best vector instructions of the CPU that runs them.

/// Lanes of the blocks that loops are written in: four 512-bit vectors of f32.
pub(super) const LANES: usize = 64;

/// A loop that gains from wide vectors. `run` must be `#[inline(always)]`, so that it is compiled into each variant.
pub(super) trait Kernel {
    /// Runs it.
    fn run(self);
}

/// Runs a kernel with the widest vectors that the CPU has. All variants compute the same numbers: nothing is contracted
/// or reordered.
pub(super) fn run<K: Kernel>(kernel: K) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("fma") && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            // SAFETY: the CPU has these features.
            return unsafe { with_avx512(kernel) };
        }
        if has!("avx2") && has!("fma") {
            // SAFETY: the CPU has this feature.
            return unsafe { with_avx2(kernel) };
        }
    }
    kernel.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
fn with_avx512<K: Kernel>(kernel: K) {
    kernel.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<K: Kernel>(kernel: K) {
    kernel.run();
}

/// A kind of number in memory, computed with in f32.
pub(super) trait Element: Copy + Send + Sync + 'static {
    /// libtorch's name of this kind.
    const KIND: tch::Kind;
    /// Exact.
    fn widen(self) -> f32;
    /// To the nearest, ties to even.
    fn narrow(wide: f32) -> Self;
}

/// bfloat16: the upper half of an f32.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Bf16(u16);

impl Element for Bf16 {
    const KIND: tch::Kind = tch::Kind::BFloat16;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
    #[inline(always)]
    fn narrow(wide: f32) -> Bf16 {
        let bits = wide.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // Rounding could carry a NaN's bits into an infinity.
        Bf16(if wide.is_nan() { 0x7fc0 } else { rounded as u16 })
    }
}

impl Element for f32 {
    const KIND: tch::Kind = tch::Kind::Float;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(wide: f32) -> f32 {
        wide
    }
}

/// `e^x` for `x <= 0`, within 2 units in the last place; what lies below e^-87 becomes e^-87 (1.6e-38). Cephes' `expf`
/// (S. Moshier) without branches.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, which the lowest bits then hold.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    // ln 2 in two parts, the first of them exact in few bits.
    let r = n.mul_add(-355.0 / 512.0, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_2e-4_f32.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 0.166_666_65);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r * r, r) + 1.0;
    let power = (rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23;
    p * f32::from_bits(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_agrees_with_the_half_crate() {
        let mut bits = 1u32;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            for value in [f32::from_bits(bits), f32::from_bits(bits & 0xffff_8000), f32::from_bits(bits | 0x7f80_0000)] {
                let (ours, theirs) = (Bf16::narrow(value), half::bf16::from_f32(value));
                assert!(ours.widen().to_bits() == theirs.to_f32().to_bits() || (value.is_nan() && ours.widen().is_nan()), "{value:e}");
            }
        }
    }

    #[test]
    fn exponential_is_exact_to_two_units() {
        for i in 0..=870_000 {
            let x = -(i as f32) / 1e4;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error <= 2.0 * f64::from(f32::EPSILON), "exp({x}): {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) < 2e-38 && exp(f32::NAN).is_nan());
    }
}
