//! Windows, Gaussian weights, aggregation, export and post-processing against the reference's goldens and plain twins.

use crate::need;
use crate::support::{Tensors, golden};
use proptest::prelude::*;
use stunetd::models::{Aggregation, Postprocessing, Region};
use stunetd::segment::export::{Exporter, labels_plain};
use stunetd::segment::gaussian::gaussian;
use stunetd::segment::postprocess::postprocess;
use stunetd::segment::tiles::window_starts;
use stunetd::segment::{Decision, SegmentError};
use stunetd::volume::Labels;

fn json(name: &str) -> Option<serde_json::Value> {
    let path = golden(name)?;
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Some(serde_json::from_str(&text).expect("JSON"))
}

fn usizes(value: &serde_json::Value) -> Vec<usize> {
    value.as_array().expect("array").iter().map(|v| v.as_u64().expect("number") as usize).collect()
}

fn triple(value: &serde_json::Value) -> [usize; 3] {
    usizes(value).try_into().expect("three numbers")
}

fn u16s(labels: &Labels) -> Vec<u16> {
    (0..labels.len()).map(|i| labels.get(i)).collect()
}

#[test]
fn window_starts_are_the_references() {
    let cases = need!(json("nnunet/sliding_steps.json"), "goldens are not here");
    let cases = cases.as_array().expect("array");
    assert!(cases.len() >= 190);
    for case in cases {
        let (image, patch) = (triple(&case["image"]), triple(&case["patch"]));
        let step = case["step"].as_f64().expect("number");
        for axis in 0..3 {
            assert_eq!(window_starts(image[axis], patch[axis], step), usizes(&case["steps"][axis]), "{case}");
        }
    }
}

/// Difference in units of the last place of f16 values.
fn f16_ulps(a: f32, b: f32) -> u16 {
    half::f16::from_f32(a).to_bits().abs_diff(half::f16::from_f32(b).to_bits())
}

#[test]
fn gaussian_maps_are_the_references() {
    let tensors = Tensors::open(&need!(golden("nnunet/gaussian.safetensors"), "goldens are not here"));
    for patch in [[16, 16, 32], [24, 40, 33], [32, 32, 32]] {
        let name = patch.map(|p| p.to_string()).join("x");
        let (_, v1) = tensors.f32(&format!("{name}.v1_f32"));
        for (got, want) in gaussian(patch, Aggregation::Softmax).into_iter().zip(v1) {
            assert!((got - want).abs() <= 1e-6 * want, "{name}: {got} {want}");
        }
        let (_, v2) = tensors.f32(&format!("{name}.v2_f16_x10"));
        let got = gaussian(patch, Aggregation::Logits);
        let off = got.iter().zip(&v2).filter(|(a, b)| a != b).count();
        assert!(got.iter().zip(&v2).all(|(a, b)| f16_ulps(*a, *b) <= 1), "{name}");
        assert!(off * 1000 <= v2.len(), "{name}: {off} values are off by a unit in the last place");
    }
    for case in need!(json("nnunet/gaussian.json"), "goldens are not here").as_array().expect("array") {
        let patch = triple(&case["patch"]);
        let name = patch.map(|p| p.to_string()).join("x");
        let number = |key: &str| case[key].as_f64().unwrap_or_else(|| panic!("{key}"));
        let (v1, v2) = (gaussian(patch, Aggregation::Softmax), gaussian(patch, Aggregation::Logits));
        let sum = |table: &[f32]| table.iter().map(|&v| f64::from(v)).sum::<f64>();
        let min = |table: &[f32]| table.iter().copied().fold(f32::INFINITY, f32::min);
        assert!((sum(&v1) / number("v1_f32_sum") - 1.0).abs() < 1e-6, "{name}");
        assert!((sum(&v2) / number("v2_f16_sum") - 1.0).abs() < 1e-6, "{name}");
        assert!((f64::from(min(&v1)) / number("v1_f32_min") - 1.0).abs() < 1e-6, "{name}");
        let smallest = min(&v2);
        assert_eq!(smallest, number("v2_f16_min") as f32, "{name}");
        let at_min = v2.iter().filter(|v| **v == smallest).count() as f64;
        assert!((at_min - number("v2_f16_count_at_min")).abs() <= 2.0, "{name}: {at_min}");
        // Lines through the centre.
        for axis in 0..3 {
            let at = |table: &[f32], i: usize| {
                let mut p = patch.map(|p| p / 2);
                p[axis] = i;
                table[(p[0] * patch[1] + p[1]) * patch[2] + p[2]]
            };
            let (_, line) = tensors.f32(&format!("{name}.line{axis}.v1_f32"));
            assert!(line.iter().enumerate().all(|(i, w)| (at(&v1, i) - w).abs() <= 1e-6 * w), "{name} {axis}");
            let (_, line) = tensors.f32(&format!("{name}.line{axis}.v2_f16_x10"));
            assert!(line.iter().enumerate().all(|(i, w)| f16_ulps(at(&v2, i), *w) <= 1), "{name} {axis}");
        }
    }
}

#[test]
fn gaussian_of_the_official_class() {
    let tensors = Tensors::open(&need!(golden("stunet/tiny_sliding_window.safetensors"), "goldens are not here"));
    let table = gaussian([32, 32, 64], Aggregation::Softmax);
    let (_, corner) = tensors.f32("gaussian.corner");
    for (i, want) in corner.iter().enumerate() {
        let (z, y, x) = (i / 32, i / 8 % 4, i % 8);
        let got = table[(z * 32 + y) * 64 + x];
        assert!((got - want).abs() <= 1e-6 * want, "{got} {want}");
    }
}

/// Channel-first `[c, z, y, x]` to `[z, y, x, c]`.
fn channels_last(values: &[f32], channels: usize) -> Vec<f32> {
    let voxels = values.len() / channels;
    (0..values.len()).map(|i| values[i % channels * voxels + i / channels]).collect()
}

/// Labels through the streaming exporter.
fn export(
    values: &[f32],
    low: [usize; 3],
    high: [usize; 3],
    separate: Option<usize>,
    outputs: usize,
    decision: &Decision,
    wide: bool,
) -> Result<Labels, SegmentError> {
    let mut exporter = Exporter::new(low, high, separate, outputs, decision.clone(), wide);
    for slice in values.chunks_exact(low[1] * low[2] * outputs) {
        exporter.push(|out| {
            out.copy_from_slice(slice);
            Ok(())
        })?;
    }
    exporter.finish()
}

#[test]
fn export_is_the_references() {
    let tensors = Tensors::open(&need!(golden("nnunet/export.safetensors"), "goldens are not here"));
    let parameters = need!(json("nnunet/export.json"), "goldens are not here");
    let parameters = &parameters["export"];
    let (shape, logits) = tensors.f32("logits_f16");
    let (outputs, low) = (shape[0], [shape[1], shape[2], shape[3]]);
    let bounds: Vec<Vec<usize>> = parameters["bbox"].as_array().expect("array").iter().map(usizes).collect();
    let high: [usize; 3] = std::array::from_fn(|a| bounds[a][1] - bounds[a][0]);
    let uncropped = triple(&parameters["shape_before_cropping"]);
    let values = channels_last(&logits, outputs);
    let regions: Vec<Region> = (0..3).map(|r| Region { output: r, value: r as u16 + 1 }).collect();
    for (name, regions) in [("label", vec![]), ("region_label", regions)] {
        let decision = Decision::new(&regions, outputs, Aggregation::Logits).expect("decision");
        let labels = export(&values, low, high, None, outputs, &decision, false).expect("labels");
        let golden = tensors.get(name);
        // transpose_forward is [1, 0, 2]: the source's axes 0 and 1 are swapped.
        let mut source = vec![0.0; golden.values.len()];
        for z in 0..high[0] {
            for y in 0..high[1] {
                for x in 0..high[2] {
                    let (a, b, c) = (z + bounds[0][0], y + bounds[1][0], x + bounds[2][0]);
                    source[(b * uncropped[0] + a) * uncropped[2] + c] = f64::from(labels.get((z * high[1] + y) * high[2] + x));
                }
            }
        }
        let off = source.iter().zip(&golden.values).filter(|(a, b)| a != b).count();
        assert!(off as f64 <= 1e-4 * source.len() as f64, "{name}: {off} of {} voxels differ", source.len());
    }
}

#[test]
fn largest_components_are_the_references() {
    let tensors = Tensors::open(&need!(golden("nnunet/export.safetensors"), "goldens are not here"));
    let input = tensors.get("lcc.in");
    let shape: [usize; 3] = input.shape.clone().try_into().expect("three axes");
    // The reference takes a list of labels as their union, just as a region.
    let cases: [(&str, &[u16]); 3] = [("lcc.label1", &[1]), ("lcc.region12", &[1, 2]), ("lcc.list_1_2", &[1, 2])];
    for (name, union) in cases {
        let steps = Postprocessing { keep_largest: vec![union.to_vec()], connectivity: Some(26) };
        let mut labels = Labels::U8(input.values.iter().map(|&v| v as u8).collect());
        postprocess(&mut labels, shape, &steps).expect("postprocessing");
        assert!(tensors.get(name).values.iter().enumerate().all(|(i, &v)| labels.get(i) == v as u16), "{name}");
    }
}

#[test]
fn what_is_not_finite_is_refused() {
    let mut values = vec![0.5f32; 2 * 3 * 4 * 20];
    let decision = Decision::new(&[], 20, Aggregation::Logits).expect("decision");
    assert!(export(&values, [2, 3, 4], [4, 6, 8], None, 20, &decision, false).is_ok());
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        values[3 * 4 * 20 + 17] = bad;
        assert!(matches!(export(&values, [2, 3, 4], [4, 6, 8], None, 20, &decision, false), Err(SegmentError::NotFinite(1))));
    }
}

/// Outputs with large areas of one winner, boundaries and exact ties.
fn outputs() -> impl Strategy<Value = ([usize; 3], [usize; 3], Option<usize>, usize, Vec<f32>)> {
    let shapes = (
        proptest::array::uniform3(1usize..8),
        proptest::array::uniform3(1usize..14),
        proptest::option::of(0usize..3),
        1usize..40,
        any::<u64>(),
        any::<bool>(),
    );
    shapes.prop_map(|(low, high, separate, outputs, seed, coarse)| {
        let mut state = seed | 1;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let plane: [f32; 3] = std::array::from_fn(|_| random() - 0.5);
        let pair = [random(), random()].map(|v| (v * outputs as f32) as usize);
        let mut values = Vec::new();
        for z in 0..low[0] {
            for y in 0..low[1] {
                for x in 0..low[2] {
                    let side = plane[0] * z as f32 + plane[1] * y as f32 + plane[2] * x as f32 > 0.3;
                    for c in 0..outputs {
                        let noise = if coarse { (random() * 4.0).floor() } else { random() * 4.0 - 2.0 };
                        values.push(noise + if c == pair[usize::from(side)] { 2.5 } else { 0.0 });
                    }
                }
            }
        }
        (low, high, separate, outputs, values)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn streamed_export_is_the_plain_export((low, high, separate, outputs, values) in outputs(), wide in any::<bool>()) {
        let regions: Vec<Region> = (0..outputs).step_by(2).map(|r| Region { output: r, value: 7 + r as u16 }).collect();
        for regions in [vec![], regions] {
            let decision = Decision::new(&regions, outputs, Aggregation::Logits).expect("decision");
            let plain = labels_plain(&values, low, high, separate, outputs, &decision);
            let streamed = export(&values, low, high, separate, outputs, &decision, wide).expect("labels");
            prop_assert_eq!(matches!(&streamed, Labels::U16(_)), wide);
            prop_assert_eq!(u16s(&streamed), plain);
        }
    }
}
