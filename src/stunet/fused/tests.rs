//! The fused kernels against libtorch's own operators.

use super::*;
use crate::stunet::conv::channels_last;

fn random(shape: &[i64], kind: Kind, spread: f64, offset: f64) -> Tensor {
    channels_last((Tensor::randn(shape, (Kind::Float, Device::Cpu)) * spread + offset).to_kind(kind)).expect("five axes")
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

/// The plain twin, in f64.
fn plain(y: &Tensor, weight: &Tensor, bias: &Tensor, residual: Option<&Tensor>) -> Tensor {
    let f64_of = |t: &Tensor| t.to_kind(Kind::Double);
    let (weight, bias) = (Some(f64_of(weight)), Some(f64_of(bias)));
    let y = f64_of(y).instance_norm(weight, bias, None::<Tensor>, None::<Tensor>, true, 0.0, EPSILON, true);
    match residual {
        Some(r) => (y + f64_of(r)).leaky_relu(),
        None => y.leaky_relu(),
    }
}

#[test]
fn norms_agree_with_libtorch() {
    let shapes: [[i64; 5]; 12] = [
        [1, 1, 2, 1, 1],
        [1, 1, 9, 8, 7],
        [2, 3, 16, 16, 24],
        [1, 4, 32, 32, 64],
        [3, 7, 5, 6, 7],
        [1, 16, 40, 24, 33],
        [1, 24, 9, 9, 9],
        [2, 32, 17, 16, 15],
        [1, 96, 12, 10, 8],
        [1, 100, 6, 5, 3],
        [1, 256, 8, 8, 4],
        [2, 1536, 2, 1, 2],
    ];
    for shape in shapes {
        for (kind, tolerance) in [(Kind::Float, 3e-6), (Kind::BFloat16, 1.0 / 256.0)] {
            // An offset a hundred times the spread makes sums of squares lose everything; sums about the mean do not.
            for (spread, offset) in [(1.0, 0.0), (0.02, 2.0)] {
                let y = random(&shape, kind, spread, offset);
                let residual = random(&shape, kind, 0.5, 0.1);
                let [weight, bias, extra] = [0.3, 0.2, 0.4].map(|s| Tensor::randn([shape[1]], (Kind::Float, Device::Cpu)) * s + 0.5);
                // The mean itself is only known to the rounding of the inputs, a share of the spread.
                let tolerance = tolerance * (1.0 + if kind == Kind::Float { offset / spread / 10.0 } else { 0.0 });
                let check = |name: &str, got: &Tensor, expected: &Tensor| {
                    let allowed = tolerance * expected.abs().max().double_value(&[]);
                    assert!(worst(got, expected) <= allowed, "{name} {shape:?} {kind:?}: {:e} > {allowed:e}", worst(got, expected));
                };
                let mut fused = y.copy();
                norm_act(&mut fused, &weight, &bias, &Terms::default()).expect("norm");
                check("norm", &fused, &plain(&y, &weight, &bias, None));
                let mut fused = y.copy();
                norm_act(&mut fused, &weight, &bias, &Terms { residual: Some(&residual), ..Terms::default() }).expect("norm");
                check("norm, sum", &fused, &plain(&y, &weight, &bias, Some(&residual)));
                let mut fused = y.copy();
                norm_act(&mut fused, &weight, &bias, &Terms { residual: Some(&residual), bias: Some(&extra), ..Terms::default() })
                    .expect("norm");
                let shifted = residual.to_kind(Kind::Double) + extra.to_kind(Kind::Double).reshape([1, -1, 1, 1, 1]);
                check("norm, sum, bias", &fused, &plain(&y, &weight, &bias, Some(&shifted)));
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let y = random(&[1, 24, 20, 21, 22], Kind::Float, 1.0, 0.3);
    let [weight, bias] = [(); 2].map(|()| Tensor::randn([24], (Kind::Float, Device::Cpu)));
    let run = |threads: i32| {
        let before = tch::get_num_threads();
        tch::set_num_threads(threads);
        let mut out = y.copy();
        norm_act(&mut out, &weight, &bias, &Terms::default()).expect("norm");
        tch::set_num_threads(before);
        out
    };
    let one = run(1);
    for threads in 2..5 {
        assert_eq!(one, run(threads));
    }
}

#[test]
fn repeat_and_concat_agree_with_libtorch() {
    for kind in [Kind::Float, Kind::BFloat16] {
        for (n, low, skip, [x, y, z], [a, b, c]) in [
            (1, 16, 16, [4, 5, 6], [2, 2, 2]),
            (2, 3, 5, [3, 2, 4], [1, 1, 2]),
            (1, 7, 7, [2, 3, 3], [1, 1, 1]),
            (2, 32, 24, [1, 2, 2], [1, 2, 3]),
        ] {
            let low = random(&[n, low, x, y, z], kind, 1.0, 0.0);
            let skip = random(&[n, skip, x * a, y * b, z * c], kind, 1.0, 0.0);
            let repeated =
                low.repeat_interleave_self_int(a, 2, None).repeat_interleave_self_int(b, 3, None).repeat_interleave_self_int(c, 4, None);
            let got = repeat_concat(&low, [a, b, c].map(|f| f as usize), &skip).expect("fits");
            assert_eq!(got, Tensor::cat(&[&repeated, &skip], 1));
            repeat_concat(&low, [a, b, c + 1].map(|f| f as usize), &skip).expect_err("does not fit");
        }
    }
}

#[test]
fn other_layouts_and_kinds_are_refused() {
    let ones = Tensor::ones([4], (Kind::Float, Device::Cpu));
    let run = |mut y: Tensor| norm_act(&mut y, &ones, &ones, &Terms::default());
    run(random(&[1, 4, 3, 3, 3], Kind::Float, 1.0, 0.0)).expect("fits");
    run(Tensor::ones([1, 4, 3, 3, 3], (Kind::Float, Device::Cpu))).expect_err("channels first");
    run(random(&[1, 4, 3, 3, 3], Kind::Double, 1.0, 0.0)).expect_err("f64");
    run(random(&[1, 5, 3, 3, 3], Kind::Float, 1.0, 0.0)).expect_err("five channels, four weights");
    run(random(&[1, 4, 3, 3, 6], Kind::Float, 1.0, 0.0).slice(4, None, None, 2)).expect_err("holes");
}

#[test]
fn a_split_convolution_agrees_with_a_convolution_of_the_repeated_tensor() {
    for (kind, tolerance) in [(Kind::Float, 2e-6), (Kind::BFloat16, 2.0 / 256.0)] {
        for (n, c, [lx, ly, lz]) in [(1, 16, [5, 4, 6]), (2, 3, [2, 3, 4]), (1, 32, [1, 2, 9]), (1, 7, [3, 1, 1])] {
            let low = random(&[n, c, lx, ly, lz], kind, 1.0, 0.0);
            let y = random(&[n, c, 2 * lx, 2 * ly, 2 * lz], kind, 1.0, 0.5);
            let after = random(&[n, c, 2 * lx, 2 * ly, 2 * lz], kind, 1.0, 0.0);
            let [weight, bias] = [0.3, 0.2].map(|s| Tensor::randn([c], (Kind::Float, Device::Cpu)) * s + 0.5);
            let kernel = Tensor::randn([c, c, 3, 3, 3], (Kind::Float, Device::Cpu)) / (27.0 * c as f64).sqrt();
            let repeated = |t: &Tensor| {
                let t = t.to_kind(Kind::Double);
                t.repeat_interleave_self_int(2, 2, None).repeat_interleave_self_int(2, 3, None).repeat_interleave_self_int(2, 4, None)
            };
            let convolved = repeated(&low).conv3d(&kernel.to_kind(Kind::Double), None::<&Tensor>, 1, 1, 1, 1);
            let expected =
                plain(&(y.to_kind(Kind::Double) + convolved), &weight, &bias, Some(&(repeated(&low) + after.to_kind(Kind::Double))));

            let split = interleave_weight(&kernel).expect("3×3×3").to_kind(kind);
            let phases = channels_last(low.conv3d(&split, None::<&Tensor>, 1, 1, 1, 1)).expect("five axes");
            let mut fused = y.copy();
            let terms = Terms { phases: Some(&phases), residual: Some(&after), low: Some(&low), bias: None };
            norm_act(&mut fused, &weight, &bias, &terms).expect("fits");
            let (worst, allowed) = (worst(&fused, &expected), tolerance * expected.abs().max().double_value(&[]));
            assert!(worst <= allowed, "{kind:?} {c} {lx} {ly} {lz}: {worst:e} > {allowed:e}");

            let other = random(&[n, c, lx + 1, ly, lz], kind, 1.0, 0.0);
            norm_act(&mut fused, &weight, &bias, &Terms { low: Some(&other), ..Terms::default() }).expect_err("another size");
            norm_act(&mut fused, &weight, &bias, &Terms { phases: Some(&low), ..Terms::default() }).expect_err("not eight phases");
        }
    }
}
