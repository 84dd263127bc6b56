//! Resampling against nnU-Net's own numbers, of generated and real images.

use crate::need;
use crate::support::{Tensors, golden, relative_error, shared};
use stunetd::volume::resample::{AxisOperator, Grid, Interpolation, LabelRule, Resize, resampled_shape, resize_labels, separate_axis};

#[derive(serde::Deserialize)]
struct Case {
    #[serde(default)]
    key: String,
    shape: [usize; 3],
    spacing: [f64; 3],
    new_spacing: [f64; 3],
    new_shape: [usize; 3],
    separate_axis: Option<usize>,
}

fn cases(json: &std::path::Path) -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(json).expect("golden")).expect("cases")
}

fn same_shape_and_axis(case: &Case) {
    assert_eq!(resampled_shape(case.shape, case.spacing, case.new_spacing), case.new_shape, "{}", case.key);
    assert_eq!(separate_axis(case.spacing, case.new_spacing), case.separate_axis, "{} {:?}", case.key, case.spacing);
}

#[test]
fn shapes_and_separate_axes_are_the_references() {
    let cases = cases(&need!(golden("nnunet/shapes.json"), "goldens/nnunet is not there"));
    assert!(cases.len() >= 100);
    cases.iter().for_each(same_shape_and_axis);
}

#[test]
fn images_are_the_references() {
    let (mut n, mut worst) = (0, 0f64);
    for_each_case(|case, tensors| {
        same_shape_and_axis(case);
        let (shape, image) = tensors.f32(&format!("{}.img", case.key));
        assert_eq!(shape, case.shape);
        let resize = Resize { to: case.new_shape, interpolation: Interpolation::Cubic, separate_axis: case.separate_axis };
        let got = resize.apply(&Grid::new(&image, case.shape));
        let expected = tensors.get(&format!("{}.img_out", case.key));
        assert_eq!(expected.shape, case.new_shape);
        let error = relative_error(got.into_iter().map(f64::from), &expected.values);
        assert!(error < 1e-6, "{}: {error:.1e}", case.key);
        worst = worst.max(error);
        n += 1;
    });
    println!("{n} images, worst error {worst:.1e} of the largest value");
}

/// The reference's f16 logits: ours may differ by the last bit of an f16.
#[test]
fn logits_are_the_references() {
    for_each_case(|case, tensors| {
        let (shape, logits) = tensors.f32(&format!("{}.logits_f16", case.key));
        let resize = Resize { to: case.new_shape, interpolation: Interpolation::Linear, separate_axis: case.separate_axis };
        let expected = tensors.get(&format!("{}.logits_out_f16", case.key));
        let voxels: usize = case.shape.iter().product();
        let got: Vec<f32> = (0..shape[0]).flat_map(|c| resize.apply(&Grid::new(&logits[c * voxels..][..voxels], case.shape))).collect();
        for (g, e) in got.iter().zip(&expected.values) {
            let rounded = half::f16::from_f32(*g).to_f64();
            let ulp = (e.abs() * 2f64.powi(-10)).max(2f64.powi(-24));
            assert!((rounded - e).abs() <= ulp, "{}: {g} is not {e}", case.key);
        }
        let classes = tensors.get(&format!("{}.logits_argmax", case.key)).values;
        let n = classes.len();
        let differ = (0..n).filter(|&i| {
            let best = (1..shape[0]).fold(0, |b, c| if got[c * n + i] > got[b * n + i] { c } else { b });
            best as f64 != classes[i]
        });
        // f16 rounding makes ties that exact values do not have
        let allowed = (n as f64 * 1e-4).max(1.0) as usize;
        let differ = differ.filter(|&i| !f16_tie(&expected.values, n, i)).count();
        assert!(differ <= allowed, "{}: {differ} of {n}", case.key);
    });
}

fn f16_tie(logits: &[f64], n: usize, i: usize) -> bool {
    let mut values: Vec<f64> = (0..logits.len() / n).map(|c| logits[c * n + i]).collect();
    values.sort_by(f64::total_cmp);
    let top = values.len() - 1;
    values[top] - values[top - 1] <= values[top].abs() * 2f64.powi(-10)
}

#[test]
fn labels_are_the_references_by_both_rules() {
    for_each_case(|case, tensors| {
        let seg: Vec<u8> = tensors.get(&format!("{}.seg", case.key)).values.iter().map(|&v| v as u8).collect();
        for (rule, name) in [(LabelRule::Strongest, "seg_out"), (LabelRule::Majority, "seg_out_legacy")] {
            let expected = tensors.get(&format!("{}.{name}", case.key)).values;
            let got = resize_labels(&seg, case.shape, case.new_shape, case.separate_axis, rule);
            let differ = got.iter().zip(&expected).filter(|(g, e)| f64::from(**g) != **e).count();
            assert_eq!((got.len(), differ), (expected.len(), 0), "{} {name}", case.key);
        }
    });
}

/// `taps` alone, axis after axis, is the whole linear resize.
#[test]
fn taps_make_the_resize() {
    let (from, to) = ([5, 1, 1], [9, 1, 1]);
    let line = [3.0f32, -1.0, 4.0, 1.0, 5.0];
    let whole = Resize { to, interpolation: Interpolation::Linear, separate_axis: None }.apply(&Grid::new(&line, from));
    let operator = AxisOperator::linear(5, 9);
    for (o, value) in whole.iter().enumerate() {
        let (i0, i1, t) = operator.taps(o);
        assert_eq!(*value, (1.0 - t) * line[i0] + t * line[i1]);
    }
}

/// Every case where the shared goldens are, else those that lie in the clone.
fn for_each_case(mut check: impl FnMut(&Case, &Tensors)) {
    let complete = shared().map(|s| s.join("goldens/nnunet/resampling.json"));
    let path = need!(complete.or_else(|| golden("nnunet/resampling.json")), "goldens/nnunet is not there");
    let tensors = Tensors::open(&path.with_extension("safetensors"));
    let cases = cases(&path);
    assert!(cases.len() >= 10);
    cases.iter().for_each(|case| check(case, &tensors));
}
