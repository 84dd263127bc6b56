//! Changed inputs, and inputs in which nothing is to be found.

use crate::models::{Channel, Manifest, Normalization};
use crate::training::data::Random;
use crate::volume::{Affine, Quantity, Source, Volume, nifti::NiftiGeometry};

/// Noise: its standard deviation as a share of a channel's range.
const NOISE: f64 = 0.005;
/// Shift in voxels along y and x.
const SHIFT: [usize; 2] = [5, 7];
/// HU of air.
const AIR: f32 = -1000.0;
/// Standard deviation of noisy air, HU.
const AIR_NOISE: f64 = 10.0;

/// How an input is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Not at all.
    Plain,
    /// Gaussian noise.
    Noise,
    /// Moved in the plane; what comes in repeats the edge.
    Shift,
    /// Rows and columns in the opposite order, and the affine with them: the same patient.
    Orientation,
    /// Every two slices are their mean.
    Thick,
}

/// All changes but none.
pub const CHANGES: [Change; 4] = [Change::Noise, Change::Shift, Change::Orientation, Change::Thick];

impl Change {
    /// In names of files and findings.
    pub fn name(self) -> &'static str {
        match self {
            Change::Plain => "plain",
            Change::Noise => "noise",
            Change::Shift => "shift",
            Change::Orientation => "orientation",
            Change::Thick => "thick slices",
        }
    }

    /// The changed image. The same every time.
    pub fn image(self, volume: &Volume) -> Volume {
        let [nz, ny, nx] = volume.shape;
        let mut changed = volume.clone();
        match self {
            Change::Plain => {}
            Change::Noise => {
                for (c, channel) in changed.data.chunks_exact_mut((nz * ny * nx).max(1)).enumerate() {
                    let (low, high) = channel.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
                    let deviation = NOISE * f64::from(high - low);
                    let mut random = Random::new(c as u64, 0);
                    channel.iter_mut().for_each(|v| *v += (random.normal() * deviation) as f32);
                }
            }
            Change::Shift => {
                changed.data = place(&volume.data, volume.shape, |z, y, x| Some((z, back(y, SHIFT[0]), back(x, SHIFT[1]))), 0.0)
            }
            Change::Orientation => {
                changed.data = place(&volume.data, volume.shape, |z, y, x| Some((z, ny - 1 - y, nx - 1 - x)), 0.0);
                if let Some(affine) = turned(&volume.affine, ny, nx) {
                    changed.affine = affine;
                    changed.source = source(&affine);
                }
            }
            Change::Thick => {
                for pair in
                    changed.data.chunks_exact_mut((nz * ny * nx).max(1)).flat_map(|channel| channel.chunks_exact_mut((2 * ny * nx).max(1)))
                {
                    let (a, b) = pair.split_at_mut(ny * nx);
                    a.iter_mut().zip(b).for_each(|(a, b)| {
                        *a = (*a + *b) / 2.0;
                        *b = *a;
                    });
                }
            }
        }
        changed
    }

    /// The labels that belong to the changed image.
    pub fn labels(self, labels: &[u16], shape: [usize; 3]) -> Vec<u16> {
        let [_, ny, nx] = shape;
        match self {
            Change::Plain | Change::Noise | Change::Thick => labels.to_vec(),
            Change::Shift => place(labels, shape, |z, y, x| Some((z, y.checked_sub(SHIFT[0])?, x.checked_sub(SHIFT[1])?)), 0),
            Change::Orientation => place(labels, shape, |z, y, x| Some((z, ny - 1 - y, nx - 1 - x)), 0),
        }
    }
}

fn back(index: usize, by: usize) -> usize {
    index.saturating_sub(by)
}

/// Every voxel from another one of its channel, or `outside`.
fn place<T: Copy>(
    data: &[T],
    shape: [usize; 3],
    from: impl Fn(usize, usize, usize) -> Option<(usize, usize, usize)>,
    outside: T,
) -> Vec<T> {
    let [nz, ny, nx] = shape;
    let voxels = nz * ny * nx;
    let mut placed = Vec::with_capacity(data.len());
    for channel in data.chunks_exact(voxels.max(1)) {
        for z in 0..nz {
            for y in 0..ny {
                placed.extend((0..nx).map(|x| from(z, y, x).map_or(outside, |(z, y, x)| channel[(z * ny + y) * nx + x])));
            }
        }
    }
    placed
}

/// The affine of an array whose rows and columns run the other way.
fn turned(affine: &Affine, ny: usize, nx: usize) -> Option<Affine> {
    let minus = |v: [f64; 3]| v.map(|v| -v);
    let origin = affine.apply([nx as f64 - 1.0, ny as f64 - 1.0, 0.0]);
    Affine::new(minus(affine.column(0)), minus(affine.column(1)), affine.column(2), origin)
}

/// A file that is none, with the geometry of an affine.
fn source(affine: &Affine) -> Source {
    Source::Nifti { path: "made".into(), digest: [0; 32], geometry: Box::new(NiftiGeometry::from_affine(affine)) }
}

/// Inputs of the size of two windows in which nothing is to be found, with their names. Channels that are no CT are 0.
pub fn empty_inputs(manifest: &Manifest) -> Vec<(&'static str, Volume)> {
    let steps = &manifest.preprocessing;
    // Network axis a is array axis transpose[a].
    let mut shape = [0; 3];
    let mut spacing = [1.0; 3];
    for (axis, &array) in steps.transpose.iter().enumerate().filter(|(_, array)| **array < 3) {
        shape[array] = manifest.inference.patch[axis] + manifest.inference.patch[axis] / 2;
        spacing[array] = steps.spacing[axis];
    }
    let [sz, sy, sx] = spacing;
    let Some(affine) = Affine::new([sx, 0.0, 0.0], [0.0, sy, 0.0], [0.0, 0.0, sz], [0.0; 3]) else { return Vec::new() };
    let voxels: usize = shape.iter().product();
    let channels = steps.channels.len();
    let made = |noise: f64| {
        let mut random = Random::new(7, 7);
        let channel = |channel: &Channel| matches!(channel.normalization, Normalization::Ct { .. });
        let data = steps.channels.iter().map(channel).flat_map(|is_ct| std::iter::repeat_n(is_ct, voxels));
        let data = data.map(|is_ct| if is_ct { AIR + (random.normal() * noise) as f32 } else { 0.0 }).collect();
        Volume { data, channels, shape, affine, quantity: vec![Quantity::Unknown; channels], source: source(&affine) }
    };
    vec![("air", made(0.0)), ("noisy air", made(AIR_NOISE))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_image() {
        let shape = [4, 12, 13];
        let affine = Affine::new([1.5, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0], [-5.0, 7.0, 9.0]).expect("affine");
        let voxels = 4 * 12 * 13;
        let labels: Vec<u16> = (0..voxels as u16).collect();
        let data = labels.iter().map(|&l| f32::from(l)).collect();
        let volume = Volume { data, channels: 1, shape, affine, quantity: vec![Quantity::Unknown], source: source(&affine) };
        for change in [Change::Plain, Change::Shift, Change::Orientation] {
            let (image, moved) = (change.image(&volume), change.labels(&labels, shape));
            let comes_in = |i: usize| change == Change::Shift && (i / 13 % 12 < SHIFT[0] || i % 13 < SHIFT[1]);
            for (i, label) in moved.iter().enumerate() {
                let expected = if comes_in(i) { 0.0 } else { image.data[i] };
                assert_eq!(f32::from(*label), expected, "{change:?} at {i}");
            }
        }
        // The same point of the patient has the same value.
        let turned = Change::Orientation.image(&volume);
        for at in [[0usize, 0, 0], [12, 11, 3], [3, 5, 2]] {
            let place = turned.affine.apply(at.map(|v| v as f64));
            let old = volume.affine.invert(place).map(|v| v.round() as usize);
            let value = |v: &Volume, [x, y, z]: [usize; 3]| v.data[(z * 12 + y) * 13 + x];
            assert_eq!(value(&turned, at), value(&volume, old));
        }
        let thick = Change::Thick.image(&volume);
        assert_eq!(thick.data[0], 78.0);
        assert_eq!(thick.data[0], thick.data[12 * 13]);
        let noisy = Change::Noise.image(&volume);
        assert!(noisy.data != volume.data && noisy.data == Change::Noise.image(&volume).data, "the same noise every time");
    }
}
