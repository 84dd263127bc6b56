//! Keep-largest-component steps on finished labels.

use super::SegmentError;
use crate::models::Postprocessing;
use crate::volume::Labels;

/// Which voxels are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// Voxels that share a face (SciPy's default, nnU-Net v1).
    Faces,
    /// Voxels that share a face, edge or corner (scikit-image's default, nnU-Net v2).
    Corners,
}

impl Connectivity {
    /// 6 or 26 neighbours; 26 where the manifest does not say.
    pub fn from_neighbours(number: Option<u8>) -> Result<Connectivity, SegmentError> {
        match number {
            Some(6) => Ok(Connectivity::Faces),
            Some(26) | None => Ok(Connectivity::Corners),
            Some(other) => Err(SegmentError::Inconsistent(format!("connectivity {other} in the manifest; 6 and 26 exist"))),
        }
    }
}

/// Runs a model's steps, in order, on labels `[z, y, x]` of a grid `shape`.
pub fn postprocess(labels: &mut Labels, shape: [usize; 3], steps: &Postprocessing) -> Result<(), SegmentError> {
    let connectivity = Connectivity::from_neighbours(steps.connectivity)?;
    for union in &steps.keep_largest {
        match labels {
            Labels::U8(labels) => keep_largest(labels, shape, union, connectivity),
            Labels::U16(labels) => keep_largest(labels, shape, union, connectivity),
        }
    }
    Ok(())
}

/// Sets voxels with a label of `union` to 0 unless they lie in the largest connected component of such voxels; all
/// components of that size stay. `labels` is `[z, y, x]` of length `shape[0] * shape[1] * shape[2]`.
pub fn keep_largest<T: Copy + Default + Into<u16>>(labels: &mut [T], shape: [usize; 3], union: &[u16], connectivity: Connectivity) {
    if labels.is_empty() {
        return;
    }
    let mut wanted = vec![false; usize::from(u16::MAX) + 1];
    union.iter().for_each(|&l| wanted[usize::from(l)] = true);
    let mut runs = Runs::find(labels, shape, &wanted);
    runs.connect(shape, connectivity);
    let sizes = runs.component_sizes();
    let largest = sizes.iter().copied().max().unwrap_or(0);
    for i in 0..runs.runs.len() {
        if sizes[runs.root(i)] < largest {
            let Run { begin, end } = runs.runs[i];
            labels[begin..end].fill(T::default());
        }
    }
}

/// Connected components of one label. `labels` is `[z, y, x]`.
pub fn components(labels: &[u16], shape: [usize; 3], label: u16, connectivity: Connectivity) -> usize {
    if labels.is_empty() {
        return 0;
    }
    let mut wanted = vec![false; usize::from(u16::MAX) + 1];
    wanted[usize::from(label)] = true;
    let mut runs = Runs::find(labels, shape, &wanted);
    runs.connect(shape, connectivity);
    (0..runs.runs.len()).filter(|&run| runs.root(run) == run).count()
}

/// Neighbouring voxels of a row, by flat index.
#[derive(Clone, Copy)]
struct Run {
    begin: usize,
    end: usize,
}

/// The wanted voxels as runs along x, joined to components by a union-find forest: memory goes with the surface, not
/// with the volume.
struct Runs {
    runs: Vec<Run>,
    /// First run of each row; one more entry at the end.
    first_of_row: Vec<usize>,
    /// Parent of each run; a root is its own.
    parent: Vec<usize>,
}

impl Runs {
    fn find<T: Copy + Into<u16>>(labels: &[T], shape: [usize; 3], wanted: &[bool]) -> Runs {
        let mut runs = Vec::new();
        let mut first_of_row = vec![0];
        for (row, voxels) in labels.chunks_exact(shape[2]).enumerate() {
            let offset = row * shape[2];
            let mut open = None;
            for (x, &label) in voxels.iter().enumerate() {
                match (wanted[usize::from(label.into())], open) {
                    (true, None) => open = Some(offset + x),
                    (false, Some(begin)) => {
                        runs.push(Run { begin, end: offset + x });
                        open = None;
                    }
                    _ => {}
                }
            }
            if let Some(begin) = open {
                runs.push(Run { begin, end: offset + shape[2] });
            }
            first_of_row.push(runs.len());
        }
        let parent = (0..runs.len()).collect();
        Runs { runs, first_of_row, parent }
    }

    fn connect(&mut self, shape: [usize; 3], connectivity: Connectivity) {
        // Rows before (z, y) that touch it, as steps back in z and y.
        let before: &[(usize, isize)] = match connectivity {
            Connectivity::Faces => &[(0, 1), (1, 0)],
            Connectivity::Corners => &[(0, 1), (1, 1), (1, 0), (1, -1)],
        };
        let reach = usize::from(connectivity == Connectivity::Corners);
        for z in 0..shape[0] {
            for y in 0..shape[1] {
                for &(back_z, back_y) in before {
                    let (Some(other_z), Some(other_y)) = (z.checked_sub(back_z), y.checked_add_signed(-back_y)) else { continue };
                    if other_y < shape[1] {
                        self.connect_rows(z * shape[1] + y, other_z * shape[1] + other_y, shape[2], reach);
                    }
                }
            }
        }
    }

    /// Joins the runs of two rows that overlap in x, or come within `reach` of it.
    fn connect_rows(&mut self, row: usize, other: usize, width: usize, reach: usize) {
        let (mut i, mut j) = (self.first_of_row[row], self.first_of_row[other]);
        let (end_i, end_j) = (self.first_of_row[row + 1], self.first_of_row[other + 1]);
        while i < end_i && j < end_j {
            let in_row = |run: Run, row: usize| (run.begin - row * width, run.end - row * width);
            let (a, b) = (in_row(self.runs[i], row), in_row(self.runs[j], other));
            if a.0 < b.1 + reach && b.0 < a.1 + reach {
                self.join(i, j);
            }
            if a.1 < b.1 {
                i += 1;
            } else {
                j += 1;
            }
        }
    }

    fn root(&mut self, mut run: usize) -> usize {
        while self.parent[run] != run {
            self.parent[run] = self.parent[self.parent[run]];
            run = self.parent[run];
        }
        run
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.parent[high] = low;
    }

    /// Voxels of each component, at its root's index; 0 elsewhere.
    fn component_sizes(&mut self) -> Vec<usize> {
        let mut sizes = vec![0; self.runs.len()];
        for i in 0..self.runs.len() {
            let Run { begin, end } = self.runs[i];
            sizes[self.root(i)] += end - begin;
        }
        sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Flood fill, voxel by voxel.
    fn keep_largest_plain(labels: &[u8], shape: [usize; 3], union: &[u16], connectivity: Connectivity) -> Vec<u8> {
        let [nz, ny, nx] = shape;
        let mut component = vec![0usize; labels.len()];
        let mut sizes = vec![0usize];
        for start in 0..labels.len() {
            if component[start] != 0 || !union.contains(&labels[start].into()) {
                continue;
            }
            let id = sizes.len();
            sizes.push(0);
            component[start] = id;
            let mut stack = vec![start];
            while let Some(i) = stack.pop() {
                sizes[id] += 1;
                let (z, y, x) = ((i / nx / ny) as i32, (i / nx % ny) as i32, (i % nx) as i32);
                for d in 0..27 {
                    let (dz, dy, dx) = (d / 9 - 1, d / 3 % 3 - 1, d % 3 - 1);
                    let (z, y, x) = (z + dz, y + dy, x + dx);
                    let steps = dz.abs() + dy.abs() + dx.abs();
                    if steps == 0 || (connectivity == Connectivity::Faces && steps > 1) {
                        continue;
                    }
                    if z < 0 || y < 0 || x < 0 || z >= nz as i32 || y >= ny as i32 || x >= nx as i32 {
                        continue;
                    }
                    let n = (z as usize * ny + y as usize) * nx + x as usize;
                    if component[n] == 0 && union.contains(&labels[n].into()) {
                        component[n] = id;
                        stack.push(n);
                    }
                }
            }
        }
        let largest = sizes.iter().copied().max().unwrap_or(0);
        labels.iter().zip(&component).map(|(&l, &c)| if c > 0 && sizes[c] < largest { 0 } else { l }).collect()
    }

    proptest! {
        #[test]
        fn runs_find_what_flood_fill_finds(
            shape in proptest::array::uniform3(1usize..7),
            seed in proptest::collection::vec(0u8..5, 6 * 6 * 6),
            corners in any::<bool>(),
        ) {
            let connectivity = if corners { Connectivity::Corners } else { Connectivity::Faces };
            let mut labels: Vec<u8> = seed[..shape.iter().product()].to_vec();
            let expected = keep_largest_plain(&labels, shape, &[1, 3], connectivity);
            keep_largest(&mut labels, shape, &[1, 3], connectivity);
            prop_assert_eq!(labels, expected);
        }
    }

    #[test]
    fn an_unknown_connectivity_is_refused() {
        assert_eq!(Connectivity::from_neighbours(None).ok(), Some(Connectivity::Corners));
        assert_eq!(Connectivity::from_neighbours(Some(6)).ok(), Some(Connectivity::Faces));
        assert!(Connectivity::from_neighbours(Some(18)).is_err());
    }
}
