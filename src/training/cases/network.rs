//! From labels on the image's grid to targets on the network's.

use super::CaseError;
use crate::stunet::learning::IGNORED;
use crate::volume::Prepared;
use crate::volume::resample::{LabelRule, resize_labels};

/// Marks what can not be judged: a background voxel where the base model sees a class that was not reviewed. To take it for
/// background would teach the network that the organ is not there.
pub fn ignore_unreviewed(labels: &mut [u16], base: &[u16], reviewed: &[u16]) {
    for (label, base) in labels.iter_mut().zip(base) {
        if *label == 0 && *base != 0 && reviewed.binary_search(base).is_err() {
            *label = IGNORED;
        }
    }
}

/// Brings labels the way that the image went: oriented, cropped, and resampled by nnU-Net's rule for labels, where the strongest wins.
///
/// # Errors
/// `cases.geometry` for labels of another grid, and for images whose slices had to be made upright.
pub fn to_network_grid(labels: &[u16], prepared: &Prepared) -> Result<Vec<u16>, CaseError> {
    let back = &prepared.back;
    if back.rectified.is_some() {
        return Err(CaseError::Geometry("the image's slices are tilted or uneven; labels on them are not learned from".into()));
    }
    let [nz, ny, nx] = back.source_shape;
    if labels.len() != nz * ny * nx {
        return Err(CaseError::Geometry(format!("{} labels for an image of {} voxels", labels.len(), nz * ny * nx)));
    }
    let strides = [ny * nx, nx, 1];
    let place = |axis: usize, index: usize| {
        let network = back.crop_start[axis] + index;
        let source = if back.flipped[axis] { back.uncropped[axis] - 1 - network } else { network };
        source * strides[back.source_axis[axis]]
    };
    let [a, b, c] = back.cropped;
    let mut cropped = Vec::with_capacity(a * b * c);
    for i in 0..a {
        for j in 0..b {
            let row = place(0, i) + place(1, j);
            cropped.extend((0..c).map(|k| labels[row + place(2, k)]));
        }
    }
    Ok(resize_labels(&cropped, back.cropped, prepared.shape, back.separate_axis, LabelRule::Strongest))
}
