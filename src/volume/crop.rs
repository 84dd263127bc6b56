//! The part of an image that is not empty.

use super::resample::Grid;
use rayon::prelude::*;

/// A box in an array: lower corner and size per axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First index inside, per axis.
    pub start: [usize; 3],
    /// Number of samples, per axis.
    pub shape: [usize; 3],
}

/// The smallest box that holds every voxel that is not 0 in some channel; the whole array if there is none. All channels have one shape.
///
/// Holes inside the image do not matter for it. Where the border is not empty, which is the rule for CT, little of the image is read.
pub fn nonzero_region(channels: &[Grid<f32>]) -> Region {
    let Some(first) = channels.first() else { return Region { start: [0; 3], shape: [0; 3] } };
    let shape = first.shape();
    let planes: Vec<Option<[Span; 2]>> = (0..shape[0])
        .into_par_iter()
        .map(|a| channels.iter().filter_map(|grid| plane_spans(grid, a)).reduce(|p, q| [p[0].union(q[0]), p[1].union(q[1])]))
        .collect();
    let mut found = planes.iter().enumerate().filter_map(|(a, spans)| spans.map(|[b, c]| [Span { first: a, last: a }, b, c]));
    let Some(start) = found.next() else { return Region { start: [0; 3], shape } };
    let spans = found.fold(start, |all, one| std::array::from_fn(|axis| all[axis].union(one[axis])));
    Region { start: spans.map(|s| s.first), shape: spans.map(|s| s.last - s.first + 1) }
}

/// First and last index of something along an axis.
#[derive(Clone, Copy)]
struct Span {
    first: usize,
    last: usize,
}

impl Span {
    fn union(self, other: Span) -> Span {
        Span { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// Rows and columns of plane `a` that hold something.
fn plane_spans(grid: &Grid<f32>, a: usize) -> Option<[Span; 2]> {
    let [_, rows, width] = grid.shape();
    let filled = |b: usize| grid.row(a, b).any(|v| v != 0.0);
    let top = (0..rows).find(|&b| filled(b))?;
    let bottom = (top..rows).rev().find(|&b| filled(b)).unwrap_or(top);
    let (mut left, mut right) = (width, 0);
    for b in top..=bottom {
        if let Some(c) = grid.row(a, b).take(left).position(|v| v != 0.0) {
            left = c;
        }
        // `right` is one past the last found so far
        if let Some(c) = grid.row(a, b).skip(right).rposition(|v| v != 0.0) {
            right += c + 1;
        }
        if left == 0 && right == width {
            break;
        }
    }
    Some([Span { first: top, last: bottom }, Span { first: left, last: right - 1 }])
}

/// 1 inside, 0 outside: voxels that are not 0 in some channel, and the holes that they enclose (not reachable from outside through faces).
/// Contiguous, of the channels' shape, which should be that of [`nonzero_region`]: what lies beyond the border counts as outside.
pub fn nonzero_mask(channels: &[Grid<f32>]) -> Vec<u8> {
    let shape = channels.first().map_or([0; 3], |g| g.shape());
    let [_, rows, width] = shape;
    let mut mask = vec![0u8; shape.iter().product()];
    mask.par_chunks_mut((rows * width).max(1)).enumerate().for_each(|(a, plane)| {
        for (b, row) in plane.chunks_mut(width.max(1)).enumerate() {
            for grid in channels {
                row.iter_mut().zip(grid.row(a, b)).for_each(|(m, v)| *m |= u8::from(v != 0.0));
            }
        }
    });
    fill_holes(&mut mask, shape);
    mask
}

const OBJECT: u8 = 1;
const OUTSIDE: u8 = 2;

/// Sets every 0 that no path through faces joins to the border to 1.
fn fill_holes(mask: &mut [u8], [planes, rows, width]: [usize; 3]) {
    let row_of = |a: usize, b: usize| (a * rows + b) * width;
    // starts of runs of background that the flood has reached but not entered
    let mut reached: Vec<(usize, usize, usize)> = Vec::new();
    for a in 0..planes {
        for b in 0..rows {
            let border = a == 0 || b == 0 || a + 1 == planes || b + 1 == rows;
            let columns: &mut dyn Iterator<Item = usize> = if border { &mut (0..width) } else { &mut [0, width - 1].into_iter() };
            for c in columns {
                if mask[row_of(a, b) + c] != 0 {
                    continue;
                }
                reached.push((a, b, c));
                while let Some((a, b, c)) = reached.pop() {
                    enter(mask, [planes, rows, width], (a, b, c), &mut reached);
                }
            }
        }
    }
    mask.par_iter_mut().for_each(|m| *m = if *m == OUTSIDE { 0 } else { OBJECT });
}

/// Marks the run of background around a voxel and notes the runs that touch it in the four neighbouring rows.
fn enter(mask: &mut [u8], [planes, rows, width]: [usize; 3], (a, b, c): (usize, usize, usize), reached: &mut Vec<(usize, usize, usize)>) {
    let row = &mut mask[(a * rows + b) * width..][..width];
    if row[c] != 0 {
        return;
    }
    let first = row[..c].iter().rposition(|&m| m != 0).map_or(0, |i| i + 1);
    let last = row[c..].iter().position(|&m| m != 0).map_or(width, |i| c + i);
    row[first..last].fill(OUTSIDE);
    let neighbours = [(a.wrapping_sub(1), b), (a + 1, b), (a, b.wrapping_sub(1)), (a, b + 1)];
    for (a, b) in neighbours.into_iter().filter(|&(a, b)| a < planes && b < rows) {
        let row = &mask[(a * rows + b) * width..][..width];
        let mut inside = false;
        for (c, m) in row.iter().enumerate().take(last).skip(first) {
            if *m == 0 && !inside {
                reached.push((a, b, c));
            }
            inside = *m == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: grow the outside from beyond the border until nothing changes.
    fn plain_mask(data: &[f32], shape: [usize; 3]) -> Vec<u8> {
        let at = |p: [i64; 3]| -> Option<usize> {
            let inside = (0..3).all(|a| (0..shape[a] as i64).contains(&p[a]));
            inside.then(|| ((p[0] as usize * shape[1]) + p[1] as usize) * shape[2] + p[2] as usize)
        };
        let mut outside = vec![false; data.len()];
        loop {
            let before = outside.clone();
            for z in 0..shape[0] as i64 {
                for y in 0..shape[1] as i64 {
                    for x in 0..shape[2] as i64 {
                        let i = at([z, y, x]).unwrap();
                        let near = [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]];
                        let open = near.iter().any(|d| at([z + d[0], y + d[1], x + d[2]]).is_none_or(|j| outside[j]));
                        outside[i] |= data[i] == 0.0 && open;
                    }
                }
            }
            if before == outside {
                return outside.iter().map(|&o| u8::from(!o)).collect();
            }
        }
    }

    fn image() -> impl Strategy<Value = ([usize; 3], Vec<f32>)> {
        (proptest::array::uniform3(1usize..7), 0.05f64..0.95).prop_flat_map(|(shape, share)| {
            let voxel = prop::bool::weighted(share).prop_map(|full| if full { 1.5 } else { 0.0 });
            (Just(shape), proptest::collection::vec(voxel, shape.iter().product::<usize>()))
        })
    }

    proptest! {
        #[test]
        fn mask_is_the_filled_object((shape, data) in image()) {
            prop_assert_eq!(nonzero_mask(&[Grid::new(&data, shape)]), plain_mask(&data, shape));
        }

        #[test]
        fn region_is_tight((shape, data) in image(), (other_shape, other) in image()) {
            let second = if other_shape == shape { other } else { vec![0.0; data.len()] };
            let region = nonzero_region(&[Grid::new(&data, shape), Grid::new(&second, shape)]);
            let full = |z: usize, y: usize, x: usize| {
                let i = (z * shape[1] + y) * shape[2] + x;
                data[i] != 0.0 || second[i] != 0.0
            };
            let points: Vec<[usize; 3]> = (0..shape[0])
                .flat_map(|z| (0..shape[1]).flat_map(move |y| (0..shape[2]).map(move |x| [z, y, x])))
                .filter(|&[z, y, x]| full(z, y, x))
                .collect();
            if points.is_empty() {
                prop_assert_eq!(region, Region { start: [0; 3], shape });
            } else {
                for a in 0..3 {
                    let (lo, hi) = (points.iter().map(|p| p[a]).min().unwrap(), points.iter().map(|p| p[a]).max().unwrap());
                    prop_assert_eq!((region.start[a], region.shape[a]), (lo, hi - lo + 1));
                }
            }
        }
    }
}
