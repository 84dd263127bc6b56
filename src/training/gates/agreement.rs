//! How well two label arrays agree on one class.

/// Dice's coefficient of one label in two arrays of the same grid; none where the label is in neither.
pub fn dice(a: &[u16], b: &[u16], label: u16) -> Option<f64> {
    let (mut both, mut sum) = (0u64, 0u64);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (a == label, b == label);
        both += u64::from(a && b);
        sum += u64::from(a) + u64::from(b);
    }
    (sum > 0).then(|| 2.0 * both as f64 / sum as f64)
}

/// Surface Dice (NSD): the share of both surfaces' voxels that lie within `tolerance` mm of the other surface; none where the
/// label is in neither, 0 where it is in one only. A surface voxel is one of the label with a face neighbour that is not, or at
/// the end of the array. `shape` is `[z, y, x]`, `spacing` its mm.
pub fn surface_dice(a: &[u16], b: &[u16], shape: [usize; 3], spacing: [f64; 3], label: u16, tolerance: f64) -> Option<f64> {
    let part = Part::around(a, b, shape, label)?;
    let surfaces = [a, b].map(|labels| part.surface(labels, shape, label));
    let counts = surfaces.each_ref().map(|surface| surface.iter().filter(|s| **s).count());
    if counts.contains(&0) {
        return Some(0.0);
    }
    let limit = tolerance * tolerance * (1.0 + 1e-9);
    let near: usize = [(0, 1), (1, 0)]
        .map(|(from, to)| {
            let distance = squared_distances(&surfaces[to], part.size, spacing);
            surfaces[from].iter().zip(&distance).filter(|(on, distance)| **on && **distance <= limit).count()
        })
        .iter()
        .sum();
    Some(near as f64 / (counts[0] + counts[1]) as f64)
}

/// The box around a label in either array.
struct Part {
    start: [usize; 3],
    size: [usize; 3],
}

impl Part {
    fn around(a: &[u16], b: &[u16], shape: [usize; 3], label: u16) -> Option<Part> {
        let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
        for (i, _) in a.iter().zip(b).enumerate().filter(|(_, (a, b))| **a == label || **b == label) {
            let at = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
            for axis in 0..3 {
                low[axis] = low[axis].min(at[axis]);
                high[axis] = high[axis].max(at[axis]);
            }
        }
        (low[0] != usize::MAX).then(|| Part { start: low, size: std::array::from_fn(|axis| high[axis] - low[axis] + 1) })
    }

    fn surface(&self, labels: &[u16], shape: [usize; 3], label: u16) -> Vec<bool> {
        let index = |at: [usize; 3]| (at[0] * shape[1] + at[1]) * shape[2] + at[2];
        let [_, rows, columns] = self.size;
        (0..self.size.iter().product())
            .map(|i| {
                let at = [self.start[0] + i / (rows * columns), self.start[1] + i / columns % rows, self.start[2] + i % columns];
                let open = |axis: usize| {
                    let mut beside = [at; 2];
                    beside[1][axis] += 1;
                    let below = at[axis] == 0 || {
                        beside[0][axis] -= 1;
                        labels[index(beside[0])] != label
                    };
                    below || beside[1][axis] == shape[axis] || labels[index(beside[1])] != label
                };
                labels[index(at)] == label && (0..3).any(open)
            })
            .collect()
    }
}

/// Squared distance of every voxel to the nearest marked one, mm² (Felzenszwalb and Huttenlocher 2012: one lower envelope of
/// parabolas for each line and axis).
fn squared_distances(marked: &[bool], size: [usize; 3], spacing: [f64; 3]) -> Vec<f64> {
    let mut field: Vec<f64> = marked.iter().map(|m| if *m { 0.0 } else { f64::INFINITY }).collect();
    let strides = [size[1] * size[2], size[2], 1];
    for axis in 0..3 {
        let (n, stride) = (size[axis], strides[axis]);
        let mut line = vec![0.0; n];
        for start in (0..field.len()).filter(|i| i / stride % n == 0) {
            (0..n).for_each(|i| line[i] = field[start + i * stride]);
            envelope(&mut line, spacing[axis]);
            (0..n).for_each(|i| field[start + i * stride] = line[i]);
        }
    }
    field
}

/// `line[i] = min over j of line[j] + ((i - j) step)²`, in place.
fn envelope(line: &mut [f64], step: f64) {
    // Parabolas that are lowest somewhere, and from where on.
    let mut lowest: Vec<(usize, f64, f64)> = Vec::new();
    for (j, &height) in line.iter().enumerate().filter(|(_, height)| height.is_finite()) {
        let at = j as f64 * step;
        let mut from = f64::NEG_INFINITY;
        while let Some(&(other, other_height, start)) = lowest.last() {
            let place = other as f64 * step;
            let crossing = ((height + at * at) - (other_height + place * place)) / (2.0 * (at - place));
            if crossing > start {
                from = crossing;
                break;
            }
            lowest.pop();
        }
        lowest.push((j, height, from));
    }
    let mut current = 0;
    for (i, value) in line.iter_mut().enumerate() {
        let at = i as f64 * step;
        while lowest.get(current + 1).is_some_and(|next| next.2 < at) {
            current += 1;
        }
        *value = lowest.get(current).map_or(f64::INFINITY, |&(j, height, _)| height + (at - j as f64 * step).powi(2));
    }
}
