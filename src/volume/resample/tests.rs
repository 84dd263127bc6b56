use super::*;
use proptest::prelude::*;

/// A smooth field with noise, range about ±1000, different for every seed.
fn field(shape: [usize; 3], seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..shape.iter().product::<usize>())
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            800.0 * (i as f32 * 0.37).sin() + (state >> 8) as f32 * (400.0 / (1 << 24) as f32) - 200.0
        })
        .collect()
}

fn worst(got: &[f32], plain: &[f64]) -> f64 {
    assert_eq!(got.len(), plain.len());
    let largest = plain.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
    got.iter().zip(plain).fold(0.0, |w: f64, (a, b)| w.max((*a as f64 - b).abs())) / largest
}

fn sizes() -> impl Strategy<Value = [usize; 3]> {
    proptest::array::uniform3(prop_oneof![1usize..6, 1usize..40])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn resize_equals_its_plain_twin(
        from in sizes(), to in sizes(), keep in proptest::array::uniform3(any::<bool>()),
        order in prop_oneof![Just(Interpolation::Nearest), Just(Interpolation::Linear), Just(Interpolation::Cubic)],
        separate in prop_oneof![Just(None), (0usize..3).prop_map(Some)], seed: u32,
    ) {
        let to: [usize; 3] = std::array::from_fn(|a| if keep[a] { from[a] } else { to[a] });
        let data = field(from, seed);
        let wide: Vec<f64> = data.iter().map(|&v| v.into()).collect();
        let got = Resize { to, interpolation: order, separate_axis: separate }.apply(&Grid::new(&data, from));
        let plain = match separate {
            Some(axis) if from != to => plain::resize_apart(&wide, from, to, order, axis),
            _ => plain::resize(&wide, from, to, order),
        };
        let error = worst(&got, &plain);
        prop_assert!(error < 2e-6, "{error}");
    }

    #[test]
    fn grid_views_read_what_they_say(
        shape in proptest::array::uniform3(1usize..7), flips in proptest::array::uniform3(any::<bool>()),
        order in prop_oneof![Just([0, 1, 2]), Just([0, 2, 1]), Just([1, 0, 2]), Just([1, 2, 0]), Just([2, 0, 1]), Just([2, 1, 0])],
        seed: u32,
    ) {
        let data = field(shape, seed);
        let view = Grid::new(&data, shape).reordered(order).flipped(flips);
        let turned = view.shape();
        prop_assert_eq!(turned, order.map(|a| shape[a]));
        let start: [usize; 3] = std::array::from_fn(|a| turned[a] / 3);
        let size: [usize; 3] = std::array::from_fn(|a| turned[a] - start[a]);
        let view = view.cropped(start, size);
        let mut row = vec![0.0; size[2]];
        for a in 0..size[0] {
            for b in 0..size[1] {
                view.read(a, b, &mut row);
                for (c, value) in row.iter().enumerate() {
                    let mut source = [0; 3];
                    for (axis, i) in [a, b, c].into_iter().enumerate() {
                        let i = i + start[axis];
                        source[order[axis]] = if flips[axis] { turned[axis] - 1 - i } else { i };
                    }
                    prop_assert_eq!(*value, data[(source[0] * shape[1] + source[1]) * shape[2] + source[2]]);
                }
            }
        }
    }
}

#[test]
fn shapes_round_halves_to_even() {
    assert_eq!(resampled_shape([21, 23, 1], [1.0, 1.0, 0.1], [2.0, 2.0, 9.0]), [10, 12, 0]);
    assert_eq!(separate_axis([3.0, 1.0, 1.0], [1.0; 3]), None);
    assert_eq!(separate_axis([1.0; 3], [1.0, 3.1, 1.0]), Some(1));
    assert_eq!(separate_axis([4.0, 4.0, 1.0], [5.0, 1.0, 1.0]), None);
}

#[test]
fn empty_arrays_stay_calm() {
    let resize = Resize { to: [2, 0, 3], interpolation: Interpolation::Cubic, separate_axis: None };
    assert!(resize.apply(&Grid::new(&[1.0], [1, 1, 1])).is_empty());
    assert_eq!(resize_labels::<u8>(&[], [0, 1, 1], [1, 1, 1], None, LabelRule::Strongest), [0]);
}
