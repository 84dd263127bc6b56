//! Which series are segmented: rules in order, the best of a study, and the reasons.

use regex::Regex;
use stunetd::dicom::{CopiedAttributes, SelectionTags, Uid};
use stunetd::intake::select::{Action, Conditions, Orientation, Pattern, Preference, Range, Rule, Verdict, select};
use stunetd::series::{Geometry, PixelSpacing, Plane, Series};

/// A header in a line: what differs from an original axial CT of 100 slices, 2 mm apart.
struct Header {
    series: u32,
    description: &'static str,
    kernel: &'static str,
    image_type: &'static str,
    slices: usize,
    distance: f64,
    contrast: &'static str,
    normal: char,
}

impl Default for Header {
    fn default() -> Self {
        Header {
            series: 1,
            description: "Thorax 2.0",
            kernel: "Br40",
            image_type: "ORIGINAL\\PRIMARY\\AXIAL",
            slices: 100,
            distance: 2.0,
            contrast: "",
            normal: 'z',
        }
    }
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).expect("a uid")
}

impl Header {
    fn series(self) -> Series {
        let (row, column, normal) = match self.normal {
            'x' => ([0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]),
            'y' => ([1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]),
            _ => ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]),
        };
        let pixels = stunetd::dicom::PixelFormat {
            transfer_syntax: uid("1.2.840.10008.1.2.1"),
            frames: 1,
            rows: 512,
            columns: 512,
            bits_allocated: 16,
            bits_stored: 16,
            high_bit: 15,
            signed: true,
            padding: None,
        };
        let plane = |k: usize| Plane {
            path: "x".into(),
            sop_class_uid: uid("1.2.840.10008.5.1.4.1.1.2"),
            sop_instance_uid: uid(&format!("2.25.{}.{k}", self.series)),
            frame: None,
            position: normal.map(|n| n * self.distance * k as f64),
            instance_number: Some(k as i32 + 1),
            pixels: pixels.clone(),
            rescale: Default::default(),
            timing: Default::default(),
        };
        Series {
            study_uid: uid("2.25.1"),
            series_uid: uid(&format!("2.25.1.{}", self.series)),
            frame_of_reference_uid: Some(uid("2.25.3")),
            modality: "CT".into(),
            planes: (0..self.slices).map(plane).collect(),
            geometry: Geometry {
                rows: 512,
                columns: 512,
                row_direction: row,
                column_direction: column,
                pixel_spacing: PixelSpacing { dx: 0.8, dy: 0.8 },
                slice_step: normal.map(|n| n * self.distance),
                slice_thickness: Some(self.distance),
                uniform_spacing: true,
                sheared: false,
            },
            lossy: false,
            pet: None,
            warnings: vec![],
            copied: CopiedAttributes::default(),
            selection: SelectionTags {
                series_description: self.description.into(),
                kernel: self.kernel.into(),
                contrast_agent: self.contrast.into(),
                ..Default::default()
            },
            image_type: self.image_type.split('\\').map(Into::into).collect(),
            phase: None,
            unit: "HU".into(),
            hold: None,
        }
    }
}

fn segment(best: Vec<Preference>) -> Action {
    Action::Segment { model: "total".into(), priority: 0, best }
}

fn rule(name: &str, conditions: Conditions, action: Action) -> Rule {
    Rule { name: name.into(), conditions, action }
}

fn pattern(text: &str) -> Option<Regex> {
    Some(Regex::new(text).expect("a pattern"))
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = [
        rule("no lung kernels", Conditions { kernel: pattern("^B[rlf]?[67]"), ..Default::default() }, Action::Ignore),
        rule(
            "thin axial",
            Conditions { orientation: vec![Orientation::Axial], slice_distance: Range { min: None, max: Some(3.0) }, ..Default::default() },
            segment(vec![]),
        ),
    ];
    let cases = [
        (Header::default(), Verdict::Selected { rule: 1 }),
        (Header { kernel: "Bl60", ..Default::default() }, Verdict::Ignored { rule: 0 }),
    ];
    for (header, expected) in cases {
        assert_eq!(select(&rules, &[&header.series()]), [expected]);
    }
}

#[test]
fn a_miss_names_the_condition_and_no_free_text() {
    let secret = "DOE JOHN 1970";
    let conditions = [
        (Conditions { description: pattern("(?i)abdomen"), ..Default::default() }, "description"),
        (Conditions { not_description: pattern("DOE"), ..Default::default() }, "not_description"),
        (Conditions { modality: vec!["PT".into()], ..Default::default() }, "modality"),
        (Conditions { image_type: vec!["LOCALIZER".into()], ..Default::default() }, "image_type"),
        (Conditions { orientation: vec![Orientation::Sagittal], ..Default::default() }, "orientation"),
        (Conditions { slices: Range { min: Some(200.0), max: None }, ..Default::default() }, "slices"),
        (Conditions { coverage: Range { min: Some(300.0), max: None }, ..Default::default() }, "coverage"),
        (Conditions { contrast: Some(true), ..Default::default() }, "contrast"),
    ];
    let series = Header { description: secret, ..Default::default() }.series();
    for (conditions, key) in conditions {
        let verdict = select(&[rule("r", conditions, segment(vec![]))], &[&series]).remove(0);
        let Verdict::NoRule { misses } = verdict else { panic!("{key}: {verdict:?}") };
        assert_eq!(misses[0].condition, key);
        assert!(!misses[0].found.contains("DOE JOHN"), "{}", misses[0].found);
    }
}

#[test]
fn one_result_a_study_and_the_losers_know_the_winner() {
    let best = vec![
        Preference::Original,
        Preference::Axial,
        Preference::Kernel(Pattern(Regex::new("^Br[34]").expect("a pattern"))),
        Preference::SliceDistance(1.5),
        Preference::Coverage,
    ];
    let rules = [rule("chest", Conditions::default(), segment(best))];
    let all = [
        Header { series: 1, kernel: "Bl60", distance: 1.5, ..Default::default() },
        Header { series: 2, distance: 5.0, slices: 40, ..Default::default() },
        Header { series: 3, distance: 2.0, ..Default::default() },
        Header { series: 4, image_type: "DERIVED\\PRIMARY\\AXIAL", distance: 1.5, ..Default::default() },
        Header { series: 5, normal: 'y', distance: 1.5, ..Default::default() },
        Header { series: 6, contrast: "Iomeprol", distance: 5.0, ..Default::default() },
    ]
    .map(Header::series);
    let verdicts = select(&rules, &all.iter().collect::<Vec<_>>());
    let expected: Vec<Verdict> =
        (0..6).map(|i| if i == 2 || i == 5 { Verdict::Selected { rule: 0 } } else { Verdict::NotBest { rule: 0, winner: 2 } }).collect();
    assert_eq!(verdicts, expected);
    // The order in which series arrive changes nothing.
    let reversed: Vec<&Series> = all.iter().rev().collect();
    let mut turned = select(&rules, &reversed);
    turned.reverse();
    assert_eq!(turned.iter().filter(|v| matches!(v, Verdict::Selected { .. })).count(), 2);
    assert_eq!(turned[2], Verdict::Selected { rule: 0 });
}
