//! Whether two images show the same thing: a fingerprint that survives another identity, noise and rounding.

/// Blocks along each axis.
const BLOCKS: usize = 8;
/// Bits of a fingerprint.
const BITS: u32 = (BLOCKS * BLOCKS * BLOCKS) as u32;
/// Bits that may differ between two copies of one image: one in twenty.
const SAME: u32 = BITS / 20;

/// A perceptual hash: for each of 8 × 8 × 8 blocks whether its mean lies above the median of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Likeness([u64; 8]);

impl Likeness {
    /// Of the first channel of an image `[c, z, y, x]`; none for an image with fewer voxels than blocks along an axis, or one that
    /// is the same everywhere.
    pub fn of(data: &[f32], shape: [usize; 3]) -> Option<Likeness> {
        let [nz, ny, nx] = shape;
        if shape.iter().any(|&n| n < BLOCKS) || data.len() < nz * ny * nx {
            return None;
        }
        let (mut sums, mut counts) = (vec![0f64; BITS as usize], vec![0u64; BITS as usize]);
        for (row, values) in data.chunks_exact(nx).take(nz * ny).enumerate() {
            let (z, y) = (row / ny * BLOCKS / nz, row % ny * BLOCKS / ny);
            for (x, &value) in values.iter().enumerate() {
                let block = (z * BLOCKS + y) * BLOCKS + x * BLOCKS / nx;
                sums[block] += f64::from(value);
                counts[block] += 1;
            }
        }
        let means: Vec<f64> = sums.iter().zip(&counts).map(|(sum, count)| sum / *count as f64).collect();
        let mut sorted = means.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        if sorted.first() == sorted.last() {
            return None;
        }
        let mut bits = [0; 8];
        means.iter().enumerate().filter(|(_, mean)| **mean > median).for_each(|(i, _)| bits[i / 64] |= 1 << (i % 64));
        Some(Likeness(bits))
    }

    /// Bits that differ.
    pub fn distance(&self, other: &Likeness) -> u32 {
        self.0.iter().zip(other.0).map(|(a, b)| (a ^ b).count_ones()).sum()
    }

    /// Whether both are of one image.
    pub fn is_like(&self, other: &Likeness) -> bool {
        self.distance(other) <= SAME
    }
}

impl From<Likeness> for String {
    fn from(likeness: Likeness) -> String {
        likeness.0.iter().map(|bits| format!("{bits:016x}")).collect()
    }
}

impl TryFrom<String> for Likeness {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Likeness, &'static str> {
        let wrong = "a likeness has 128 hexadecimal digits";
        if text.len() != 128 || !text.is_ascii() {
            return Err(wrong);
        }
        let mut bits = [0; 8];
        for (i, bits) in bits.iter_mut().enumerate() {
            *bits = u64::from_str_radix(&text[16 * i..][..16], 16).map_err(|_| wrong)?;
        }
        Ok(Likeness(bits))
    }
}
