//! Repeated positions: several time points, phases or reconstructions in one series, told apart by a header attribute.

use super::geometry::dot;
use crate::dicom::{Frame, Instance, PhaseKey, PhaseValue};
use std::cmp::Ordering;

/// Planes closer than this along the normal lie at one position.
const SAME_POSITION_MM: f64 = 0.02;

/// One plane on its way into a series.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub instance: &'a Instance,
    pub frame: &'a Frame,
}

/// An attribute with more values than this counts images, not phases.
const MOST_PHASES: usize = 1000;

/// What repeated positions mean.
pub(super) enum Phases<'a> {
    /// Every position once. Ordered along the normal.
    One(Vec<Member<'a>>),
    /// Volumes over the same positions, in the order of the key that tells them apart; each ordered along the normal.
    Many(Vec<Vec<Member<'a>>>),
    /// All planes at one position.
    Flat,
    /// No key tells them apart: the planes by position. `uneven`: one does, but its parts cover different positions.
    Unclear { positions: Vec<Vec<Member<'a>>>, uneven: bool },
}

/// Sorts planes along the normal and splits repeated positions. Every member has a position.
pub(super) fn split<'a>(members: Vec<Member<'a>>, normal: [f64; 3]) -> Phases<'a> {
    let along = |m: &Member| m.frame.position.map_or(0.0, |p| dot(p, normal));
    let mut members = members;
    // Ties in an order that does not depend on file names.
    members.sort_by(|a, b| {
        let key = |m: &Member<'a>| (&m.instance.sop_instance_uid, m.frame.number);
        along(a).total_cmp(&along(b)).then_with(|| key(a).cmp(&key(b)))
    });
    let positions: Vec<&[Member<'a>]> = members.chunk_by(|a, b| along(b) - along(a) < SAME_POSITION_MM).collect();
    if positions.iter().all(|p| p.len() == 1) {
        return Phases::One(members);
    }
    if positions.len() == 1 {
        return Phases::Flat;
    }
    let single: Vec<Vec<PhaseKey>> = PhaseKey::ALL.iter().map(|k| vec![*k]).collect();
    let pairs = PhaseKey::ALL.iter().enumerate().flat_map(|(i, a)| PhaseKey::ALL[i + 1..].iter().map(move |b| vec![*a, *b]));
    let mut uneven = false;
    for keys in single.into_iter().chain(pairs) {
        match by_keys(&positions, &keys) {
            Split::Good(parts) => return Phases::Many(parts),
            Split::Uneven => uneven = true,
            Split::No => {}
        }
    }
    if let Some(parts) = by_time(&positions) {
        return Phases::Many(parts);
    }
    Phases::Unclear { positions: positions.into_iter().map(<[Member]>::to_vec).collect(), uneven }
}

enum Split<'a> {
    Good(Vec<Vec<Member<'a>>>),
    /// Positions are unique in every part, but not the same.
    Uneven,
    No,
}

type Label<'a> = Vec<Option<&'a PhaseValue>>;

fn by_keys<'a>(positions: &[&[Member<'a>]], keys: &[PhaseKey]) -> Split<'a> {
    let label = |m: &Member<'a>| -> Label<'a> { keys.iter().map(|k| m.frame.phase.get(*k)).collect() };
    let mut labels: Vec<Label> = positions.iter().flat_map(|p| p.iter().map(label)).collect();
    labels.sort_by(compare);
    labels.dedup();
    if labels.len() < 2 || labels.len() > MOST_PHASES {
        return Split::No;
    }
    let mut parts: Vec<Vec<Member<'a>>> = vec![Vec::new(); labels.len()];
    let mut same = true;
    for position in positions {
        let mut used = vec![false; labels.len()];
        for member in *position {
            let Ok(part) = labels.binary_search_by(|l| compare(l, &label(member))) else { return Split::No };
            if std::mem::replace(&mut used[part], true) {
                return Split::No;
            }
            parts[part].push(*member);
        }
        same &= used.iter().all(|u| *u);
    }
    if same { Split::Good(parts) } else { Split::Uneven }
}

/// Where every slice has a time of its own: the first, second, … time at each position.
fn by_time<'a>(positions: &[&[Member<'a>]]) -> Option<Vec<Vec<Member<'a>>>> {
    let count = positions[0].len();
    let mut parts: Vec<Vec<Member<'a>>> = vec![Vec::new(); count];
    for position in positions {
        if position.len() != count {
            return None;
        }
        let mut timed = position.iter().map(|m| Some((m.frame.timing.acquisition?, *m))).collect::<Option<Vec<_>>>()?;
        timed.sort_by(|a, b| a.0.total_cmp(&b.0));
        if timed.windows(2).any(|w| w[0].0 == w[1].0) {
            return None;
        }
        for (part, (_, member)) in parts.iter_mut().zip(timed) {
            part.push(member);
        }
    }
    Some(parts)
}

fn compare(a: &Label, b: &Label) -> Ordering {
    let value = |a: &Option<&PhaseValue>, b: &Option<&PhaseValue>| match (a, b) {
        (Some(PhaseValue::Number(a)), Some(PhaseValue::Number(b))) => a.total_cmp(b),
        (Some(PhaseValue::Text(a)), Some(PhaseValue::Text(b))) => a.cmp(b),
        (a, b) => rank(a).cmp(&rank(b)),
    };
    a.iter().zip(b).map(|(a, b)| value(a, b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

fn rank(value: &Option<&PhaseValue>) -> u8 {
    match value {
        None => 0,
        Some(PhaseValue::Number(_)) => 1,
        Some(PhaseValue::Text(_)) => 2,
    }
}
