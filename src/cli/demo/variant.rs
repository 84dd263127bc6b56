//! Which phantom: the one of the demonstration, or one of many that differ as people do.

use super::image::{FULL, Frame, SMALL};
use crate::dicom::Uid;
use sha2::{Digest, Sha256};

/// Largest change of size along an axis, as a share.
const STRETCH: f32 = 0.08;
/// Largest shift along an axis, mm.
const SHIFT: f32 = 12.0;
/// Largest wave along an axis, mm.
const WAVE: f32 = 5.0;
/// Length of the shortest and the longest wave, mm.
const LENGTH: [f32; 2] = [90.0, 180.0];
/// Largest difference of a tissue from its usual value, HU.
const TISSUE: f32 = 7.0;

/// A phantom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// None: the one of the demonstration.
    pub seed: Option<u64>,
    /// A smaller and coarser image: seconds instead of minutes for who learns from many.
    pub small: bool,
}

impl Variant {
    /// The image's grid.
    pub fn frame(&self) -> &'static Frame {
        if self.small { &SMALL } else { &FULL }
    }

    /// What the variant is called in UIDs and identifiers; empty for the one of the demonstration.
    fn name(&self) -> String {
        match (self.seed, self.small) {
            (None, false) => String::new(),
            (seed, small) => format!("{} {small} ", seed.map_or("-".into(), |seed| seed.to_string())),
        }
    }

    /// A UID of this very study: the same on every machine, so that a repeated demonstration is the same study.
    pub fn uid(&self, role: &str) -> Uid {
        Uid::from_digest(&Sha256::digest(format!("stunetd phantom 1 {}{role}", self.name())).into())
    }

    /// Patient ID: one for each seed, so that two images of one seed are of one patient.
    pub fn patient_id(&self) -> String {
        self.seed.map_or("STUNETD-PHANTOM".into(), |seed| format!("STUNETD-PHANTOM-{seed}"))
    }

    /// Where the usual anatomy has what lies here, along one axis (mm). Each axis by itself, so that boxes stay boxes.
    pub fn usual(&self, axis: usize, at: f32) -> f32 {
        let Some(seed) = self.seed else { return at };
        let draw = |what: u64| uniform(seed, (axis as u64) << 8 | what);
        let scale = 1.0 + STRETCH * draw(0);
        let straight = (at - SHIFT * draw(1)) / scale;
        let length = LENGTH[0] + (LENGTH[1] - LENGTH[0]) * (0.5 + 0.5 * draw(2));
        straight + WAVE * draw(3) * (std::f32::consts::TAU * (straight / length + draw(4))).sin()
    }

    /// How far an organ's tissue is from its usual value, HU.
    pub fn tissue(&self, organ: &str) -> f32 {
        let number = organ.bytes().fold(7u64, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
        self.seed.map_or(0.0, |seed| TISSUE * uniform(seed, number << 16 | 0xff))
    }

    /// Where the noise begins.
    pub fn noise(&self) -> u64 {
        self.seed.map_or(0, |seed| (seed + 1).wrapping_mul(0x5851_f42d_4c95_7f2d))
    }
}

/// A number in -1..1 that a seed and a purpose stand for.
fn uniform(seed: u64, what: u64) -> f32 {
    let digest = Sha256::digest([seed.to_le_bytes(), what.to_le_bytes()].concat());
    let bits = digest.iter().take(4).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
    bits as f32 / u32::MAX as f32 * 2.0 - 1.0
}

#[cfg(test)]
mod tests {
    use super::super::anatomy::parts;
    use super::super::image;
    use super::*;
    use crate::training::cases::Likeness;

    #[test]
    fn people_differ_and_stay_whole() {
        let parts = parts();
        let mut seen: Vec<Likeness> = Vec::new();
        for seed in 0..12 {
            let variant = Variant { seed: Some(seed), small: true };
            let frame = variant.frame();
            let data: Vec<f32> = (0..frame.slices).flat_map(|z| image::slice(&parts, &variant, z)).map(f32::from).collect();
            let likeness = Likeness::of(&data, [frame.slices, frame.rows, frame.columns]).expect("large enough");
            let closest = seen.iter().map(|other| other.distance(&likeness)).min();
            println!("seed {seed}: closest of those before {closest:?}");
            assert!(!seen.iter().any(|other| other.is_like(&likeness)), "seed {seed} is taken for another person: {closest:?}");
            seen.push(likeness);
            let mut found: Vec<&str> =
                (0..frame.slices).flat_map(|z| image::organs(&parts, &variant, z)).filter(|o| !o.is_empty()).collect();
            found.sort_unstable();
            found.dedup();
            for organ in ["aorta", "autochthon", "kidneys", "liver", "spleen", "stomach", "vertebrae"] {
                assert!(found.contains(&organ), "seed {seed} has no {organ}");
            }
        }
        for axis in 0..3 {
            let variant = Variant { seed: Some(5), small: true };
            let places: Vec<f32> = (-200..200).map(|at| variant.usual(axis, at as f32)).collect();
            assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "nothing is folded");
        }
    }

    #[test]
    fn the_demonstration_is_no_variant() {
        let usual = Variant { seed: None, small: false };
        assert_eq!((usual.usual(1, 12.5), usual.tissue("liver"), usual.noise()), (12.5, 0.0, 0));
        assert_eq!(usual.uid("study"), Uid::from_digest(&Sha256::digest("stunetd phantom 1 study").into()));
        assert_ne!(usual.uid("study"), Variant { seed: Some(0), small: false }.uid("study"));
    }
}
