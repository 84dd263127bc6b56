//! How large the resampled grid is, and which axis is treated apart.

/// nnU-Net's shape rule: per axis `round(spacing / target * n)` in this order of operations, halves to even. 0 is possible, for
/// an axis far shorter than a target voxel. Axis order is the caller's, the same for all three.
pub fn resampled_shape(shape: [usize; 3], spacing: [f64; 3], target: [f64; 3]) -> [usize; 3] {
    std::array::from_fn(|a| {
        // a saturating cast: a grid that large is refused by the limits
        (spacing[a] / target[a] * shape[a] as f64).round_ties_even() as usize
    })
}

/// The axis that is interpolated by nearest neighbour instead of with the others, for strongly anisotropic voxels: where the largest
/// spacing exceeds three times the smallest, first asked of `current`, then of `new`. `None` if two axes share the largest spacing.
pub fn separate_axis(current: [f64; 3], new: [f64; 3]) -> Option<usize> {
    for spacing in [current, new] {
        let largest = spacing.iter().copied().fold(f64::MIN, f64::max);
        let smallest = spacing.iter().copied().fold(f64::MAX, f64::min);
        if largest / smallest > 3.0 {
            let mut axes = (0..3).filter(|&a| spacing[a] == largest);
            let first = axes.next();
            return if axes.next().is_none() { first } else { None };
        }
    }
    None
}
