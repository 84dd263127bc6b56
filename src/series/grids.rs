//! Several grids in one series: split by frame of reference, matrix, orientation and pixel spacing.

use super::phases::Member;
use crate::dicom::{Frame, Uid};

/// Components of direction cosines may differ by this within one grid.
const ORIENTATION_TOLERANCE: f64 = 1e-3;
/// Pixel spacings may differ by this part within one grid.
const SPACING_TOLERANCE: f64 = 1e-4;

/// Planes that may share one grid.
pub(super) struct Grid<'a> {
    pub members: Vec<Member<'a>>,
}

impl<'a> Grid<'a> {
    fn first(&self) -> &Member<'a> {
        &self.members[0]
    }

    pub(super) fn frame_of_reference(&self) -> Option<&'a Uid> {
        self.first().instance.frame_of_reference_uid.as_ref()
    }

    fn matrix(&self) -> (u16, u16) {
        matrix(self.first())
    }

    /// Whether some plane has no position or orientation.
    fn lacks_geometry(&self) -> bool {
        self.members.iter().any(|m| m.frame.position.is_none() || m.frame.orientation.is_none())
    }

    /// How axial it is: the normal's share along the patient's axis.
    fn axial(&self) -> f64 {
        self.first().frame.orientation.map_or(0.0, |o| (o[0] * o[4] - o[1] * o[3]).abs())
    }
}

/// The planes by grid, those of one frame of reference next to each other, its largest grid first.
pub(super) fn split(members: Vec<Member>) -> Vec<Vec<Grid>> {
    let mut grids: Vec<Grid> = Vec::new();
    for member in members {
        match grids.iter_mut().find(|g| same_grid(g.first(), &member)) {
            Some(grid) => grid.members.push(member),
            None => grids.push(Grid { members: vec![member] }),
        }
    }
    // Images without a position, of the matrix of others that have one, are slices of unknown place: they make those others doubtful.
    let mut index = 0;
    while index < grids.len() {
        let lost = &grids[index];
        let host = grids.iter().position(|g| {
            lost.lacks_geometry()
                && !g.lacks_geometry()
                && (g.frame_of_reference(), g.matrix()) == (lost.frame_of_reference(), lost.matrix())
        });
        match host {
            Some(host) => {
                let members = grids.remove(index).members;
                let host = if host > index { host - 1 } else { host };
                grids[host].members.extend(members);
            }
            None => index += 1,
        }
    }
    let order = |g: &Grid| (g.first().instance.sop_instance_uid.clone(), g.first().frame.number);
    grids.sort_by(|a, b| {
        a.frame_of_reference()
            .cmp(&b.frame_of_reference())
            .then(b.members.len().cmp(&a.members.len()))
            .then(b.axial().total_cmp(&a.axial()))
            .then_with(|| order(a).cmp(&order(b)))
    });
    let mut frames: Vec<Vec<Grid>> = Vec::new();
    for grid in grids {
        match frames.last_mut() {
            Some(last) if last[0].frame_of_reference() == grid.frame_of_reference() => last.push(grid),
            _ => frames.push(vec![grid]),
        }
    }
    frames
}

fn matrix(member: &Member) -> (u16, u16) {
    (member.instance.pixels.rows, member.instance.pixels.columns)
}

fn same_grid(a: &Member, b: &Member) -> bool {
    let same_axes = match (complete(a.frame), complete(b.frame)) {
        (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| (a - b).abs() <= ORIENTATION_TOLERANCE),
        (None, None) => true,
        _ => false,
    };
    let same_spacing = match (a.frame.pixel_spacing, b.frame.pixel_spacing) {
        (Some(a), Some(b)) => a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SPACING_TOLERANCE * a.abs().max(b.abs())),
        (None, None) => true,
        _ => false,
    };
    same_axes && same_spacing && matrix(a) == matrix(b) && a.instance.frame_of_reference_uid == b.instance.frame_of_reference_uid
}

/// The orientation of a plane that has a position, too.
fn complete(frame: &Frame) -> Option<[f64; 6]> {
    frame.position.and(frame.orientation)
}
