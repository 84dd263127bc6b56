//! Which series are of one scan. Reconstructions of a scan compete for one place; the arterial and the venous scan of a study do not.

use crate::series::Series;
use std::collections::BTreeSet;

/// Times of acquisition this far apart may be of one scan: headers round them, and some give the scan's start for every slice. Seconds.
const APART: f64 = 1.0;

/// Beginnings of words in Series Description that name a contrast phase.
const PHASES: [(&str, &[&str]); 4] = [
    ("native", &["nativ", "unenhanced", "noncontrast", "plain"]),
    ("arterial", &["arter"]),
    ("venous", &["veno", "venö", "portal"]),
    ("delayed", &["delay", "excret", "equilib", "spät"]),
];

/// For each series a number that those of its scan share, and no others do.
///
/// Irradiation Event UIDs tell it. Without them the times of acquisition do: those of two reconstructions of a scan overlap, those of two
/// scans never. Without these it is the Acquisition Number, which not every scanner counts on, with what Series Description says of the
/// phase; and that alone in the end.
pub(super) fn acquisitions(series: &[&Series]) -> Vec<usize> {
    let mut scan: Vec<usize> = (0..series.len()).collect();
    let times: Vec<Option<(f64, f64)>> = series.iter().map(|s| times(s)).collect();
    let has_event = |i: usize| !series[i].selection.irradiation_events.is_empty();
    let same_study = |i: usize, j: usize| series[i].study_uid == series[j].study_uid;
    let same_time =
        |i: usize, j: usize| same_study(i, j) && times[i].zip(times[j]).is_some_and(|(a, b)| a.0 <= b.1 + APART && b.0 <= a.1 + APART);

    let (told, silent): (Vec<usize>, Vec<usize>) = (0..series.len()).partition(|&i| has_event(i));
    let events = |i: usize| &series[i].selection.irradiation_events;
    join(&mut scan, &told, |i, j| same_study(i, j) && events(i).iter().any(|event| events(j).contains(event)));
    let (mut timed, timeless): (Vec<usize>, Vec<usize>) = silent.into_iter().partition(|&i| times[i].is_some());
    // Beside the events that are told, if it is clear which; it never makes two of them one.
    timed.retain(|&i| {
        let scans: BTreeSet<usize> = told.iter().filter(|&&j| same_time(i, j)).map(|&j| scan[j]).collect();
        match Vec::from_iter(scans)[..] {
            [only] => scan[i] = only,
            _ => return true,
        }
        false
    });
    join(&mut scan, &timed, same_time);
    let named = |i: usize| (series[i].selection.acquisition_number, phases_named(&series[i].selection.series_description));
    join(&mut scan, &timeless, |i, j| same_study(i, j) && named(i) == named(j));
    scan
}

/// Gives one number to all that are the same, directly or by way of others.
fn join(scan: &mut [usize], members: &[usize], same: impl Fn(usize, usize) -> bool) {
    for (n, &i) in members.iter().enumerate() {
        for &j in &members[..n] {
            if scan[i] != scan[j] && same(i, j) {
                let (from, to) = (scan[i], scan[j]);
                scan.iter_mut().filter(|s| **s == from).for_each(|s| *s = to);
            }
        }
    }
}

/// The first and last time of acquisition.
fn times(series: &Series) -> Option<(f64, f64)> {
    let known = series.planes.iter().filter_map(|plane| plane.timing.acquisition);
    known.fold(None, |span, time| match span {
        None => Some((time, time)),
        Some((first, last)) => Some((time.min(first), time.max(last))),
    })
}

/// The contrast phases that a description names.
fn phases_named(description: &str) -> Vec<&'static str> {
    let text = description.to_lowercase();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
    let named = |beginnings: &[&str]| words.iter().any(|word| beginnings.iter().any(|b| word.starts_with(b)));
    PHASES.iter().filter(|(_, beginnings)| named(beginnings)).map(|(phase, _)| *phase).collect()
}
