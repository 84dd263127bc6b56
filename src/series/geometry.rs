//! How planes lie to each other: valid axes, one line of positions, even steps, tilt.

use super::types::{Geometry, PixelSpacing, Policy, Refusal};
use crate::config::Irregular;
use crate::dicom::Frame;
use crate::fault::Code;

/// Steps may differ from their median by this part of it,
const STEP_TOLERANCE: f64 = 0.01;
/// or by this much: positions are rounded to 0.01 mm by some.
const STEP_TOLERANCE_MM: f64 = 0.011;
/// A gap counts as missing slices when it is within this part of a multiple of the usual step.
const GAP_TOLERANCE: f64 = 0.02;
/// So many gaps of one size in a row are a change of spacing, not missing slices.
const SPACING_RUN: usize = 3;
/// Tangent of the angle between step and normal from which the stack counts as tilted.
const TILT_TANGENT: f64 = 0.01;
/// In-plane distance from the common line of positions that is tolerated, in mm and as part of a pixel.
const LINE_TOLERANCE_MM: f64 = 0.1;
const LINE_TOLERANCE_PIXELS: f64 = 0.1;

pub(super) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn sub(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn length(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

fn scaled(a: [f64; 3], s: f64) -> [f64; 3] {
    [a[0] * s, a[1] * s, a[2] * s]
}

/// The directions of one plane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axes {
    /// Unit vector of increasing column index.
    pub row: [f64; 3],
    /// Unit vector of increasing row index.
    pub column: [f64; 3],
    /// `row × column`, unit length.
    pub normal: [f64; 3],
    pub spacing: PixelSpacing,
}

/// The axes of a plane, if position, orientation and spacing are there and sound.
pub(super) fn axes(frame: &Frame) -> Result<Axes, Refusal> {
    let refuse = |code, detail: String| Err(Refusal { code, detail });
    let (Some(_), Some(o)) = (frame.position, frame.orientation) else {
        return refuse(Code::SeriesNoGeometry, "Image Position or Orientation (Patient) is missing or not a number".into());
    };
    let (row, column) = ([o[0], o[1], o[2]], [o[3], o[4], o[5]]);
    let (r, c) = (length(row), length(column));
    // Cosines rounded to two decimals still pass.
    if (r - 1.0).abs() > 0.01 || (c - 1.0).abs() > 0.01 || dot(row, column).abs() > 0.01 {
        let detail = format!("lengths {r:.4} and {c:.4}, cosine between them {:.4}", dot(row, column));
        return refuse(Code::SeriesBadOrientation, detail);
    }
    let (row, column) = (scaled(row, 1.0 / r), scaled(column, 1.0 / c));
    let normal = cross(row, column);
    let normal = scaled(normal, 1.0 / length(normal));
    match frame.pixel_spacing {
        Some([dy, dx]) if dy > 0.0 && dx > 0.0 => Ok(Axes { row, column, normal, spacing: PixelSpacing { dx, dy } }),
        Some([dy, dx]) => refuse(Code::SeriesBadSpacing, format!("Pixel Spacing is {dy}\\{dx}")),
        None => refuse(Code::SeriesBadSpacing, "Pixel Spacing is missing or not two numbers".into()),
    }
}

/// The geometry of planes at `positions`, ordered along the normal, and what is odd but allowed about it (warnings).
pub(super) struct Stack {
    pub geometry: Geometry,
    pub warnings: Vec<&'static str>,
    /// Why the policy refuses it.
    pub refusal: Option<Refusal>,
}

/// Judges a stack of at least one plane. `Err`: no geometry can be stated.
pub(super) fn stack(
    axes: &Axes,
    positions: &[[f64; 3]],
    rows: usize,
    columns: usize,
    slice_thickness: Option<f64>,
    policy: &Policy,
) -> Result<Stack, Refusal> {
    let count = positions.len();
    let mut stack = Stack {
        geometry: Geometry {
            rows,
            columns,
            row_direction: axes.row,
            column_direction: axes.column,
            pixel_spacing: axes.spacing,
            slice_step: [0.0; 3],
            slice_thickness,
            uniform_spacing: true,
            sheared: false,
        },
        warnings: Vec::new(),
        refusal: None,
    };
    if count < 2 {
        let thickness = slice_thickness
            .ok_or_else(|| Refusal { code: Code::SeriesBadSpacing, detail: "one slice, and Slice Thickness is missing".into() })?;
        stack.geometry.slice_step = scaled(axes.normal, thickness);
    } else {
        let (first, last) = (positions[0], positions[count - 1]);
        let along = |p: [f64; 3]| dot(sub(p, first), axes.normal);
        let extent = along(last);
        // Per mm along the normal: what one common step direction looks like.
        let direction = scaled(sub(last, first), 1.0 / extent);
        let off_line = positions.iter().map(|p| length(sub(sub(*p, first), scaled(direction, along(*p))))).fold(0.0, f64::max);
        let pixel = axes.spacing.dx.min(axes.spacing.dy);
        if off_line > LINE_TOLERANCE_MM.max(LINE_TOLERANCE_PIXELS * pixel) {
            return Err(Refusal {
                code: Code::SeriesNonCollinear,
                detail: format!("a slice lies {off_line:.2} mm beside the common line"),
            });
        }
        stack.geometry.slice_step = scaled(direction, extent / (count - 1) as f64);
        let shear = length(sub(direction, axes.normal));
        if shear > TILT_TANGENT {
            stack.geometry.sheared = true;
            stack.warnings.push("gantry_tilt");
        }
        let steps: Vec<f64> = positions.windows(2).map(|w| dot(sub(w[1], w[0]), axes.normal)).collect();
        if let Some(refusal) = unevenness(&steps) {
            stack.geometry.uniform_spacing = false;
            match policy.irregular {
                Irregular::Refuse => stack.refusal = Some(refusal),
                Irregular::Resample => stack.warnings.push(refusal.code.reason()),
            }
        }
    }
    if count < policy.min_slices {
        let detail = format!("{count} slices, the minimum is {}", policy.min_slices);
        stack.refusal = Some(Refusal { code: Code::SeriesTooFew, detail });
    }
    Ok(stack)
}

/// What is uneven about the distances between neighbouring slices, if anything: missing slices or a changing spacing.
pub(super) fn unevenness(steps: &[f64]) -> Option<Refusal> {
    let mut sorted = steps.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    let even = |step: f64, usual: f64| (step - usual).abs() <= STEP_TOLERANCE_MM.max(STEP_TOLERANCE * usual);
    if steps.iter().all(|s| even(*s, median)) {
        return None;
    }
    // The usual step is the median of the small ones: where much is missing, the median of all is a gap itself.
    let small = sorted.partition_point(|s| *s < 1.5 * sorted[0]);
    let usual = sorted[small / 2];
    let multiple = |step: f64| (step / usual).round().max(1.0);
    let is_gap = |step: f64| multiple(step) >= 2.0 && (step / (usual * multiple(step)) - 1.0).abs() <= GAP_TOLERANCE;
    let explained = steps.iter().all(|s| even(*s, usual) || is_gap(*s));
    let longest_run = steps
        .chunk_by(|a, b| is_gap(*a) && is_gap(*b) && multiple(*a) == multiple(*b))
        .filter(|run| is_gap(run[0]))
        .map(<[f64]>::len)
        .max()
        .unwrap_or(0);
    let gaps: Vec<f64> = steps.iter().copied().filter(|s| is_gap(*s)).collect();
    // Where most distances are gaps, there is no usual one.
    if explained && longest_run < SPACING_RUN && gaps.len() <= (steps.len() / 2).max(1) {
        let missing: f64 = gaps.iter().map(|s| multiple(*s) - 1.0).sum();
        let detail = format!("{missing} missing in {} places, the usual distance is {usual:.3} mm", gaps.len());
        return Some(Refusal { code: Code::SeriesMissingSlice, detail });
    }
    let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
    Some(Refusal { code: Code::SeriesNonUniform, detail: format!("distances from {low:.3} to {high:.3} mm") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(steps: &[f64]) -> Option<Code> {
        unevenness(steps).map(|r| r.code)
    }

    #[test]
    fn uneven_steps_are_told_apart() {
        let missing = Some(Code::SeriesMissingSlice);
        let uneven = Some(Code::SeriesNonUniform);
        assert_eq!(code(&[5.0; 10]), None);
        assert_eq!(code(&[3.33, 3.34, 3.33, 3.33, 3.34]), None, "rounded to 0.01 mm");
        assert_eq!(code(&[5.0, 5.02, 4.98, 5.0]), None, "0.4 % of drift");
        assert_eq!(code(&[5.0, 10.0, 5.0]), missing);
        assert_eq!(code(&[5.0, 10.0]), missing);
        assert_eq!(code(&[1.0, 3.0, 5.0, 7.0, 9.0]), uneven, "all whole multiples of the first");
        assert_eq!(code(&[0.75, 1.5, 0.75]), missing);
        assert_eq!(code(&[1.0, 1.0, 2.0, 1.0, 3.0, 1.0]), missing);
        assert_eq!(code(&[2.0, 2.0, 2.0, 7.0, 7.0, 7.0, 7.0]), uneven);
        assert_eq!(code(&[2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0]), uneven, "a doubled spacing is no row of missing slices");
        assert_eq!(code(&[5.0, 5.0, 6.0, 5.0]), uneven);
        assert_eq!(code(&[5.0, 5.3, 4.7, 5.1]), uneven);
    }
}
