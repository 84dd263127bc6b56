//! Whether numbers can be Hounsfield units.

use crate::fault::Code;
use crate::series::Refusal;
use rayon::prelude::*;

/// HU between which soft tissue, blood and water lie.
const SOFT: std::ops::RangeInclusive<f32> = -30.0..=200.0;
/// HU below soft tissue: fat, lung, gas. Every body has some within or around it.
const BELOW: std::ops::Range<f32> = -1023.0..-30.0;
/// Least share of the voxels that each of the two has in any scan of a body, be it a small field of view in a large matrix of air.
const LEAST: f64 = 0.001;
/// HU that nothing has. Where padding is not declared, the corners around a round field of view do; they are a fifth of a square.
const DEEP: f32 = -1100.0;
/// Share of the voxels that may lie deeper when there is no soft tissue either.
const MOST_DEEP: f64 = 0.25;

/// How many voxels lie where a body has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    all: u64,
    soft: u64,
    below: u64,
    deep: u64,
}

impl Census {
    /// Counts the voxels but those with the value `padded`.
    pub(super) fn of(values: &[f32], padded: f32) -> Census {
        let part = |chunk: &[f32]| {
            // 32-bit counters, which the compiler makes fast; a chunk is smaller than they are.
            let (mut all, mut soft, mut below, mut deep) = (0u32, 0u32, 0u32, 0u32);
            for v in chunk {
                all += u32::from(*v != padded);
                soft += u32::from(SOFT.contains(v));
                below += u32::from(BELOW.contains(v));
                deep += u32::from(*v < DEEP);
            }
            Census { all: all.into(), soft: soft.into(), below: below.into(), deep: deep.into() }
        };
        let sum =
            |a: Census, b: Census| Census { all: a.all + b.all, soft: a.soft + b.soft, below: a.below + b.below, deep: a.deep + b.deep };
        values.par_chunks(1 << 18).map(part).reduce(Census::default, sum)
    }

    /// Why the values can not be HU, if so: maps, and CT numbers without their intercept, have nothing below soft tissue; numbers that
    /// were rescaled twice have no soft tissue but voxels emptier than empty.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let least = (LEAST * self.all as f64).max(1.0);
        let what = match () {
            () if (self.below as f64) < least => "hardly a voxel has the HU of fat, lung or air (-1023 to -30)",
            () if (self.soft as f64) < least && self.deep as f64 > MOST_DEEP * self.all as f64 => "most voxels lie below the HU of air",
            () => return None,
        };
        Some(Refusal { code: Code::QuantityNotHu, detail: what.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plausible(values: &[f32]) -> bool {
        Census::of(values, -1024.0).refusal().is_none()
    }

    #[test]
    fn bodies_pass_and_maps_do_not() {
        let body: Vec<f32> = (0..1000).map(|i| [-1000.0, -100.0, 40.0, 60.0, 700.0][i % 5]).collect();
        assert!(plausible(&body));
        let shifted = |by: f32| body.iter().map(|v| v + by).collect::<Vec<_>>();
        assert!(!plausible(&shifted(1024.0)), "the intercept is missing");
        let twice: Vec<f32> = [&[-1000.0; 500][..], &body].concat().iter().map(|v| v - 1024.0).collect();
        assert!(!plausible(&twice), "the intercept was applied twice");
        assert!(!plausible(&body.iter().map(|v| v.max(0.0)).collect::<Vec<_>>()), "unsigned");
        assert!(!plausible(&body.iter().map(|v| v / 100.0).collect::<Vec<_>>()), "a map");
        assert!(!plausible(&[-1024.0; 100]), "padding alone");
        assert!(plausible(&[-1000.0; 100]), "air alone");
        // A small body in much padding and air.
        let mut rare = vec![-1024.0; 100_000];
        rare[..1000].copy_from_slice(&body);
        assert!(plausible(&rare));
    }
}
