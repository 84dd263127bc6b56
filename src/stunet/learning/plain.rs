//! The sums and gradients of `softmax` by libtorch's own operators, on any device.

use super::softmax::{IGNORED, Slopes, Sums, Truth};
use crate::stunet::Error;
use crate::stunet::fused::five;
use tch::{Device, Kind, Tensor};

/// What both passes begin with. Shapes `[N, K, V]`, or `[N, 1, V]` for what has no classes.
struct Parts {
    log_p: Tensor,
    p: Tensor,
    /// 1 at the label of each voxel that counts.
    hot: Tensor,
    /// 1 where a voxel counts.
    counts: Tensor,
}

fn parts(logits: &Tensor, truth: &Truth) -> Result<Parts, Error> {
    let [n, k, x, y, z] = five(logits)?.map(|edge| edge as i64);
    let (device, kind) = (logits.device(), logits.f_kind()?);
    let voxels = x * y * z;
    let mut shift = vec![f64::NEG_INFINITY; (n * k) as usize];
    for (sample, allowed) in truth.allowed.iter().enumerate() {
        allowed.iter().for_each(|&class| shift[sample * k as usize + usize::from(class)] = 0.0);
    }
    let counted: Vec<i64> = truth
        .labels
        .iter()
        .enumerate()
        .map(|(i, &label)| {
            let sample = i / voxels as usize;
            let counts = label != IGNORED && shift[sample * k as usize + usize::from(label)] == 0.0;
            if counts { i64::from(label) } else { -1 }
        })
        .collect();
    let labels = Tensor::f_from_slice(&counted)?.f_reshape([n, 1, voxels])?.f_to_device(device)?;
    let counts = labels.f_ge(0)?.f_to_kind(kind)?;
    let hot = Tensor::f_zeros([n, k, voxels], (kind, device))?.f_scatter(1, &labels.f_clamp_min(0)?, &counts)?;
    let shift = Tensor::f_from_slice(&shift)?.f_reshape([n, k, 1])?.f_to_kind(kind)?.f_to_device(device)?;
    let log_p = logits.f_reshape([n, k, voxels])?.f_add(&shift)?.f_log_softmax(1, kind)?;
    let p = log_p.f_exp()?;
    Ok(Parts { log_p, p, hot, counts })
}

/// Rows `[N][K]` of a tensor `[N, K]`.
fn rows(tensor: &Tensor) -> Result<Vec<Vec<f64>>, Error> {
    Ok(Vec::try_from(tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?)?)
}

pub(super) fn softmax_sums(logits: &Tensor, truth: &Truth) -> Result<Vec<Sums>, Error> {
    let Parts { log_p, p, hot, counts } = parts(logits, truth)?;
    let sum = |tensor: &Tensor| rows(&tensor.f_sum_dim_intlist([2i64].as_slice(), false, Kind::Double)?);
    // -inf * 0 is no number: the logarithm of a class that is not allowed is taken out first.
    let entropy = sum(&log_p.f_nan_to_num(0.0, 0.0, 0.0)?.f_mul(&hot)?)?;
    let voxels = sum(&counts)?;
    let (hit, predicted, truth) = (sum(&p.f_mul(&hot)?)?, sum(&p.f_mul(&counts)?)?, sum(&hot)?);
    let per_sample = entropy.into_iter().zip(voxels).zip(hit).zip(predicted).zip(truth);
    Ok(per_sample
        .map(|((((entropy, voxels), hit), predicted), truth)| Sums {
            entropy: -entropy.iter().sum::<f64>(),
            voxels: voxels.first().copied().unwrap_or(0.0) as u64,
            hit,
            predicted,
            truth,
        })
        .collect())
}

pub(super) fn softmax_gradient(logits: &Tensor, truth: &Truth, slopes: &[Slopes]) -> Result<Tensor, Error> {
    let Parts { p, hot, counts, .. } = parts(logits, truth)?;
    let (kind, device) = (logits.f_kind()?, logits.device());
    let table = |values: &mut dyn Iterator<Item = f64>, width: i64| -> Result<Tensor, Error> {
        let values: Vec<f64> = values.collect();
        Ok(Tensor::f_from_slice(&values)?.f_reshape([-1, width, 1])?.f_to_kind(kind)?.f_to_device(device)?)
    };
    let classes = logits.size()[1];
    let hit = table(&mut slopes.iter().flat_map(|s| s.hit.iter().copied()), classes)?;
    let predicted = table(&mut slopes.iter().flat_map(|s| s.predicted.iter().copied()), classes)?;
    let entropy = table(&mut slopes.iter().map(|s| s.entropy), 1)?;
    let slope = hot.f_mul(&hit)?.f_add(&predicted)?;
    let mean = p.f_mul(&slope)?.f_sum_dim_intlist([1i64].as_slice(), true, kind)?;
    let by_p = p.f_mul(&slope.f_sub(&mean)?)?;
    let by_entropy = p.f_sub(&hot)?.f_mul(&entropy)?;
    Ok(by_p.f_add(&by_entropy)?.f_mul(&counts)?.f_reshape(logits.size())?)
}

#[cfg(test)]
mod tests {
    use super::super::softmax;
    use super::*;

    /// Numbers that look random, in -3..3.
    fn noise(count: usize) -> Vec<f64> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1u64 << 24) as f64 * 6.0 - 3.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn kernels_and_operators_agree_and_the_gradient_is_the_derivative() {
        let (classes, shape) = (7usize, [2i64, 7, 5, 7, 9]);
        let logits = Tensor::from_slice(&noise(shape.iter().product::<i64>() as usize)).reshape(shape);
        let labels = (0..2 * 315).map(|i| if i % 11 == 0 { IGNORED } else { (i * i % 7) as u16 }).collect();
        let truth = Truth { labels, allowed: vec![(0..7).collect(), vec![0, 2, 5]] };
        let slopes: Vec<Slopes> = noise(30)
            .chunks(15)
            .map(|v| Slopes { entropy: v[0], hit: v[1..=classes].to_vec(), predicted: v[classes + 1..].to_vec() })
            .collect();
        let value = |logits: &Tensor| -> f64 {
            let sums = softmax::softmax_sums(logits, &truth).expect("sums");
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            sums.iter().zip(&slopes).map(|(s, d)| s.entropy * d.entropy + dot(&s.hit, &d.hit) + dot(&s.predicted, &d.predicted)).sum()
        };
        for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 2e-6)] {
            let logits = logits.to_kind(kind);
            let (ours, theirs) =
                (softmax::softmax_sums(&logits, &truth).expect("sums"), softmax_sums(&logits, &truth).expect("sums of operators"));
            for (a, b) in ours.iter().zip(&theirs) {
                assert_eq!((a.voxels, &a.truth), (b.voxels, &b.truth));
                let pairs = [(a.entropy, b.entropy)].into_iter().chain(a.hit.iter().copied().zip(b.hit.iter().copied()));
                for (a, b) in pairs.chain(a.predicted.iter().copied().zip(b.predicted.iter().copied())) {
                    assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{a} {b}");
                }
            }
            let ours = softmax::softmax_gradient(&logits, &truth, &slopes).expect("gradient");
            let across = crate::stunet::conv::channels_last(&logits).expect("channels-last");
            assert_eq!(softmax::softmax_sums(&across, &truth).expect("sums"), softmax::softmax_sums(&logits, &truth).expect("sums"));
            assert!(softmax::softmax_gradient(&across, &truth, &slopes).expect("gradient").equal(&ours), "in either layout");
            let theirs = softmax_gradient(&logits, &truth, &slopes).expect("gradient of operators");
            assert!((&ours - &theirs).abs().max().double_value(&[]) <= tolerance * 10.0);
            for class in [1, 3, 4, 6] {
                assert_eq!(ours.get(1).get(class).abs().max().double_value(&[]), 0.0, "class {class} is not allowed");
            }
        }
        let gradient = softmax::softmax_gradient(&logits, &truth, &slopes).expect("gradient");
        for at in [[0, 0, 0, 0, 1], [0, 3, 2, 4, 8], [1, 2, 4, 6, 8], [1, 0, 1, 1, 1], [1, 1, 1, 1, 1]] {
            let shifted = |by: f64| {
                let copy = logits.copy();
                let mut one = copy.shallow_clone();
                for i in at {
                    one = one.get(i);
                }
                let _ = one.f_add_scalar_(by).expect("in place");
                value(&copy)
            };
            let expected = (shifted(1e-4) - shifted(-1e-4)) / 2e-4;
            let got = gradient.double_value(&at);
            assert!((got - expected).abs() < 1e-7 * expected.abs().max(1.0), "{at:?}: {got} {expected}");
        }
    }
}
