//! One head's loss and gradient, targets of the lower heads, learning rates: nnU-Net 2's own numbers.

use super::{labels, tensor, values};
use crate::need;
use crate::support::{Tensors, golden, relative_error};
use stunetd::stunet::learning::{IGNORED, Truth};
use stunetd::training::data::{Level, head_weights, lower_targets};
use stunetd::training::{Counting, Flavour, Loss, Outputs, loss, poly_learning_rate};
use tch::Kind;

fn json() -> Option<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(golden("nnunet/trainer.json")?).ok()?).ok()
}

fn settings(counting: Counting, outputs: Outputs) -> Loss {
    Loss { counting, flavour: Flavour::V2, outputs }
}

#[test]
fn losses_and_gradients_of_nnunet() {
    let file = Tensors::open(&need!(golden("nnunet/trainer.safetensors"), "golden not here"));
    let json = need!(json(), "golden not here");
    let all = tensor(&file, "loss.logits").to_kind(Kind::Float);
    let three = all.narrow(1, 0, 3).contiguous();
    let labels = labels(&file, "loss.target");
    let ignoring: Vec<u16> = labels.iter().map(|&l| if l == 3 { IGNORED } else { l }).collect();
    let regions = Outputs::Regions(vec![vec![1, 2, 3], vec![2, 3], vec![3]]);
    let (sample, batch) = (Counting::Sample, Counting::Batch);
    let cases = [
        ("dc_ce.batch_dice_False", "batch_dice_0", &all, &labels, settings(sample, Outputs::Classes)),
        ("dc_ce.batch_dice_True", "batch_dice_1", &all, &labels, settings(batch, Outputs::Classes)),
        ("dc_ce.ignore3", "ignore3", &three, &ignoring, settings(sample, Outputs::Classes)),
        ("dc_bce.regions", "regions", &three, &labels, settings(batch, regions)),
    ];
    for (name, gradient, logits, labels, settings) in cases {
        let classes = logits.size()[1] as u16;
        let truth = Truth { labels: labels.clone(), allowed: vec![(0..classes).collect(); 2] };
        let (value, got) = loss(&settings, logits, &truth, 1.0).expect("loss");
        let expected = json[name].as_f64().expect("a number");
        println!("{name}: {} {expected}", value.total());
        assert!((value.total() - expected).abs() <= 1e-5 * expected.abs(), "{name}");
        let golden = file.names().into_iter().find(|n| n.starts_with("loss.grad.") && n.ends_with(gradient)).expect(gradient);
        let golden = file.get(&golden);
        // Where the golden's logits have a channel more, that channel has no gradient.
        let got = values(&got);
        let width = golden.values.len() / 2;
        let golden: Vec<f64> = golden.values.chunks(width).flat_map(|half| half[..got.len() / 2].to_vec()).collect();
        let worst = got.iter().zip(&golden).fold(0f64, |worst, (a, b)| worst.max((a - b).abs()));
        println!("{name}: gradient {worst:.1e} abs, {:.1e} relative", relative_error(got, &golden));
        assert!(worst <= 1e-6, "{name}");
    }
}

#[test]
fn targets_of_the_lower_heads() {
    let file = Tensors::open(&need!(golden("nnunet/trainer.safetensors"), "golden not here"));
    let full = Level { labels: labels(&file, "ds.seg"), shape: [24, 20, 28] };
    let levels = lower_targets(full, &[[2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]]);
    for (i, level) in levels.iter().enumerate() {
        let expected = file.get(&format!("ds.level{i}"));
        assert_eq!(level.shape.to_vec(), expected.shape[1..], "level {i}");
        assert_eq!(level.labels, labels(&file, &format!("ds.level{i}")), "level {i}");
    }
    let file = Tensors::open(&need!(golden("stunet/training_sample_dice.safetensors"), "golden not here"));
    let levels = lower_targets(Level { labels: labels(&file, "target.0"), shape: [32; 3] }, &[[2; 3]; 4]);
    for (i, level) in levels.iter().enumerate() {
        assert_eq!(level.labels, labels(&file, &format!("target.{i}")), "level {i}");
    }
}

#[test]
fn learning_rates_and_head_weights() {
    let json = need!(json(), "golden not here");
    for (first, epochs) in [("0.01", 1000u64), ("0.001", 1000), ("0.01", 50)] {
        let golden = json["poly_lr"][format!("{first}/{epochs}")].as_array().expect("rates");
        for (i, expected) in golden.iter().enumerate() {
            let rate = poly_learning_rate(first.parse().expect("a number"), i as u64 * epochs / 10, epochs);
            assert!((rate - expected.as_f64().expect("a number")).abs() < 1e-15, "{first} {epochs} {i}");
        }
    }
    assert_eq!(poly_learning_rate(0.01, 2000, 1000), 0.0);
    let golden: Vec<f64> = json["ds_weights"].as_array().expect("weights").iter().filter_map(|v| v.as_f64()).collect();
    for (ours, golden) in head_weights(5).iter().zip(&golden) {
        assert!((ours - golden).abs() < 1e-15);
    }
    assert_eq!((head_weights(1), head_weights(4)), (vec![1.0], [4.0, 2.0, 1.0, 0.0].map(|w| w / 7.0).to_vec()));
}
