//! Seconds of the cubic resize of a 512 × 512 × 300 CT to 1.5 mm, and of all of `prepare`, beside what the memory alone would take.
//!
//! `cargo bench --bench resample`; the number of threads is rayon's (`RAYON_NUM_THREADS`).

#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use rayon::prelude::*;
use std::hint::black_box;
use std::time::Instant;
use stunetd::volume::resample::{Grid, Interpolation, Resize, resampled_shape, separate_axis};

const SHAPE: [usize; 3] = [300, 512, 512];
const RUNS: usize = 5;

fn main() {
    println!("{} threads", rayon::current_num_threads());
    let image = body();
    for (spacing, target) in
        [([1.5, 0.8, 0.8], [1.5; 3]), ([1.0, 0.8, 0.8], [1.5; 3]), ([1.0, 0.8, 0.8], [3.0; 3]), ([5.0, 0.8, 0.8], [1.5; 3])]
    {
        let to = resampled_shape(SHAPE, spacing, target);
        if spacing[0] == 5.0 {
            let part = &image[..60 * 512 * 512];
            row(&Grid::new(part, [60, 512, 512]), resampled_shape([60, 512, 512], spacing, target), spacing, target);
        } else {
            row(&Grid::new(&image, SHAPE), to, spacing, target);
        }
    }
    println!("peak RSS {:.0} MB", peak_rss_mb());
}

fn row(grid: &Grid<f32>, to: [usize; 3], spacing: [f64; 3], target: [f64; 3]) {
    let resize = Resize { to, interpolation: Interpolation::Cubic, separate_axis: separate_axis(spacing, target) };
    let seconds = best(|| resize.apply(grid));
    let [n_in, n_out] = [grid.shape(), to].map(|s| s.iter().product::<usize>());
    let floor = memory_floor(n_in, n_out);
    println!(
        "cubic {:?} -> {to:?}: {seconds:.3} s; reading the input and writing the output once: {floor:.3} s ({:.1} times)",
        grid.shape(),
        seconds / floor
    );
}

/// Best of a few runs, seconds.
fn best<T>(mut work: impl FnMut() -> T) -> f64 {
    (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

/// Seconds to read `n_in` and write `n_out` fresh f32 with all threads.
fn memory_floor(n_in: usize, n_out: usize) -> f64 {
    let input = vec![1.0f32; n_in];
    best(|| {
        let sums: f32 = input
            .par_chunks(1 << 16)
            .map(|c| c.as_chunks::<16>().0.iter().fold([0f32; 16], |s, c| std::array::from_fn(|l| s[l] + c[l]))[0])
            .sum();
        let mut output = vec![0.0f32; n_out];
        output.par_chunks_mut(1 << 16).for_each(|c| c.fill(sums));
        output
    })
}

/// An ellipsoid of tissue with noise in air, HU.
fn body() -> Vec<f32> {
    let mut image = vec![0.0f32; SHAPE.iter().product()];
    image.par_chunks_mut(SHAPE[1] * SHAPE[2]).enumerate().for_each(|(z, slab)| {
        let mut state = z as u32 + 1;
        for (i, v) in slab.iter_mut().enumerate() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 16) as f32 / 65536.0 * 40.0 - 20.0;
            let (y, x) = ((i / 512) as f32 / 256.0 - 1.0, (i % 512) as f32 / 256.0 - 1.0);
            *v = if x * x + 2.0 * y * y < 0.7 { (40.0 + noise).round() } else { (noise - 1000.0).max(-1024.0).round() };
        }
    });
    image
}

/// High-water mark of resident memory, MB.
fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kb = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kb.unwrap_or(f64::NAN) / 1024.0
}
