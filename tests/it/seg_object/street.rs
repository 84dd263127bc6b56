//! The whole street by files: images of every orientation come in, a threshold stands in the network's place, and an independent reader
//! finds every structure of the objects that come out where it was drawn.

use super::phantom::blobs;
use super::{orientations, plain};
use crate::support::cases::{decoder, grouped};
use crate::support::manifest::{labels, manifest, preprocessing};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stunetd::config::Format;
use stunetd::dicom::Uid;
use stunetd::dicom::ct_image::CtSeries;
use stunetd::fault::{Code, Fault};
use stunetd::models::{Generation, Manifest, NormalizationOrder, Orientation};
use stunetd::pipeline::{End, EngineFactory, EngineFacts, Input, JobId, Next, Opened, Order, Plan, Street, Ticket, WhenPublished};
use stunetd::segment::{Engine, Progress, SegmentOptions};
use stunetd::series::{Irregular, Policy};
use stunetd::sys::clock::{Clock, SystemClock};
use stunetd::sys::cores::Cores;
use stunetd::sys::shutdown::Shutdown;
use stunetd::telemetry::{Metrics, Urgency};
use stunetd::volume::{LabelMap, Labels, Prepared};

/// Hounsfield units of the background and of each structure.
const HU: [i16; 4] = [-1000, 40, 300, 700];
const HOST: u64 = 1 << 40;

/// Labels the network's grid by its values alone.
struct Threshold;

impl Engine for Threshold {
    fn segment(&mut self, prepared: Prepared, _: SegmentOptions, _: &mut dyn FnMut(Progress) -> bool) -> Result<LabelMap, Fault> {
        let nearest = |v: &f32| (0..HU.len()).min_by(|&a, &b| (v - f32::from(HU[a])).abs().total_cmp(&(v - f32::from(HU[b])).abs()));
        let labels: Vec<u8> = prepared.data.iter().map(|v| nearest(v).unwrap_or(0) as u8).collect();
        let back = prepared.back;
        let labels = Labels::U8(back.labels_to_source(&labels));
        LabelMap::new(labels, back.source_shape, back.affine, back.table, back.source)
            .map_err(|e| Fault::new(Code::InternalBug, e.to_string()))
    }
}

fn threshold() -> EngineFactory {
    Arc::new(|_: &Generation| {
        Ok(Opened { engine: Box::new(Threshold), facts: EngineFacts { device: "cpu".into(), precision: "f32".into() } })
    })
}

/// A model that wants upright images of this spacing, `[z, y, x]`, and leaves their values alone.
fn model(name: &str, spacing: [f64; 3]) -> Arc<Generation> {
    let mut steps = preprocessing(NormalizationOrder::NormalizeFirst, spacing);
    steps.orientation = Orientation::Ras;
    let manifest = Manifest { labels: labels(HU.len() as u16 - 1), name: name.into(), ..manifest(steps) };
    Arc::new(Generation { dir: name.into(), manifest, digest: format!("{name:0>64}") })
}

fn uid(text: &str) -> Uid {
    Uid::from_digest(&Sha256::digest(text).into())
}

/// Where voxels lie: unit vectors of columns and rows, and the step from slice to slice, mm.
#[derive(Debug)]
struct Grid {
    row: [f64; 3],
    column: [f64; 3],
    step: [f64; 3],
}

const SHAPE: [usize; 3] = [7, 9, 11];
const PIXEL: f64 = 2.0;
const ORIGIN: [f64; 3] = [-110.5, -95.25, 30.125];

impl Grid {
    fn place(&self, k: usize, j: usize, i: usize) -> [f64; 3] {
        std::array::from_fn(|a| ORIGIN[a] + PIXEL * (i as f64 * self.row[a] + j as f64 * self.column[a]) + k as f64 * self.step[a])
    }

    /// Writes a file for each slice; the centroid of each structure.
    fn write(&self, name: &str, folder: &Path) -> std::collections::BTreeMap<u16, ([f64; 3], usize)> {
        let [nz, ny, nx] = SHAPE;
        let drawn = blobs(SHAPE, 3);
        let series = CtSeries {
            patient_name: "STREET",
            patient_id: "STREET",
            patient_age: "042Y",
            study_uid: uid("study"),
            series_uid: uid(name),
            frame_of_reference_uid: uid("frame of reference"),
            study_description: "",
            series_description: "",
            body_part: "ABDOMEN",
            date: "20260102",
            time: "030405",
            size: [ny as u16, nx as u16],
            pixel_spacing: [PIXEL; 2],
            slice_thickness: PIXEL,
            orientation: [self.row[0], self.row[1], self.row[2], self.column[0], self.column[1], self.column[2]],
        };
        for k in 0..nz {
            let hu: Vec<i16> = drawn[k * ny * nx..(k + 1) * ny * nx].iter().map(|&label| HU[usize::from(label)]).collect();
            let file = series.image(&uid(&format!("{name} {k}")), k as u32 + 1, self.place(k, 0, 0), &hu);
            std::fs::write(folder.join(format!("{}.dcm", (k * 3) % nz)), file).expect("written");
        }
        let voxels = drawn.iter().enumerate().filter(|(_, label)| **label != 0);
        plain::centroids(voxels.map(|(v, &label)| (label.into(), self.place(v / (ny * nx), v / nx % ny, v % nx))))
    }
}

/// All 48 orientations, straight and turned; and tilted by a whole pixel from slice to slice, which can be undone exactly.
#[test]
fn structures_come_out_of_the_street_where_they_were_drawn() {
    let along = |step: f64, v: [f64; 3]| v.map(|c| step * c);
    let mut cases: Vec<(Grid, Arc<Generation>)> = Vec::new();
    let cube = model("cube", [PIXEL; 3]);
    for turned in [false, true] {
        let grids = orientations(turned).into_iter().map(|[row, column, normal]| Grid { row, column, step: along(PIXEL, normal) });
        cases.extend(grids.map(|grid| (grid, cube.clone())));
    }
    let (row, column) = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]);
    cases.push((Grid { row, column, step: [0.0, PIXEL, 3.0 * PIXEL] }, model("tilted", [3.0 * PIXEL, PIXEL, PIXEL])));

    let dir = tempfile::tempdir().expect("folder");
    let output = dir.path().join("out");
    std::fs::create_dir(&output).expect("folder");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut street = Street::start(Plan {
        model: cube,
        host_memory: HOST,
        ledger: None,
        disks: None,
        engine: threshold(),
        cores: Cores::plan(2, false),
        clock: clock.clone(),
        metrics: Arc::new(Metrics::new().expect("metrics")),
        shutdown: Shutdown::default(),
    })
    .expect("a street");
    let decoder = Arc::new(decoder());
    for (n, (grid, model)) in cases.into_iter().enumerate() {
        let input = dir.path().join(n.to_string());
        std::fs::create_dir(&input).expect("folder");
        let expected = grid.write(&n.to_string(), &input);
        let found = grouped(&input, &Policy::default(), &decoder);
        assert_eq!(found.series.len(), 1, "{grid:?} {:?}", found.rejected);
        assert_eq!(found.series[0].geometry.sheared, model.manifest.name == "tilted");
        let order = Arc::new(Order {
            model,
            options: SegmentOptions::default(),
            irregular: Irregular::Refuse,
            assume_mbq: false,
            formats: vec![Format::Seg, Format::LabelMap],
            wanted: Arc::default(),
            output: output.clone(),
            published: WhenPublished::Done,
            decoder: decoder.clone(),
            host_memory: HOST,
        });
        let job = JobId(n as u64 + 1);
        let ticket = Ticket { job, since: clock.monotonic(), dated: clock.wall(), urgency: Urgency::Routine, token: None };
        assert!(street.submit(ticket, Input::Series(found.series), &order, None).is_ok());
        let Next::Outcome(outcome) = street.outcome(Duration::from_secs(120)) else { panic!("no outcome") };
        let End::Published(receipt) = outcome.end.unwrap_or_else(|fault| panic!("{grid:?}: {fault}")) else { panic!("published before") };
        for name in ["seg.dcm", "labelmap.dcm"] {
            let set = plain::read(&std::fs::read(receipt.dir.join(name)).expect("object"));
            let found = plain::centroids(plain::voxels(&set).into_iter().map(|v| (v.segment, v.point)));
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name} {grid:?}");
            for (segment, (centre, _)) in &found {
                let (wanted, _) = expected[segment];
                for (a, b) in centre.iter().zip(wanted) {
                    assert!((a - b).abs() < 0.01, "{name} {grid:?} segment {segment}: {centre:?}, expected {wanted:?}");
                }
            }
        }
    }
    street.close();
    street.join();
}
