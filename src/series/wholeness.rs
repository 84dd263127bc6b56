//! Is a series that is still arriving all there? What its headers and positions tell, for deciding how long to wait.

use super::geometry::{cross, dot, unevenness};
use crate::dicom::{Announced, Instance, PhaseKey, PhaseValue};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Planes closer than this along the normal lie at one position, mm.
const SAME_POSITION_MM: f64 = 0.02;
/// Fewer positions than these say nothing about the distance of slices.
const POSITIONS: usize = 3;

/// What one file says about where it belongs; kept for every file that is watched, so it is small.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trace {
    /// Stands for the SOP Instance UID.
    instance: u64,
    /// Stands for matrix, orientation and frame of reference; none for an object without one place.
    grid: Option<(u64, f64)>,
    acquisition: Option<i32>,
    expected: Option<Expected>,
}

/// How many instances there should be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// In the series.
    Series(u64),
    /// With this one's Acquisition Number. Some scanners count otherwise, so it is believed only when it is met.
    Acquisition(u64),
}

/// What a series looks like while it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wholeness {
    /// Nothing says whether more will come.
    Unknown,
    /// As many instances as the headers announce, evenly spaced.
    Whole,
    /// Fewer than announced, positions with gaps, or files that are not readable yet.
    Lacking,
}

/// What is kept of an instance.
pub fn trace(instance: &Instance) -> Trace {
    let [frame] = instance.frames.as_slice() else {
        return Trace { instance: hash(&instance.sop_instance_uid), grid: None, acquisition: None, expected: expected(instance) };
    };
    let grid = frame.position.zip(frame.orientation).map(|(position, o)| {
        let normal = cross([o[0], o[1], o[2]], [o[3], o[4], o[5]]);
        let cosines = o.map(|c| (c * 100.0).round() as i64);
        let pixels = &instance.pixels;
        (hash(&(pixels.rows, pixels.columns, cosines, &instance.frame_of_reference_uid)), dot(position, normal))
    });
    let acquisition = match frame.phase.get(PhaseKey::AcquisitionNumber) {
        Some(PhaseValue::Number(n)) => Some(*n as i32),
        _ => None,
    };
    Trace { instance: hash(&instance.sop_instance_uid), grid, acquisition, expected: expected(instance) }
}

fn expected(instance: &Instance) -> Option<Expected> {
    let Announced { in_series, in_acquisition, slices, time_slices, time_slots, in_concatenation, .. } = instance.announced;
    let times = |n: Option<u32>| u64::from(n.unwrap_or(1));
    let pet = slices.map(|slices| u64::from(slices) * times(time_slices) * times(time_slots));
    let series = in_series.map(u64::from).or(in_concatenation.map(u64::from)).or(pet);
    series.map(Expected::Series).or(in_acquisition.map(|n| Expected::Acquisition(n.into())))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Judges the readable files of a series; `broken`: whether there are others that can not be read, or not yet.
pub fn wholeness<'t>(traces: impl Iterator<Item = &'t Trace>, broken: bool) -> Wholeness {
    let mut seen = BTreeSet::new();
    let traces: Vec<&Trace> = traces.filter(|t| seen.insert(t.instance)).collect();
    let have = traces.len() as u64;
    let announced = traces.iter().filter_map(|t| if let Some(Expected::Series(n)) = t.expected { Some(n) } else { None }).max();
    if broken || announced.is_some_and(|n| have < n) || has_gaps(&traces) {
        return Wholeness::Lacking;
    }
    // More than announced: whoever counted meant something else.
    match announced {
        Some(n) if have == n => Wholeness::Whole,
        None if acquisitions_are_whole(&traces) => Wholeness::Whole,
        _ => Wholeness::Unknown,
    }
}

/// Whether every instance tells how many its acquisition has, and all acquisitions have just so many.
fn acquisitions_are_whole(traces: &[&Trace]) -> bool {
    let mut counts: BTreeMap<Option<i32>, (u64, BTreeSet<u64>)> = BTreeMap::new();
    for trace in traces {
        let Some(Expected::Acquisition(n)) = trace.expected else { return false };
        let (count, announced) = counts.entry(trace.acquisition).or_default();
        *count += 1;
        announced.insert(n);
    }
    !counts.is_empty()
        && counts.values().all(|(count, announced)| *count >= POSITIONS as u64 && announced.len() == 1 && announced.contains(count))
}

/// Whether positions of one grid have gaps.
fn has_gaps(traces: &[&Trace]) -> bool {
    let mut grids: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (grid, along) in traces.iter().filter_map(|t| t.grid) {
        grids.entry(grid).or_default().push(along);
    }
    grids.values_mut().any(|along| {
        along.sort_by(f64::total_cmp);
        along.dedup_by(|b, a| *b - *a < SAME_POSITION_MM);
        let steps: Vec<f64> = along.windows(2).map(|w| w[1] - w[0]).collect();
        along.len() >= POSITIONS && unevenness(&steps).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(k: u64, expected: Option<Expected>) -> Trace {
        Trace { instance: k, grid: Some((1, 2.5 * k as f64)), acquisition: Some(1), expected }
    }

    fn judge(slices: impl IntoIterator<Item = u64>, expected: Option<Expected>) -> Wholeness {
        let traces: Vec<Trace> = slices.into_iter().map(|k| slice(k, expected)).collect();
        wholeness(traces.iter(), false)
    }

    #[test]
    fn counts_and_positions_tell() {
        use Wholeness::{Lacking, Unknown, Whole};
        assert_eq!(judge(0..8, None), Unknown);
        assert_eq!(judge([0, 1, 2, 4, 5], None), Lacking, "a gap");
        assert_eq!(judge([0, 4], None), Unknown, "two positions have one distance");
        let series = |n| Some(Expected::Series(n));
        assert_eq!(judge(0..7, series(8)), Lacking);
        assert_eq!(judge(0..8, series(8)), Whole);
        assert_eq!(judge((0..8).chain(0..8), series(8)), Whole, "each by two ways");
        assert_eq!(judge(0..9, series(8)), Unknown, "a wrong count");
        assert_eq!(judge([0, 1, 2, 4], series(4)), Lacking, "the count is met, and yet there is a gap");
        let acquisition = |n| Some(Expected::Acquisition(n));
        assert_eq!(judge(0..8, acquisition(8)), Whole);
        assert_eq!(judge(0..7, acquisition(8)), Unknown);
        assert_eq!(judge(0..9, acquisition(8)), Unknown);
        assert_eq!(judge(0..1, acquisition(1)), Unknown, "a count of each file by itself");
        let traces: Vec<Trace> = (0..8).map(|k| slice(k, series(8))).collect();
        assert_eq!(wholeness(traces.iter(), true), Lacking, "a file that can not be read");
        assert_eq!(wholeness([].iter(), false), Unknown);
        let other_grid: Vec<Trace> = (0..4)
            .map(|k| slice(k, None))
            .chain((0..4).map(|k| Trace { instance: 100 + k, grid: Some((2, 7.0 * k as f64)), ..slice(k, None) }))
            .collect();
        assert_eq!(wholeness(other_grid.iter(), false), Unknown, "two grids");
    }

    #[test]
    fn two_acquisitions_are_counted_apart() {
        let of = |acquisition, k, n| Trace { acquisition: Some(acquisition), ..slice(k, Some(Expected::Acquisition(n))) };
        let both: Vec<Trace> = (0..4).map(|k| of(1, k, 4)).chain((4..10).map(|k| of(2, k, 6))).collect();
        assert_eq!(wholeness(both.iter(), false), Wholeness::Whole);
        assert_eq!(wholeness(both[..9].iter(), false), Wholeness::Unknown);
    }
}
