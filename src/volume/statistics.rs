//! Numbers that tell volumes apart.

use super::Volume;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Statistics of one channel.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Statistics {
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Mean, summed in f64.
    pub mean: f64,
    /// SHA-256 over the values as little-endian f32 in z, y, x order, hexadecimal.
    pub sha256_f32le: String,
}

impl Statistics {
    /// Of a channel of a volume.
    pub fn of(volume: &Volume, channel: usize) -> Statistics {
        let voxels: usize = volume.shape.iter().product();
        Statistics::of_values(&volume.data[channel * voxels..(channel + 1) * voxels])
    }

    /// Of numbers.
    pub fn of_values(values: &[f32]) -> Statistics {
        let part = |chunk: &[f32]| {
            chunk.iter().fold((f32::INFINITY, f32::NEG_INFINITY, 0f64), |(lo, hi, sum), &v| (lo.min(v), hi.max(v), sum + f64::from(v)))
        };
        let merge = |a: (f32, f32, f64), b: (f32, f32, f64)| (a.0.min(b.0), a.1.max(b.1), a.2 + b.2);
        let (digest, (min, max, sum)) = rayon::join(
            || digest(values),
            // Parts of one size, joined in order: the sum does not depend on the number of threads.
            || values.par_chunks(1 << 16).map(part).collect::<Vec<_>>().into_iter().fold(part(&[]), merge),
        );
        Statistics { min, max, mean: sum / values.len().max(1) as f64, sha256_f32le: digest }
    }
}

fn digest(values: &[f32]) -> String {
    let mut hash = Sha256::new();
    let mut bytes = Vec::new();
    for chunk in values.chunks(1 << 14) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
        hash.update(&bytes);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_few_numbers() {
        let s = Statistics::of_values(&[1.0, -2.0, 4.0]);
        assert_eq!((s.min, s.max, s.mean), (-2.0, 4.0, 1.0));
        // sha256 of 0000803f 000000c0 00008040
        assert_eq!(s.sha256_f32le, "9d725e6b6e05a50482e4d4f609f0ffa955a08730fcff4e323efff38719e35eeb");
    }
}
