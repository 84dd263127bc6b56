//! Deep supervision: which heads learn how much, and from which targets.

/// nnU-Net's weights of the heads, full resolution first: halved with each level, 0 for the lowest, summing to 1. With a
/// single level that one has it all.
pub fn head_weights(levels: usize) -> Vec<f64> {
    let halves = |level: usize| if level + 1 == levels && levels > 1 { 0.0 } else { 0.5f64.powi(level as i32) };
    let sum: f64 = (0..levels).map(halves).sum();
    (0..levels).map(|level| halves(level) / sum).collect()
}

/// Targets of one head: `[N, shape]`, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// Labels.
    pub labels: Vec<u16>,
    /// Of one sample.
    pub shape: [usize; 3],
}

/// The targets of the lower heads from those of the full resolution, nearest neighbour with half-pixel centres:
/// `out[i] = full[floor((i + 1/2) * size / out size)]`. Sizes are the full ones over the cumulated strides, rounded half to
/// even. `strides[d]` leads from head `d` to head `d + 1`; one level for each, besides the full one in front.
pub fn lower_targets(full: Level, strides: &[[usize; 3]]) -> Vec<Level> {
    let (size, samples) = (full.shape, full.labels.len() / full.shape.iter().product::<usize>().max(1));
    let mut cumulated = [1usize; 3];
    let mut levels = Vec::with_capacity(strides.len() + 1);
    for stride in strides {
        cumulated = std::array::from_fn(|axis| cumulated[axis] * stride[axis]);
        let shape: [usize; 3] = std::array::from_fn(|axis| (size[axis] as f64 / cumulated[axis] as f64).round_ties_even() as usize);
        let from: [Vec<usize>; 3] = std::array::from_fn(|axis| {
            let nearest = |i: usize| ((2 * i + 1) * size[axis] / (2 * shape[axis])).min(size[axis] - 1);
            (0..shape[axis]).map(nearest).collect()
        });
        let mut labels = Vec::with_capacity(samples * shape.iter().product::<usize>());
        for sample in full.labels.chunks_exact(size.iter().product()) {
            for &a in &from[0] {
                for &b in &from[1] {
                    let row = &sample[(a * size[1] + b) * size[2]..][..size[2]];
                    labels.extend(from[2].iter().map(|&c| row[c]));
                }
            }
        }
        levels.push(Level { labels, shape });
    }
    levels.insert(0, full);
    levels
}
