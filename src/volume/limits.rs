//! How large an array from outside may be.

/// Limits that are checked before memory is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Voxels of one array, all channels together.
    pub max_voxels: u64,
}

impl Default for Limits {
    /// 2³⁰ voxels: 4 GiB of f32, or 512 × 512 × 4096.
    fn default() -> Self {
        Limits { max_voxels: 1 << 30 }
    }
}

impl Limits {
    /// The number of voxels of `channels` arrays of this shape, if it is within the limit and can be addressed.
    pub fn voxels(&self, channels: usize, shape: [usize; 3]) -> Option<usize> {
        let total = shape.iter().try_fold(channels, |n, &s| n.checked_mul(s))?;
        (total as u64 <= self.max_voxels).then_some(total)
    }
}
