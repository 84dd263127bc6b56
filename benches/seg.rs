//! Writing results: seconds and megabytes of each format for a study of 512 × 512 × 300 with 30 labels.
//!
//! `cargo bench --bench seg -- [--slices 300] [--size 512] [--labels 30] [--repeats 5] [--dir FOLDER]`
//!
//! Without `--dir` files go to memory (/dev/shm), which shows packing and writing alone; with it, to that folder's disk, and
//! every file is synced as in service.

#[path = "../tests/it/seg_object/phantom.rs"]
#[allow(dead_code, reason = "made for the tests; this uses a part of it")]
mod phantom;

use phantom::{Grid, generation, label_map, request, series, table, volume};
use stunetd::config::Format;
use stunetd::results::build;
use stunetd::sys::clock::Stopwatch;
use stunetd::sys::durable::StagingDir;
use stunetd::volume::LabelMap;

/// Structures as large as organs: ellipsoids that reach over a fifth to a half of the slices.
fn organs([nz, ny, nx]: [usize; 3], n: u16) -> Vec<u8> {
    let mut labels = vec![0u8; nz * ny * nx];
    for value in 1..=n {
        let share = |step: f64| (f64::from(value) * step).fract();
        let centre = [share(0.618) * nz as f64, (0.25 + 0.5 * share(0.414)) * ny as f64, (0.2 + 0.6 * share(0.732)) * nx as f64];
        let radius = [(0.1 + 0.15 * share(0.236)) * nz as f64, 0.07 * ny as f64, (0.05 + 0.06 * share(0.302)) * nx as f64];
        let range = |a: usize, count: usize| {
            let (low, high) = (centre[a] - radius[a], centre[a] + radius[a]);
            (low.max(0.0) as usize)..((high.max(0.0) as usize + 1).min(count))
        };
        let part = |a: usize, at: usize| ((at as f64 - centre[a]) / radius[a]).powi(2);
        for z in range(0, nz) {
            for y in range(1, ny) {
                let row = &mut labels[(z * ny + y) * nx..][..nx];
                range(2, nx).filter(|&x| part(0, z) + part(1, y) + part(2, x) < 1.0).for_each(|x| row[x] = value as u8);
            }
        }
    }
    labels
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    let number = |name: &str, default: usize| option(name).map_or(default, |v| v.parse().expect("a number"));
    let (nz, size) = (number("--slices", 300), number("--size", 512));
    let (count, repeats) = (number("--labels", 30) as u16, number("--repeats", 5));
    let dir = option("--dir").map_or("/dev/shm", |d| d.as_str());

    let series = series(&Grid::axial([nz, size, size]));
    let map: LabelMap = label_map(&series, organs([nz, size, size], count), table(count));
    let volume = volume(&map);
    let model = generation(map.table());
    let foreground: u64 = map.present().into_iter().map(|v| map.count(v)).sum();
    let share = 100.0 * foreground as f64 / map.labels().len() as f64;
    println!(
        "{size} x {size} x {nz}, {} labels, {share:.0} % foreground, files in {dir}, {} threads",
        map.present().len(),
        rayon::current_num_threads()
    );
    println!("{:<28} {:>9} {:>9} {:>10}", "", "best s", "median s", "MB");
    let all = [Format::Seg, Format::LabelMap, Format::Nifti, Format::Preview];
    for (name, formats) in [
        ("manifest alone", &[][..]),
        ("+ seg (BINARY)", &all[..1]),
        ("+ labelmap", &all[1..2]),
        ("+ nifti", &all[2..3]),
        ("+ preview", &all[3..]),
        ("+ seg, preview (default)", &[Format::Seg, Format::Preview]),
        ("all", &all),
    ] {
        let mut bytes = 0;
        let mut seconds: Vec<f64> = (0..repeats.max(1))
            .map(|_| {
                let staging = StagingDir::new_in(dir.as_ref()).expect("folder");
                let watch = Stopwatch::start();
                let results = build(&map, &volume, &request(&model, formats), staging.path()).expect("built");
                let passed = watch.seconds();
                bytes = results.manifest.outputs.iter().map(|o| o.bytes).sum();
                passed
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        println!("{name:<28} {:>9.3} {:>9.3} {:>10.1}", seconds[0], seconds[seconds.len() / 2], bytes as f64 / 1e6);
    }
}
