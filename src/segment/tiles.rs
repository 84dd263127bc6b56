//! Where windows lie.

use super::SegmentError;

/// The windows over one grid: which padding the grid gets, and where windows start along each axis. Axes are the
/// network's (z, y, x).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Grid without padding.
    pub shape: [usize; 3],
    /// Window size.
    pub patch: [usize; 3],
    /// Voxels of padding below index 0 along each axis; the rest of what is missing goes above.
    pub pad_below: [usize; 3],
    /// Grid with padding: at least the patch along each axis.
    pub padded: [usize; 3],
    /// First voxel of the windows in the padded grid, ascending, per axis.
    pub starts: [Vec<usize>; 3],
}

impl Tiling {
    /// Windows of size `patch` whose distance is at most `patch * step` voxels, `step` in (0, 1].
    ///
    /// A grid smaller than the patch is padded evenly, the odd voxel above (nnU-Net's `pad_nd_image`).
    pub fn new(shape: [usize; 3], patch: [usize; 3], step: f64) -> Result<Tiling, SegmentError> {
        if shape.contains(&0) || patch.contains(&0) {
            return Err(SegmentError::EmptyGrid { shape, patch });
        }
        // Windows less than a voxel apart would coincide.
        if !(step > 0.0 && step <= 1.0) || patch.iter().any(|&p| p as f64 * step < 1.0) {
            return Err(SegmentError::Step { step, patch });
        }
        let padded: [usize; 3] = std::array::from_fn(|a| shape[a].max(patch[a]));
        Ok(Tiling {
            shape,
            patch,
            pad_below: std::array::from_fn(|a| (padded[a] - shape[a]) / 2),
            padded,
            starts: std::array::from_fn(|a| window_starts(padded[a], patch[a], step)),
        })
    }

    /// Voxels of padding above the grid along each axis.
    pub fn pad_above(&self) -> [usize; 3] {
        std::array::from_fn(|a| self.padded[a] - self.shape[a] - self.pad_below[a])
    }

    /// Number of windows.
    pub fn windows(&self) -> usize {
        self.starts.iter().map(Vec::len).product()
    }

    /// The `(y, x)` starts of the windows of one row, y outermost.
    pub fn row(&self) -> impl Iterator<Item = [usize; 2]> {
        self.starts[1].iter().flat_map(|&y| self.starts[2].iter().map(move |&x| [y, x]))
    }
}

/// First voxels of the windows along one axis, as nnU-Net places them: `ceil((image - patch) / (patch * step)) + 1`
/// windows spread evenly, each rounded half to even. Wants `image >= patch >= 1` and `0 < step <= 1`.
pub fn window_starts(image: usize, patch: usize, step: f64) -> Vec<usize> {
    let room = image.saturating_sub(patch) as f64;
    let gaps = (room / (patch as f64 * step)).ceil();
    if gaps < 1.0 {
        return vec![0];
    }
    let distance = room / gaps;
    (0..=gaps as usize).map(|i| (distance * i as f64).round_ties_even() as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padding_puts_the_odd_voxel_above() {
        let t = Tiling::new([5, 20, 9], [8, 8, 8], 0.5).expect("tiling");
        assert_eq!((t.pad_below, t.pad_above(), t.padded), ([1, 0, 0], [2, 0, 0], [8, 20, 9]));
        assert_eq!(t.starts, [vec![0], vec![0, 4, 8, 12], vec![0, 1]]);
        assert_eq!(t.windows(), 8);
        assert_eq!(t.row().next(), Some([0, 0]));
    }

    #[test]
    fn steps_that_make_no_windows_are_refused() {
        for step in [0.0, -1.0, 1.5, f64::NAN, 0.1] {
            assert!(matches!(Tiling::new([9, 9, 9], [8, 8, 8], step), Err(SegmentError::Step { .. })), "{step}");
        }
        assert!(matches!(Tiling::new([0, 9, 9], [8, 8, 8], 0.5), Err(SegmentError::EmptyGrid { .. })));
    }

    proptest! {
        #[test]
        fn windows_cover_the_axis(patch in 1usize..200, more in 0usize..900, step in 0.01f64..=1.0) {
            prop_assume!(patch as f64 * step >= 1.0);
            let starts = window_starts(patch + more, patch, step);
            prop_assert_eq!((starts[0], starts[starts.len() - 1]), (0, more));
            prop_assert!(starts.windows(2).all(|w| w[0] < w[1] && (w[1] - w[0]) as f64 <= patch as f64 * step + 1.0));
        }
    }
}
