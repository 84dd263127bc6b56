//! Keeping what a teacher knows of the classes that a sample has no labels for.

use super::softmax::{Truth, check};
use crate::stunet::Error;
use crate::stunet::fused::five;
use tch::{Kind, Tensor};

/// The mean cross-entropy with the teacher, and its gradient by the logits.
pub struct Distilled {
    /// Over all voxels of the samples that take part.
    pub value: f64,
    /// As the logits are shaped.
    pub gradient: Tensor,
}

/// Cross-entropy between teacher and student, times `weight`, over the classes that were not reviewed and one class that
/// stands for all reviewed ones together (Cermelli et al. 2020, "Modeling the background", eq. 8, with the reviewed classes in
/// the background's place). How the student divides that one among its members is left to the labels.
///
/// `doubtful` classes are among those that the teacher does not know well: they belong to the one that stands for the reviewed ones, which
/// the background is in, so the teacher never says that they are not there.
///
/// `logits` and `teacher` are `[N, K, X, Y, Z]` before softmax, on one device. Samples whose every class is allowed take no
/// part: their gradient is 0.
pub fn distil(logits: &Tensor, teacher: &Tensor, truth: &Truth, doubtful: &[u16], weight: f64) -> Result<Distilled, Error> {
    let classes = check(logits, truth)?;
    if teacher.size() != logits.size() {
        return Err(Error::Input(format!("a teacher's logits of shape {:?} for {:?}", teacher.size(), logits.size())));
    }
    let [n, k, x, y, z] = five(logits)?.map(|edge| edge as i64);
    let (kind, device) = (logits.f_kind()?, logits.device());
    let mut known = vec![0f64; (n * k) as usize];
    let mut part = vec![0f64; n as usize];
    for (sample, allowed) in truth.allowed.iter().enumerate() {
        let known = &mut known[sample * classes..][..classes];
        allowed.iter().chain(doubtful).filter(|&&class| usize::from(class) < classes).for_each(|&class| known[usize::from(class)] = 1.0);
        part[sample] = f64::from(u8::from(known.contains(&0.0)));
    }
    let taking_part = part.iter().sum::<f64>();
    let scale = weight / (taking_part.max(1.0) * (x * y * z) as f64);
    let known = Tensor::f_from_slice(&known)?.f_reshape([n, k, 1])?.f_to_kind(kind)?.f_to_device(device)?;
    let part = Tensor::f_from_slice(&part)?.f_reshape([n, 1, 1])?.f_to_kind(kind)?.f_to_device(device)?;
    let flat = |t: &Tensor| t.f_to_kind(kind)?.f_reshape([n, k, x * y * z]);
    let sum = |t: &Tensor| t.f_sum_dim_intlist([1i64].as_slice(), true, kind);
    let log_p = flat(logits)?.f_log_softmax(1, kind)?;
    let p = log_p.f_exp()?;
    let q = flat(teacher)?.f_softmax(1, kind)?;
    let (p_rest, q_rest) = (sum(&p.f_mul(&known)?)?, sum(&q.f_mul(&known)?)?);
    let unknown = known.f_neg()?.f_add_scalar(1.0)?;
    // Below this a share of the reviewed classes is rounding.
    let p_rest = p_rest.f_clamp_min(1e-30)?;
    let by_class = sum(&q.f_mul(&log_p)?.f_mul(&unknown)?)?.f_add(&q_rest.f_mul(&p_rest.f_log()?)?)?;
    let value = by_class.f_mul(&part)?.f_sum(Kind::Double)?.f_double_value(&[])?;
    // By the logit of u: p - q; by that of a reviewed class: p - q_rest p / p_rest.
    let within = p.f_mul(&known)?.f_mul(&q_rest.f_div(&p_rest)?)?;
    let gradient = p.f_sub(&q.f_mul(&unknown)?)?.f_sub(&within)?.f_mul(&part)?.f_mul_scalar(scale)?;
    Ok(Distilled { value: -value * scale, gradient: gradient.f_reshape(logits.size())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_the_derivative_and_ends_at_the_teacher() {
        let size = [2i64, 4, 2, 1, 2];
        let wave = |by: f64| (0..32).map(|i| (f64::from(i) * by).sin() * 2.0).collect::<Vec<_>>();
        let (logits, teacher) = (Tensor::from_slice(&wave(1.7)).reshape(size), Tensor::from_slice(&wave(0.9)).reshape(size));
        let truth = Truth { labels: vec![0; 8], allowed: vec![vec![0, 2], vec![0, 1, 2, 3]] };
        let found = distil(&logits, &teacher, &truth, &[], 0.5).expect("distilled");
        for i in 0..32 {
            let shifted = |by: f64| {
                let mut values = wave(1.7);
                values[i] += by;
                distil(&Tensor::from_slice(&values).reshape(size), &teacher, &truth, &[], 0.5).expect("distilled").value
            };
            let expected = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            let got = found.gradient.reshape([-1]).double_value(&[i as i64]);
            assert!((got - expected).abs() < 1e-8, "{i}: {got} {expected}");
            assert!(i < 16 || got == 0.0, "every class of the second sample was reviewed");
        }
        let same = distil(&teacher, &teacher, &truth, &[], 1.0).expect("distilled");
        assert!(same.gradient.abs().max().double_value(&[]) < 1e-15);
    }

    /// A teacher that takes an organ for background says nothing about it: its class may rise at the background's cost for nothing.
    #[test]
    fn a_doubtful_class_is_not_pushed_down() {
        // Classes: background, a reviewed one, the doubtful one, another. The student sees the doubtful one, the teacher background.
        let logits = Tensor::from_slice(&[0.0f64, 0.0, 6.0, 0.0]).reshape([1, 4, 1, 1, 1]);
        let teacher = Tensor::from_slice(&[6.0f64, 0.0, 0.0, 0.0]).reshape([1, 4, 1, 1, 1]);
        let truth = Truth { labels: vec![0], allowed: vec![vec![0, 1]] };
        let gradient = |doubtful: &[u16]| {
            Vec::<f64>::try_from(distil(&logits, &teacher, &truth, doubtful, 1.0).expect("distilled").gradient.reshape([-1]))
                .expect("numbers")
        };
        assert!(gradient(&[])[2] > 0.9, "without that it is pushed down");
        let doubting = gradient(&[2]);
        assert!(doubting[2].abs() < 0.01, "{doubting:?}");
        assert!(doubting.iter().sum::<f64>().abs() < 1e-12);
        // Where everything is reviewed or doubtful there is nothing to be told.
        let all = Truth { labels: vec![0], allowed: vec![vec![0, 1, 3]] };
        assert_eq!(distil(&logits, &teacher, &all, &[2], 1.0).expect("distilled").value, 0.0);
    }
}
