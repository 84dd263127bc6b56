//! Tilted and unevenly spaced slices: upright and even for the network, the source's own for the labels.

use crate::support::manifest::{manifest, preprocessing};
use proptest::prelude::*;
use std::path::PathBuf;
use stunetd::dicom::{CopiedAttributes, PixelFormat, PlaneTiming, Rescale, SelectionTags, Uid};
use stunetd::models::{NormalizationOrder, Orientation};
use stunetd::series::{Case, Geometry, PixelSpacing, Plane, Series};
use stunetd::volume::{Affine, Limits, Prepared, Quantity, Rectified, Source, Volume, prepare};

const DX: f64 = 0.8;
const DY: f64 = 0.9;

/// Where slices lie: distance along the normal and movement along rows and columns, mm.
#[derive(Debug)]
struct Stack {
    /// Slices, rows, columns.
    shape: [usize; 3],
    heights: Vec<f64>,
    /// In-plane mm along the column direction (j) and the row direction (i) for each mm of height.
    lean: [f64; 2],
    row: [f64; 3],
    column: [f64; 3],
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn sum(parts: &[([f64; 3], f64)]) -> [f64; 3] {
    std::array::from_fn(|r| parts.iter().map(|(v, f)| v[r] * f).sum())
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).expect("uid")
}

impl Stack {
    fn origin(&self, k: usize) -> [f64; 3] {
        let h = self.heights[k];
        sum(&[
            ([-100.0, -80.0, 40.0], 1.0),
            (cross(self.row, self.column), h),
            (self.column, self.lean[0] * h),
            (self.row, self.lean[1] * h),
        ])
    }

    /// The patient position of a voxel `(k, j, i)`.
    fn place(&self, [k, j, i]: [usize; 3]) -> [f64; 3] {
        sum(&[(self.origin(k), 1.0), (self.column, DY * j as f64), (self.row, DX * i as f64)])
    }

    fn gaps(&self) -> impl Iterator<Item = f64> {
        self.heights.windows(2).map(|w| w[1] - w[0])
    }

    fn even(&self) -> bool {
        self.gaps().all(|gap| (gap - self.heights[1]).abs() < 1e-9)
    }

    /// The distance of the upright slices: the slices' own, or the finest of a voxel's edges within what their distances allow.
    fn step(&self) -> f64 {
        let (least, most) = self.gaps().fold((f64::INFINITY, 0.0f64), |(a, b), gap| (a.min(gap), b.max(gap)));
        if self.even() { self.heights[1] } else { DX.min(DY).clamp(least, most) }
    }

    fn voxels(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [nz, ny, nx] = self.shape;
        (0..nz).flat_map(move |k| (0..ny).flat_map(move |j| (0..nx).map(move |i| [k, j, i])))
    }

    fn volume(&self, value: impl Fn([f64; 3]) -> f64) -> Volume {
        let last = self.shape[0] - 1;
        let step: [f64; 3] = std::array::from_fn(|r| (self.origin(last)[r] - self.origin(0)[r]) / last as f64);
        let affine = Affine::new(self.row.map(|v| v * DX), self.column.map(|v| v * DY), step, self.origin(0)).expect("invertible");
        let planes = (0..=last).map(|k| Plane {
            path: PathBuf::from("slice.dcm"),
            sop_class_uid: uid("1.2.840.10008.5.1.4.1.1.2"),
            sop_instance_uid: uid(&format!("1.2.{}", k + 1)),
            frame: None,
            position: self.origin(k),
            instance_number: None,
            pixels: PixelFormat {
                transfer_syntax: uid("1.2.840.10008.1.2.1"),
                frames: 1,
                rows: self.shape[1] as u16,
                columns: self.shape[2] as u16,
                bits_allocated: 16,
                bits_stored: 16,
                high_bit: 15,
                signed: true,
                padding: None,
            },
            rescale: Rescale { slope: 1.0, intercept: 0.0, explicit: true },
            timing: PlaneTiming::default(),
        });
        let series = Series {
            study_uid: uid("1.2.3"),
            series_uid: uid("1.2.4"),
            frame_of_reference_uid: None,
            modality: "CT".into(),
            planes: planes.collect(),
            geometry: Geometry {
                rows: self.shape[1],
                columns: self.shape[2],
                row_direction: self.row,
                column_direction: self.column,
                pixel_spacing: PixelSpacing { dx: DX, dy: DY },
                slice_step: step,
                slice_thickness: None,
                uniform_spacing: self.even(),
                sheared: self.lean != [0.0; 2],
            },
            lossy: false,
            pet: None,
            warnings: vec![],
            copied: CopiedAttributes::default(),
            selection: SelectionTags::default(),
            image_type: vec![],
            phase: None,
            unit: "HU".into(),
            hold: None,
        };
        Volume {
            data: self.voxels().map(|v| value(self.place(v)) as f32).collect(),
            channels: 1,
            shape: self.shape,
            affine,
            quantity: vec![Quantity::Hu],
            source: Source::Case(Box::new(Case { channels: vec![series], grid: 0, volume_key: [0; 32] })),
        }
    }
}

/// Prepared without any resampling beyond the rectification: as stored, at the spacing that the upright grid has.
fn upright(volume: &Volume, stack: &Stack) -> (Prepared, Rectified) {
    let steps = preprocessing(NormalizationOrder::NormalizeFirst, [stack.step(), DY, DX]);
    let prepared = prepare(volume, &manifest(steps), &Limits::default()).expect("can be prepared");
    let rectified = prepared.back.rectified.clone().expect("was rectified");
    assert_eq!(prepared.shape, rectified.shape, "neither cropped nor resampled");
    (prepared, rectified)
}

fn stacks() -> impl Strategy<Value = Stack> {
    let sizes = (3usize..9, 6usize..14, 6usize..14);
    let gaps = proptest::collection::vec(0.7f64..4.0, 8);
    let turn = proptest::array::uniform3(-0.3f64..0.3);
    (sizes, gaps, any::<bool>(), proptest::array::uniform2(-0.4f64..0.4), turn).prop_map(|((nz, ny, nx), gaps, even, lean, [a, b, c])| {
        let gap = |k: usize| if even { gaps[0] } else { gaps[k] };
        let heights = (0..nz).scan(0.0, |h, k| {
            let here = *h;
            *h += gap(k);
            Some(here)
        });
        let heights: Vec<f64> = heights.collect();
        let length = (1.0 + a * a + b * b).sqrt();
        let row = [1.0, a, b].map(|v| v / length);
        // a second direction at right angles to the first
        let skew = cross(row, [c, -0.2, 1.0]);
        let length = skew.iter().map(|v| v * v).sum::<f64>().sqrt();
        let column = skew.map(|v| -v / length);
        // what is less than a twentieth of a voxel in all counts as nothing
        let lean = lean.map(|v: f64| if v.abs() < 0.06 { 0.0 } else { v });
        let lean = if even && lean[0].abs() < 0.05 { [0.2, lean[1]] } else { lean };
        Stack { shape: [nz, ny, nx], heights, lean, row, column }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A field that is linear in the patient is interpolated without error: every upright voxel inside the slices has the field's own value at
    /// its place, so the places are right.
    #[test]
    fn upright_voxels_hold_what_lies_at_their_place(stack in stacks()) {
        let field = |p: [f64; 3]| 3.0 * p[0] - 2.0 * p[1] + 1.5 * p[2] + 40.0;
        let volume = stack.volume(field);
        let (prepared, rectified) = upright(&volume, &stack);
        let normal = cross(stack.row, stack.column);
        let (first, [before_j, before_i]) = rectified.slices[0];
        prop_assert_eq!(first, 0.0);
        let [mz, my, mx] = rectified.shape;
        let mut inside = 0;
        for (n, value) in prepared.data.iter().enumerate() {
            let p = [n / (my * mx), n / mx % my, n % mx].map(|v| v as f64);
            prop_assert!(n < mz * my * mx);
            // covered on all sides by the slices above and below
            let near = rectified.slices.windows(2).find(|w| w[0].0 <= p[0] && p[0] <= w[1].0);
            let covered = near.is_some_and(|w| w.iter().all(|(_, [down, right])| {
                let (j, i) = (p[1] - down, p[2] - right);
                (0.0..=(stack.shape[1] - 1) as f64).contains(&j) && (0.0..=(stack.shape[2] - 1) as f64).contains(&i)
            }));
            if covered {
                let place = sum(&[
                    (stack.origin(0), 1.0),
                    (normal, stack.step() * p[0]),
                    (stack.column, DY * (p[1] - before_j)),
                    (stack.row, DX * (p[2] - before_i)),
                ]);
                prop_assert!((f64::from(*value) - field(place)).abs() < 1e-2, "{p:?}: {value} is not {}", field(place));
                inside += 1;
            }
        }
        prop_assert!(inside > 0);
    }

    /// A body painted on the upright grid returns to the slices with its shape: only voxels at its surface may differ.
    #[test]
    fn labels_return_to_the_tilted_slices(stack in stacks()) {
        let volume = stack.volume(|_| 7.0);
        let (prepared, rectified) = upright(&volume, &stack);
        let normal = cross(stack.row, stack.column);
        let (_, [before_j, before_i]) = rectified.slices[0];
        let [_, my, mx] = rectified.shape;
        let place = |n: usize| {
            let p = [n / (my * mx), n / mx % my, n % mx].map(|v| v as f64);
            sum(&[(stack.origin(0), 1.0), (normal, stack.step() * p[0]), (stack.column, DY * (p[1] - before_j)), (stack.row, DX * (p[2] - before_i))])
        };
        // the half space beyond a slanted plane through the middle of the stack
        let middle = stack.place([stack.shape[0] / 2, stack.shape[1] / 2, stack.shape[2] / 2]);
        let depth = |p: [f64; 3]| 0.6 * (p[0] - middle[0]) - 0.64 * (p[1] - middle[1]) + 0.48 * (p[2] - middle[2]);
        let labels: Vec<u8> = (0..prepared.data.len()).map(|n| u8::from(depth(place(n)) > 0.0)).collect();
        let back = prepared.back.labels_to_source(&labels);
        prop_assert_eq!(back.len(), stack.shape.iter().product::<usize>());
        // no voxel is farther from its nearest upright voxel than half a diagonal
        let reach = 0.5 * (stack.step().powi(2) + DX * DX + DY * DY).sqrt() + 1e-6;
        for (voxel, label) in stack.voxels().zip(back) {
            let d = depth(stack.place(voxel));
            prop_assert!(d.abs() <= reach || (label == 1) == (d > 0.0), "{voxel:?}: {d}");
        }
    }
}

#[test]
fn the_corners_that_no_slice_covers_are_air() {
    let stack = Stack {
        shape: [6, 8, 8],
        heights: (0..6).map(f64::from).collect(),
        lean: [0.5, 0.0],
        row: [1.0, 0.0, 0.0],
        column: [0.0, 1.0, 0.0],
    };
    let (prepared, rectified) = upright(&stack.volume(|_| 50.0), &stack);
    // five steps of half a millimetre are 2.8 rows
    assert_eq!(rectified.shape, [6, 11, 8]);
    assert_eq!(prepared.data[(10 * 8)..][..8], [-1024.0; 8], "below the first slice");
    assert_eq!(prepared.data[5 * 88..][..8], [-1024.0; 8], "above the last one");
    assert!(prepared.data.iter().all(|v| (-1024.001..50.001).contains(v)));
}

#[test]
fn upright_even_slices_are_left_alone() {
    let stack =
        Stack { shape: [4, 8, 8], heights: (0..4).map(f64::from).collect(), lean: [0.0; 2], row: [1.0, 0.0, 0.0], column: [0.0, 1.0, 0.0] };
    let volume = stack.volume(|p| p[0] + p[2]);
    let mut steps = preprocessing(NormalizationOrder::NormalizeFirst, [1.0, DY, DX]);
    steps.orientation = Orientation::Ras;
    let prepared = prepare(&volume, &manifest(steps), &Limits::default()).expect("can be prepared");
    assert_eq!(prepared.back.rectified, None);
    assert_eq!((prepared.shape, prepared.back.flipped), ([4, 8, 8], [false, true, true]));
}
