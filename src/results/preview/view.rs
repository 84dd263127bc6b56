//! The three planes of a volume as a reader expects them: patient right on the left, anterior and superior on top.

use crate::volume::{Affine, LabelMap, Quantity, Volume};

/// A plane of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// Seen from the feet.
    Axial,
    /// Seen from the front.
    Coronal,
    /// Seen from the left side.
    Sagittal,
}

/// A direction of the body: axis 0, 1, 2 = towards left, posterior, superior; negative is the opposite.
type Direction = (usize, bool);

impl Plane {
    /// All, in the order of the picture.
    pub const ALL: [Plane; 3] = [Plane::Axial, Plane::Coronal, Plane::Sagittal];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Plane::Axial => "axial",
            Plane::Coronal => "coronal",
            Plane::Sagittal => "sagittal",
        }
    }

    /// Which directions of the body run to the right and downwards.
    fn directions(self) -> (Direction, Direction) {
        const LEFT: Direction = (0, true);
        const POSTERIOR: Direction = (1, true);
        const INFERIOR: Direction = (2, false);
        match self {
            Plane::Axial => (LEFT, POSTERIOR),
            Plane::Coronal => (LEFT, INFERIOR),
            Plane::Sagittal => (POSTERIOR, INFERIOR),
        }
    }
}

/// An axis of the array as it runs across the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    /// 0, 1, 2 = i, j, k.
    pub index: usize,
    /// Whether the picture runs against the index.
    pub reversed: bool,
    /// Number of voxels.
    pub count: usize,
    /// Size of a voxel, mm.
    pub spacing: f64,
    /// Letters at the beginning and at the end.
    pub letters: [char; 2],
}

/// One plane through the volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Which.
    pub plane: Plane,
    /// To the right.
    pub across: Axis,
    /// Downwards.
    pub down: Axis,
    /// The array axis that the plane cuts, and where.
    pub slice: (usize, usize),
}

impl View {
    /// The plane through an index `[z, y, x]`. Array axes are matched to those of the body as closely as they can be.
    pub fn through(plane: Plane, affine: &Affine, shape: [usize; 3], centre: [f64; 3]) -> View {
        let axes = closest_axes(affine);
        let counts = [shape[2], shape[1], shape[0]];
        let [si, sj, _] = affine.spacing();
        // Distance of the slices along their normal, also where the gantry was tilted.
        let spacing = [si, sj, affine.determinant().abs() / (si * sj)];
        let axis = |(body, positive): Direction| {
            let index = axes[body];
            let towards_positive = affine.column(index)[body] > 0.0;
            let [from, to] = [['R', 'L'], ['A', 'P'], ['I', 'S']][body];
            let letters = if positive { [from, to] } else { [to, from] };
            Axis { index, reversed: towards_positive != positive, count: counts[index], spacing: spacing[index], letters }
        };
        let (right, down) = plane.directions();
        let cut = axes[3 - right.0 - down.0];
        let at = centre[2 - cut].round().clamp(0.0, (counts[cut] - 1) as f64) as usize;
        View { plane, across: axis(right), down: axis(down), slice: (cut, at) }
    }

    /// Width and height in mm.
    pub fn extent(&self) -> [f64; 2] {
        [self.across, self.down].map(|a| a.count as f64 * a.spacing)
    }

    /// Samples a picture of `width × height` pixels: grey (linear interpolation, 0 to 1) and label (the one with the largest share of
    /// the same four voxels, for smooth outlines).
    pub fn sample(&self, volume: &Volume, labels: &LabelMap, window: Window, width: usize, height: usize) -> Vec<(f32, u16)> {
        let [_, ny, nx] = volume.shape;
        let stride = [1, nx, nx * ny];
        let base = self.slice.1 * stride[self.slice.0];
        let place = |axis: &Axis, pixel: usize, pixels: usize| {
            let p = (pixel as f64 + 0.5) / pixels as f64;
            let p = if axis.reversed { 1.0 - p } else { p };
            (p * axis.count as f64 - 0.5).clamp(0.0, (axis.count - 1) as f64)
        };
        let columns: Vec<f64> = (0..width).map(|x| place(&self.across, x, width)).collect();
        let (sa, sd) = (stride[self.across.index], stride[self.down.index]);
        let mut out = Vec::with_capacity(width * height);
        for y in 0..height {
            let v = place(&self.down, y, height);
            let (v0, fv) = (v as usize, v.fract() as f32);
            let v1 = (v0 + 1).min(self.down.count - 1);
            for &u in &columns {
                let (u0, fu) = (u as usize, u.fract() as f32);
                let u1 = (u0 + 1).min(self.across.count - 1);
                let corners = [(u0, v0), (u1, v0), (u0, v1), (u1, v1)].map(|(u, v)| base + u * sa + v * sd);
                let shares = [(1.0 - fu) * (1.0 - fv), fu * (1.0 - fv), (1.0 - fu) * fv, fu * fv];
                let value = corners.iter().zip(shares).map(|(&i, share)| volume.data[i] * share).sum();
                out.push((window.grey(value), majority(corners.map(|i| labels.labels().get(i)), shares)));
            }
        }
        out
    }
}

/// The label with the largest share; of equal ones the first.
fn majority(labels: [u16; 4], shares: [f32; 4]) -> u16 {
    let total = |label: u16| -> f32 { labels.iter().zip(shares).filter(|(l, _)| **l == label).map(|(_, s)| s).sum() };
    labels[1..].iter().fold(labels[0], |best, &l| if total(l) > total(best) { l } else { best })
}

/// Which array axis runs closest along left, posterior and superior: each axis once, the sum of cosines largest.
fn closest_axes(affine: &Affine) -> [usize; 3] {
    let spacing = affine.spacing();
    let cosine = |axis: usize, body: usize| (affine.column(axis)[body] / spacing[axis]).abs();
    let all = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let sum = |axes: &[usize; 3]| -> f64 { (0..3).map(|body| cosine(axes[body], body)).sum() };
    all.into_iter().max_by(|a, b| sum(a).total_cmp(&sum(b))).unwrap_or([0, 1, 2])
}

/// Values shown as black and as white.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Black.
    pub low: f32,
    /// White.
    pub high: f32,
}

impl Window {
    /// Soft tissue for HU, 0 to 8 for SUV; else from the first to the 99th percentile.
    pub fn of(volume: &Volume) -> Window {
        match volume.quantity.first() {
            Some(Quantity::Hu) => Window { low: -160.0, high: 240.0 },
            Some(Quantity::SuvBw) => Window { low: 0.0, high: 8.0 },
            _ => {
                let channel = &volume.data[..volume.shape.iter().product::<usize>().min(volume.data.len())];
                let mut some: Vec<f32> = channel.iter().step_by((channel.len() / 100_000).max(1)).copied().collect();
                some.sort_by(f32::total_cmp);
                let at = |share: f64| some.get((share * (some.len() as f64 - 1.0)).max(0.0) as usize).copied().unwrap_or(0.0);
                Window { low: at(0.01), high: at(0.99).max(at(0.01) + f32::EPSILON) }
            }
        }
    }

    fn grey(self, value: f32) -> f32 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affine(columns: [[f64; 3]; 3]) -> Affine {
        Affine::new(columns[0], columns[1], columns[2], [0.0; 3]).expect("invertible")
    }

    #[test]
    fn a_plain_axial_series_is_shown_as_it_is_stored() {
        let a = affine([[0.8, 0.0, 0.0], [0.0, 0.7, 0.0], [0.0, 0.0, 2.0]]);
        let v = View::through(Plane::Axial, &a, [10, 20, 30], [4.4, 9.0, 9.0]);
        assert_eq!((v.across.index, v.across.reversed, v.across.letters), (0, false, ['R', 'L']));
        assert_eq!((v.down.index, v.down.reversed, v.down.letters), (1, false, ['A', 'P']));
        assert_eq!(v.slice, (2, 4));
        let v = View::through(Plane::Coronal, &a, [10, 20, 30], [4.4, 9.0, 9.0]);
        assert_eq!((v.down.index, v.down.reversed, v.down.letters), (2, true, ['S', 'I']));
        assert_eq!((v.slice, v.extent()), ((1, 9), [24.0, 20.0]));
    }

    #[test]
    fn sagittal_and_flipped_series_turn_out_the_same() {
        // Columns run posterior, rows inferior, slices to the right.
        let a = affine([[0.0, 0.5, 0.0], [0.0, 0.0, -0.5], [-3.0, 0.0, 0.0]]);
        let v = View::through(Plane::Axial, &a, [5, 6, 7], [1.0, 2.0, 3.0]);
        assert_eq!((v.across.index, v.across.reversed, v.across.count), (2, true, 5));
        assert_eq!((v.down.index, v.down.reversed, v.down.count), (0, false, 7));
        assert_eq!(v.slice, (1, 2));
        let v = View::through(Plane::Sagittal, &a, [5, 6, 7], [1.0, 2.0, 3.0]);
        assert_eq!((v.across.letters, v.down.letters, v.slice), (['A', 'P'], ['S', 'I'], (2, 1)));
        assert!(!v.down.reversed);
    }

    #[test]
    fn the_label_with_the_largest_share_is_shown() {
        assert_eq!(majority([1, 2, 2, 3], [0.4, 0.3, 0.2, 0.1]), 2);
        assert_eq!(majority([7, 0, 0, 0], [0.25; 4]), 0);
        assert_eq!(majority([7, 7, 0, 0], [0.25; 4]), 7);
    }

    #[test]
    fn tilted_slices_have_their_normal_distance() {
        let a = affine([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 2.0]]);
        let v = View::through(Plane::Coronal, &a, [4, 4, 4], [0.0; 3]);
        assert!((v.down.spacing - 2.0).abs() < 1e-12);
    }
}
