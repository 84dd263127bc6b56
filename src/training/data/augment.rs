//! nnU-Net 2's ten augmentations: what is drawn, with which probabilities, and in which order it is done.
//!
//! Sources: `nnUNetTrainer.get_training_transforms` and batchgeneratorsv2. Interpolation is linear, as there.

use super::sampling::Geometry;
use super::{CaseFile, OUTSIDE, Patch, Random, intensity, smooth, spatial};
use crate::training::Error;

/// What is done to one sample. Vectors have an element for each channel; `None` means that nothing is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// 1: angles about axes 0, 1 and 2, radians.
    pub rotation: Option<[f64; 3]>,
    /// 1: factor of the sampling grid; above 1 objects shrink.
    pub scale: Option<f64>,
    /// 2: standard deviation of Gaussian noise.
    pub noise: Option<f64>,
    /// 3: standard deviations of a Gaussian blur along each axis, voxels.
    pub blur: Vec<Option<[f64; 3]>>,
    /// 4: factor of all values.
    pub brightness: Vec<Option<f64>>,
    /// 5: factor about the mean.
    pub contrast: Vec<Option<f64>>,
    /// 6: factor of the resolution.
    pub low_resolution: Vec<Option<f64>>,
    /// 7: exponent, on the inverted image.
    pub gamma_inverted: Vec<Option<f64>>,
    /// 8: exponent.
    pub gamma: Vec<Option<f64>>,
    /// 9: axes that are mirrored.
    pub mirror: [bool; 3],
}

/// How samples are changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Augmentation {
    /// The patch.
    pub geometry: Geometry,
    /// Axes that may be mirrored; for official STU-Net all of them.
    pub mirror: [bool; 3],
    /// 10: channels that are 0 outside the mask they were normalised in.
    pub masked: Vec<bool>,
}

/// Uniform below 1 in half of all draws, else uniform above 1.
fn split(random: &mut Random, low: f64, high: f64) -> f64 {
    if random.chance(0.5) { random.between(low, 1.0) } else { random.between(1.0, high) }
}

impl Augmentation {
    /// Draws what is done to one sample of this many channels.
    pub fn draw(&self, channels: usize, random: &mut Random) -> Drawn {
        let limit = if self.geometry.in_plane { std::f64::consts::PI } else { 30f64.to_radians() };
        let rotation = random.chance(0.2).then(|| {
            let mut angles = [0; 3].map(|_| random.between(-limit, limit));
            if self.geometry.in_plane {
                (angles[1], angles[2]) = (0.0, 0.0);
            }
            angles
        });
        let scale = random.chance(0.2).then(|| split(random, 0.7, 1.4));
        let noise = random.chance(0.1).then(|| random.between(0.0, 0.1));
        let mut each = |sample: f64, channel: f64, draw: &mut dyn FnMut(&mut Random) -> f64| -> Vec<Option<f64>> {
            let done = random.chance(sample);
            (0..channels).map(|_| (done && random.chance(channel)).then(|| draw(random))).collect()
        };
        // One number stands for the three of a blur.
        let blurred = each(0.2, 0.5, &mut |random| random.unit());
        let brightness = each(0.15, 1.0, &mut |random| split(random, 0.75, 1.25));
        let contrast = each(0.15, 1.0, &mut |random| split(random, 0.75, 1.25));
        let low_resolution = each(0.25, 0.5, &mut |random| random.between(0.5, 1.0));
        let gamma_inverted = each(0.1, 1.0, &mut |random| split(random, 0.7, 1.5));
        let gamma = each(0.3, 1.0, &mut |random| split(random, 0.7, 1.5));
        let blur = blurred.iter().map(|done| done.map(|_| [0; 3].map(|_| random.between(0.5, 1.0)))).collect();
        let mirror = self.mirror.map(|allowed| allowed && random.chance(0.5));
        Drawn { rotation, scale, noise, blur, brightness, contrast, low_resolution, gamma_inverted, gamma, mirror }
    }

    /// Cuts a sample from a case and changes it. Of what lies around the patch only as much is read as turning and scaling
    /// need. Labels outside become background.
    pub fn sample(&self, case: &CaseFile, forced: bool, random: &mut Random) -> Result<Patch, Error> {
        let region = self.geometry.place(case, forced, random)?;
        let drawn = self.draw(case.channels(), random);
        let mut patch = if drawn.rotation.is_none() && drawn.scale.is_none() {
            case.read(&self.geometry.middle(&region))?
        } else {
            let matrix = spatial::matrix(drawn.rotation, drawn.scale, self.geometry.in_plane);
            spatial::sample(&case.read(&region)?, self.geometry.patch, &matrix)
        };
        self.change(&mut patch, &drawn, random);
        Ok(patch)
    }

    /// Cuts a sample and leaves it as it is, for validation.
    pub fn plain(&self, case: &CaseFile, forced: bool, random: &mut Random) -> Result<Patch, Error> {
        let mut patch = case.read(&self.geometry.middle(&self.geometry.place(case, forced, random)?))?;
        self.finish(&mut patch);
        Ok(patch)
    }

    /// Everything but the spatial part, in its order; `random` makes the noise.
    pub fn change(&self, patch: &mut Patch, drawn: &Drawn, random: &mut Random) {
        let Patch { image, size, .. } = patch;
        let voxels: usize = size.iter().product();
        if let Some(deviation) = drawn.noise {
            image.iter_mut().for_each(|value| *value += (random.normal() * deviation) as f32);
        }
        for (i, channel) in image.chunks_exact_mut(voxels.max(1)).enumerate() {
            if let Some(Some(deviations)) = drawn.blur.get(i) {
                smooth::blur(channel, *size, *deviations);
            }
            if let Some(Some(factor)) = drawn.brightness.get(i) {
                channel.iter_mut().for_each(|value| *value *= *factor as f32);
            }
            if let Some(Some(factor)) = drawn.contrast.get(i) {
                intensity::contrast(channel, *factor);
            }
            if let Some(Some(factor)) = drawn.low_resolution.get(i) {
                smooth::low_resolution(channel, *size, *factor, self.geometry.in_plane);
            }
            if let Some(Some(exponent)) = drawn.gamma_inverted.get(i) {
                channel.iter_mut().for_each(|value| *value = -*value);
                intensity::gamma(channel, *exponent);
                channel.iter_mut().for_each(|value| *value = -*value);
            }
            if let Some(Some(exponent)) = drawn.gamma.get(i) {
                intensity::gamma(channel, *exponent);
            }
            spatial::mirror(channel, *size, drawn.mirror);
        }
        spatial::mirror(&mut patch.labels, patch.size, drawn.mirror);
        self.finish(patch);
    }

    /// 10: masks, and background for what lies outside.
    fn finish(&self, patch: &mut Patch) {
        for (channel, _) in patch.image.chunks_exact_mut(patch.labels.len().max(1)).zip(&self.masked).filter(|(_, masked)| **masked) {
            channel.iter_mut().zip(&patch.labels).filter(|(_, label)| **label == OUTSIDE).for_each(|(value, _)| *value = 0.0);
        }
        patch.labels.iter_mut().filter(|label| **label == OUTSIDE).for_each(|label| *label = 0);
    }
}
