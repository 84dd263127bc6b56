//! Which series stands beside another one in the channels of a model.

use super::conditions::{dot, normal};
use crate::series::Series;

/// A partner that covers less of the grid than this share is not one.
const LEAST_OVERLAP: f64 = 0.25;
/// Points of the grid that are looked at along each axis.
const POINTS: usize = 7;

/// The series of this modality that goes with `series[lead]`: of the same study, frame of reference and phase, evenly spaced, over the
/// same part of the body; original before derived, then the one that covers most of the grid, whatever order they are given in. `Err` says
/// what is missing.
pub(super) fn partner(series: &[&Series], lead: usize, modality: &str, usable: impl Fn(usize) -> bool) -> Result<usize, String> {
    let grid = series[lead];
    if grid.frame_of_reference_uid.is_none() {
        return Err("the frame of reference is not given".into());
    }
    if !grid.geometry.uniform_spacing {
        return Err("the slice distances are not even".into());
    }
    let fits = |s: &Series| {
        s.modality == modality
            && s.study_uid == grid.study_uid
            && s.frame_of_reference_uid == grid.frame_of_reference_uid
            && s.hold.is_none()
            && s.geometry.uniform_spacing
            && (s.phase.is_none() || s.phase == grid.phase)
    };
    let candidates: Vec<usize> = (0..series.len()).filter(|&i| i != lead && usable(i) && fits(series[i])).collect();
    if candidates.is_empty() {
        return Err(format!("no {modality} series of the same study and frame of reference is there"));
    }
    let rank = |i: usize| {
        let s = series[i];
        let derived = s.image_type.first().is_none_or(|t| t != "ORIGINAL");
        (derived, -share_covered(grid, s), -(s.planes.len() as f64), s.series_uid.as_str(), s.phase)
    };
    let best = candidates.into_iter().filter(|&i| share_covered(grid, series[i]) >= LEAST_OVERLAP).min_by(|&a, &b| {
        let (a, b) = (rank(a), rank(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.total_cmp(&b.2)).then_with(|| (a.3, a.4).cmp(&(b.3, b.4)))
    });
    best.ok_or_else(|| format!("the {modality} series of the study lies elsewhere in the body"))
}

/// How much of a grid another one covers, from a lattice of points.
fn share_covered(grid: &Series, other: &Series) -> f64 {
    let g = &grid.geometry;
    let at = |point: usize, n: usize| point as f64 / (POINTS - 1) as f64 * (n.max(1) - 1) as f64;
    let Some(origin) = grid.planes.first().map(|p| p.position) else { return 0.0 };
    let mut inside = 0;
    for point in 0..POINTS.pow(3) {
        let i = at(point % POINTS, g.columns) * g.pixel_spacing.dx;
        let j = at(point / POINTS % POINTS, g.rows) * g.pixel_spacing.dy;
        let k = at(point / POINTS / POINTS, grid.planes.len());
        let place: [f64; 3] = std::array::from_fn(|a| origin[a] + i * g.row_direction[a] + j * g.column_direction[a] + k * g.slice_step[a]);
        inside += usize::from(covers(other, place));
    }
    inside as f64 / POINTS.pow(3) as f64
}

/// Whether a place lies between the outermost voxels of a series (half a voxel beyond their centres).
fn covers(s: &Series, place: [f64; 3]) -> bool {
    let g = &s.geometry;
    let Some(origin) = s.planes.first().map(|p| p.position) else { return false };
    let from: [f64; 3] = std::array::from_fn(|a| place[a] - origin[a]);
    let normal = normal(s);
    let k = dot(from, normal) / dot(g.slice_step, normal);
    let in_plane: [f64; 3] = std::array::from_fn(|a| from[a] - k * g.slice_step[a]);
    let i = dot(in_plane, g.row_direction) / g.pixel_spacing.dx;
    let j = dot(in_plane, g.column_direction) / g.pixel_spacing.dy;
    [(i, g.columns), (j, g.rows), (k, s.planes.len())].iter().all(|&(at, n)| (-0.5..=n as f64 - 0.5).contains(&at))
}
