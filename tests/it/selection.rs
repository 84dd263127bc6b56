//! Which series are segmented: rules in order, the best of a study, pairs, scopes, and the reasons.

use crate::need;
use crate::support::cases::{cases, decoder, grouped, manifest as cases_manifest};
use crate::support::data;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use stunetd::config;
use stunetd::dicom::{CopiedAttributes, SelectionTags, Uid};
use stunetd::fault::Code;
use stunetd::intake::select::{Rule, Verdict, needs_study, select};
use stunetd::models::{Generation, OnUnknown, Scope};
use stunetd::series::{Geometry, PixelSpacing, Plane, Policy, Series};

/// A header in a line: what differs from an original axial CT of 100 slices, 2 mm apart.
#[derive(Clone)]
struct Header {
    series: u32,
    description: &'static str,
    kernel: &'static str,
    image_type: &'static str,
    slices: usize,
    distance: f64,
    contrast: &'static str,
    tracer: &'static str,
    normal: char,
    modality: &'static str,
    study: u32,
    /// Where the first slice lies.
    height: f64,
    body_part: &'static str,
    age: Option<f64>,
    phase: Option<u32>,
    /// Irradiation events.
    events: &'static [&'static str],
    acquisition: Option<i32>,
    /// Times of acquisition of the first and the last slice, s.
    times: Option<(f64, f64)>,
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
            tracer: "",
            normal: 'z',
            modality: "CT",
            study: 1,
            height: 0.0,
            body_part: "",
            age: Some(60.0),
            phase: None,
            events: &[],
            acquisition: None,
            times: None,
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
            position: normal.map(|n| n * (self.height + self.distance * k as f64)),
            instance_number: Some(k as i32 + 1),
            pixels: pixels.clone(),
            rescale: Default::default(),
            timing: stunetd::dicom::PlaneTiming {
                acquisition: self.times.map(|(first, last)| first + (last - first) * k as f64 / self.slices as f64),
                ..Default::default()
            },
        };
        Series {
            study_uid: uid(&format!("2.25.{}", self.study)),
            series_uid: uid(&format!("2.25.1.{}", self.series)),
            frame_of_reference_uid: Some(uid("2.25.3")),
            modality: self.modality.into(),
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
                radiopharmaceutical: self.tracer.into(),
                body_part: self.body_part.into(),
                age_years: self.age,
                irradiation_events: self.events.iter().map(|&e| e.into()).collect(),
                acquisition_number: self.acquisition,
                series_number: Some(self.series as i32),
                ..Default::default()
            },
            image_type: self.image_type.split('\\').map(Into::into).collect(),
            phase: self.phase,
            unit: "HU".into(),
            hold: None,
        }
    }
}

/// The demo model, and what differs of it by name: `pair` takes CT and PET on the CT's grid, `turned` on the PET's.
fn model(name: &str) -> Arc<Generation> {
    let mut model = Generation::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")).expect("demo model");
    if ["pair", "turned"].contains(&name) {
        let channel = model.manifest.preprocessing.channels[0].clone();
        model.manifest.preprocessing.channels.push(channel);
        model.manifest.preprocessing.grid_channel = usize::from(name == "turned");
        model.manifest.scope.modality = vec!["CT".into(), "PT".into()];
    }
    Arc::new(model)
}

/// Rules as they stand in a configuration; `model` is one of the names above.
fn rules(text: &str) -> Vec<Rule> {
    let config = config::parse(text).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"));
    let rule = |select: config::Select| {
        let model = (!select.ignore).then(|| model(&select.model.to_string_lossy()));
        Rule { slot: model.as_ref().map(|m: &Arc<Generation>| m.digest.clone()).unwrap_or_default(), select, model }
    };
    config.select.into_iter().map(rule).collect()
}

/// In a word for each header: the verdict, with the number of the other series where there is one, and the code of a refusal.
fn verdicts(rules: &[Rule], headers: &[Header]) -> Vec<String> {
    let series: Vec<Series> = headers.iter().cloned().map(Header::series).collect();
    let all: Vec<&Series> = series.iter().collect();
    let number = |i: usize| headers[i].series;
    let word = |v: Verdict| {
        let code = v.refusal(rules, &all).map(|r| format!(" {}", r.code)).unwrap_or_default();
        match v {
            Verdict::Selected { rule, channels, .. } => {
                let channels: Vec<_> = channels.into_iter().map(number).map(|n| n.to_string()).collect();
                format!("{} {}", rules[rule].name(), channels.join("+"))
            }
            Verdict::Partner { of, .. } => format!("with {}", number(of)),
            Verdict::NotBest { winner, .. } => format!("not best but {}", number(winner)),
            v => v.word().to_owned() + &code,
        }
    };
    select(rules, &all).into_iter().map(word).collect()
}

fn refusal(rules: &[Rule], header: Header) -> (Code, String) {
    let series = header.series();
    let refusal = select(rules, &[&series]).remove(0).refusal(rules, &[&series]).expect("refused");
    (refusal.code, refusal.detail)
}

const THIN: &str = r#"
[[select]]
name = "no lung kernels"
ignore = true
kernel = "^B[rlf]?[67]"
[[select]]
name = "thin axial"
orientation = ["axial"]
slice_distance = { max = 3.0 }
"#;

#[test]
fn the_first_rule_that_matches_decides() {
    let cases = [
        (Header::default(), "thin axial 1"),
        (Header { kernel: "Bl60", ..Default::default() }, "ignored select.ignored"),
        (Header { normal: 'x', ..Default::default() }, "no_rule select.no_rule"),
        (Header { distance: 5.0, ..Default::default() }, "no_rule select.no_rule"),
        (Header { modality: "PT", ..Default::default() }, "no_rule select.no_rule"),
    ];
    for (header, expected) in cases {
        assert_eq!(verdicts(&rules(THIN), &[header]), [expected]);
    }
    // Without rules: all that the model is for.
    let all = [Rule::all(model("demo"))];
    assert_eq!(verdicts(&all, &[Header::default()]), ["all 1"]);
    assert_eq!(refusal(&all, Header { modality: "PT", ..Default::default() }).0, Code::ScopeModality);
}

/// A derived CT, if intake lets one through, is for rules that ask for it: alone, as a partner, and to be ignored.
#[test]
fn derived_series_are_for_rules_that_accept_them() {
    let derived = Header { image_type: "DERIVED\\SECONDARY\\MPR", ..Header::default() };
    let accepting = "[[select]]\nname = \"plain\"\n[[select]]\nname = \"mpr\"\naccept = [\"derived\"]";
    assert_eq!(verdicts(&rules(accepting), &[derived.clone(), Header { series: 2, ..Header::default() }]), ["mpr 1", "plain 2"]);
    assert_eq!(verdicts(&rules(THIN), std::slice::from_ref(&derived)), ["no_rule select.no_rule"]);
    let ignoring = format!("[[select]]\nname = \"no\"\nignore = true\nimage_type = [\"MPR\"]\n{accepting}");
    assert_eq!(verdicts(&rules(&ignoring), std::slice::from_ref(&derived)), ["ignored select.ignored"]);
    let turned = "[[select]]\nname = \"petct\"\nmodel = \"turned\"";
    assert_eq!(verdicts(&rules(turned), &[derived.clone(), pet(2)]), ["no_rule select.no_rule", "no_rule select.no_partner"]);
    let taken = format!("{turned}\naccept = [\"derived\"]");
    assert_eq!(verdicts(&rules(&taken), &[derived, pet(2)]), ["with 2", "petct 1+2"]);
    assert!(config::parse("[[select]]\nname = \"a\"\nignore = true\naccept = [\"derived\"]\n[[select]]\nname = \"b\"").is_err());
}

#[test]
fn a_miss_names_the_condition_and_no_free_text() {
    let cases = [
        ("description = \"(?i)abdomen\"", "description"),
        ("not_description = \"DOE\"", "not_description"),
        ("modality = [\"PT\"]", "modality"),
        ("protocol = \"x\"", "protocol"),
        ("body_part = \"x\"", "body_part"),
        ("manufacturer = \"x\"", "manufacturer"),
        ("image_type = [\"LOCALIZER\"]", "image_type"),
        ("orientation = [\"sagittal\", \"oblique\"]", "orientation"),
        ("slices = { min = 200 }", "slices"),
        ("thickness = { min = 2.5, max = 3 }", "thickness"),
        ("pixel_spacing = { max = 0.5 }", "pixel_spacing"),
        ("coverage = { min = 300 }", "coverage"),
        ("contrast = true", "contrast"),
    ];
    for (condition, key) in cases {
        let rules = rules(&format!("[[select]]\nname = \"r\"\n{condition}"));
        let series = Header { description: "DOE JOHN 1970", ..Default::default() }.series();
        let Verdict::NoRule { misses } = select(&rules, &[&series]).remove(0) else { panic!("{key} matches") };
        assert_eq!(misses[0].condition, key);
        assert!(!misses[0].found.contains("DOE JOHN"), "{}", misses[0].found);
    }
}

const CHEST: &str = r#"
[[select]]
name = "chest"
per_study = "best"
prefer = ["original", "axial", { kernel = "^Br[34]" }, { slice_distance = 1.5 }, "coverage"]
"#;

/// Reconstructions of one chest, and which one is the best: number 3, and 6 with contrast.
fn chest() -> Vec<Header> {
    vec![
        Header { series: 1, kernel: "Bl60", distance: 1.5, ..Default::default() },
        Header { series: 2, distance: 5.0, slices: 40, ..Default::default() },
        Header { series: 3, distance: 2.0, ..Default::default() },
        Header { series: 4, image_type: "DERIVED\\PRIMARY\\AXIAL", distance: 1.5, ..Default::default() },
        Header { series: 5, normal: 'y', distance: 1.5, ..Default::default() },
        Header { series: 6, contrast: "Iomeprol", distance: 5.0, ..Default::default() },
        Header { series: 7, study: 2, ..Default::default() },
        Header { series: 8, phase: Some(2), distance: 4.0, ..Default::default() },
    ]
}

#[test]
fn one_result_a_study_and_the_losers_know_the_winner() {
    let found = verdicts(&rules(CHEST), &chest());
    let lost = "not best but 3";
    assert_eq!(found, [lost, lost, "chest 3", lost, lost, "chest 6", "chest 7", "chest 8"]);
    let all: Vec<Series> = chest().into_iter().map(Header::series).collect();
    let all: Vec<&Series> = all.iter().collect();
    let lost = select(&rules(CHEST), &all)[0].refusal(&rules(CHEST), &all).expect("refused");
    assert!(lost.code == Code::SelectNotBest && lost.detail.contains("series 3 (") && !lost.detail.contains("2.25"), "{}", lost.detail);
    // Nothing that is out of the model's scope is the best.
    let mut scoped = rules(CHEST);
    scoped[0].model = Some(scope(Scope { slice_distance: Some([3.0, 6.0]), ..Scope::default() }));
    assert_eq!(
        verdicts(&scoped, &chest()[..4]),
        ["out_of_scope scope.spacing", "chest 2", "out_of_scope scope.spacing", "out_of_scope scope.spacing"]
    );
    // The usual preferences: nearest to the model's 3 mm.
    let usual = rules("[[select]]\nname = \"one\"\nper_study = \"best\"");
    assert_eq!(verdicts(&usual, &chest()[..3]), ["not best but 3", "not best but 3", "one 3"]);
    // A lung kernel loses against an unknown one, that against one for soft tissue, whatever the distances.
    let kernels = ["Bl57", "NONE", "Br40"].into_iter().zip([3.0, 4.0, 5.0]).zip(1..);
    let kernels: Vec<Header> =
        kernels.map(|((kernel, distance), series)| Header { series, kernel, distance, ..Default::default() }).collect();
    assert_eq!(verdicts(&usual, &kernels), ["not best but 3", "not best but 3", "one 3"]);
    assert_eq!(verdicts(&usual, &kernels[..2]), ["not best but 2", "one 2"]);
    assert!(needs_study(&usual, all[0]) && !needs_study(&rules(THIN), all[0]));
}

/// Two scans of a study, arterial and venous, each with two reconstructions; whatever tells them apart, each scan has its result.
#[test]
fn scans_of_a_study_do_not_compete() {
    let rules = rules("[[select]]\nname = \"one\"\nper_study = \"best\"");
    let base = |series| Header { series, contrast: "Iomeprol", distance: 3.0, ..Default::default() };
    let sharp = |header: Header| Header { series: header.series + 1, kernel: "Bl57", ..header };
    let of = |first: Header, second: Header| vec![first.clone(), sharp(first), second.clone(), sharp(second)];
    let each = ["one 1", "not best but 1", "one 3", "not best but 3"];
    let (arterial, venous) = (base(1), base(3));
    let cases = [
        // What the scanner says goes before what a clock says.
        of(
            Header { events: &["1.1"], times: Some((0.0, 6.0)), ..arterial.clone() },
            Header { events: &["1.2"], times: Some((5.0, 9.0)), ..venous.clone() },
        ),
        of(Header { events: &["1.1", "1.3"], ..arterial.clone() }, Header { events: &["1.2"], ..venous.clone() }),
        of(
            Header { times: Some((0.0, 6.0)), acquisition: Some(1), ..arterial.clone() },
            Header { times: Some((30.0, 38.0)), acquisition: Some(1), ..venous.clone() },
        ),
        of(Header { acquisition: Some(1), ..arterial.clone() }, Header { acquisition: Some(2), ..venous.clone() }),
        of(
            Header { description: "Abd arteriell 3.0", ..arterial.clone() },
            Header { description: "Abd portal-venous 3.0", ..venous.clone() },
        ),
    ];
    for headers in cases {
        assert_eq!(verdicts(&rules, &headers), each, "{:?}", headers[0].events);
    }
    // One scan: its start for all slices in one reconstruction, its times in another, and the next scan.
    let one = [
        Header { times: Some((0.0, 0.0)), ..base(1) },
        Header { times: Some((0.0, 6.0)), kernel: "Bl57", ..base(2) },
        Header { times: Some((20.0, 26.0)), ..base(3) },
        // Without the event that another one of the same time names.
        Header { times: Some((1.0, 2.0)), kernel: "Bl57", events: &["1.1"], ..base(4) },
    ];
    assert_eq!(verdicts(&rules, &one), ["one 1", "not best but 1", "one 3", "not best but 1"]);
    // What fits two events belongs to neither of them, and makes them no single one.
    let between = [
        Header { times: Some((0.0, 6.0)), events: &["1.1"], ..base(1) },
        Header { times: Some((6.5, 9.0)), events: &["1.2"], ..base(2) },
        Header { times: Some((0.0, 9.0)), ..base(3) },
    ];
    assert_eq!(verdicts(&rules, &between), ["one 1", "one 2", "one 3"]);
    // Nothing at all tells them apart.
    assert_eq!(verdicts(&rules, &[base(1), base(2)]), ["one 1", "not best but 1"]);
}

fn scope(scope: Scope) -> Arc<Generation> {
    let mut model = (*model("demo")).clone();
    model.manifest.scope = scope;
    Arc::new(model)
}

fn contrast(wanted: bool, on_unknown: OnUnknown) -> Scope {
    Scope { contrast: Some(wanted), on_unknown, ..Scope::default() }
}

fn fdg(on_unknown: OnUnknown) -> Scope {
    let codes = ["SCT:35321007", "SRT:C-B1031"].map(str::to_owned).to_vec();
    Scope { modality: vec!["PT".into()], radiopharmaceutical: codes, on_unknown, ..Scope::default() }
}

#[test]
fn the_scope_of_a_model_refuses_by_name_and_flags_what_is_not_known() {
    let base = Header::default;
    let cases = [
        (Scope::default(), Header { age: Some(17.9), ..base() }, Err(Code::ScopeAge)),
        (Scope { max_age: Some(80.0), ..Scope::default() }, Header { age: Some(81.0), ..base() }, Err(Code::ScopeAge)),
        (Scope::default(), Header { age: None, ..base() }, Ok(vec!["age_unknown"])),
        (Scope { on_unknown: OnUnknown::Refuse, ..Scope::default() }, Header { age: None, ..base() }, Err(Code::ScopeAge)),
        (Scope { slice_distance: Some([0.5, 1.5]), ..Scope::default() }, base(), Err(Code::ScopeSpacing)),
        (Scope { slice_distance: Some([2.0, 2.0]), pixel_spacing: Some([0.5, 0.8]), ..Scope::default() }, base(), Ok(vec![])),
        (Scope { pixel_spacing: Some([0.9, 2.0]), ..Scope::default() }, base(), Err(Code::ScopeSpacing)),
        (Scope { min_coverage: Some(200.0), ..Scope::default() }, base(), Ok(vec![])),
        (Scope { min_coverage: Some(201.0), ..Scope::default() }, base(), Err(Code::ScopeCoverage)),
        (Scope { body_part: vec!["CHEST".into()], ..Scope::default() }, Header { body_part: "chest ", ..base() }, Ok(vec![])),
        (
            Scope { body_part: vec!["CHEST".into()], ..Scope::default() },
            Header { body_part: "HEAD", ..base() },
            Ok(vec!["anatomy_unknown"]),
        ),
        (
            Scope { body_part: vec!["CHEST".into()], on_unknown: OnUnknown::Refuse, ..Scope::default() },
            Header { body_part: "", ..base() },
            Err(Code::ScopeAnatomy),
        ),
        (Scope { modality: vec!["PT".into()], ..Scope::default() }, base(), Err(Code::ScopeModality)),
        (Scope::default(), Header { description: "Head CBCT 0.4", ..base() }, Err(Code::ScopeDevice)),
        (Scope { exclude_device: vec![], ..Scope::default() }, Header { description: "Head CBCT 0.4", ..base() }, Ok(vec![])),
        (contrast(true, OnUnknown::Flag), Header { contrast: "Iomeprol", ..base() }, Ok(vec![])),
        (contrast(true, OnUnknown::Flag), base(), Ok(vec!["contrast_unknown"])),
        (contrast(true, OnUnknown::Refuse), base(), Err(Code::ScopeContrast)),
        (contrast(false, OnUnknown::Flag), Header { contrast: "Iomeprol", ..base() }, Err(Code::ScopeContrast)),
        (contrast(false, OnUnknown::Flag), base(), Ok(vec!["contrast_unknown"])),
        (fdg(OnUnknown::Flag), Header { tracer: "SRT:C-B1031", ..pet(1) }, Ok(vec![])),
        (fdg(OnUnknown::Flag), Header { tracer: "SCT:456995008", ..pet(1) }, Err(Code::ScopeRadiopharmaceutical)),
        (fdg(OnUnknown::Flag), pet(1), Ok(vec!["radiopharmaceutical_unknown"])),
        (fdg(OnUnknown::Refuse), pet(1), Err(Code::ScopeRadiopharmaceutical)),
    ];
    for (i, (limits, header, expected)) in cases.into_iter().enumerate() {
        let rules = [Rule::all(scope(limits))];
        let series = header.series();
        let verdict = select(&rules, &[&series]).remove(0);
        let found = match (&verdict, verdict.refusal(&rules, &[&series])) {
            (Verdict::Selected { flags, .. }, None) => Ok(flags.clone()),
            (_, refusal) => Err(refusal.expect("refused").code),
        };
        assert_eq!(found, expected, "case {i}");
    }
}

fn pet(series: u32) -> Header {
    Header { series, modality: "PT", distance: 4.0, slices: 50, ..Default::default() }
}

#[test]
fn pet_and_ct_are_brought_together() {
    let both = "[[select]]\nname = \"petct\"\nmodel = \"pair\"\n[[select]]\nname = \"ct\"\nslices = { min = 100 }";
    let turned = "[[select]]\nname = \"petct\"\nmodel = \"turned\"";
    let ct = Header::default;
    let short = || Header { slices: 40, ..ct() };
    let cases: Vec<(&str, Vec<Header>, &[&str])> = vec![
        (both, vec![ct(), pet(2)], &["petct 1+2", "with 1"]),
        // Without a PET the next rule matches, or it is refused by name.
        (both, vec![ct()], &["ct 1"]),
        (both, vec![short()], &["no_rule select.no_partner"]),
        (both, vec![pet(2)], &["no_rule select.no_partner"]),
        (turned, vec![ct(), pet(2)], &["with 2", "petct 1+2"]),
        (turned, vec![ct()], &["no_rule select.no_partner"]),
        // Another study, elsewhere in the body, projections: no partner.
        (turned, vec![ct(), Header { study: 2, ..pet(2) }], &["no_rule select.no_partner"; 2]),
        (turned, vec![ct(), Header { height: 500.0, ..pet(2) }], &["no_rule select.no_partner"; 2]),
        // The one that covers more; of equal ones the first by its UID; every PET leads to a result.
        (turned, vec![short(), Header { series: 3, ..ct() }, pet(2)], &["no_rule select.no_partner", "with 2", "petct 3+2"]),
        (turned, vec![Header { series: 3, ..ct() }, ct(), pet(2)], &["no_rule select.no_partner", "with 2", "petct 1+2"]),
        (turned, vec![ct(), pet(2), pet(4)], &["with 2", "petct 1+2", "petct 1+4"]),
    ];
    for (text, headers, expected) in cases {
        assert_eq!(verdicts(&rules(text), &headers), expected, "{text}");
    }
    let ignored = "[[select]]\nname = \"no\"\nignore = true\ndescription = \"NAC\"\n".to_owned() + turned;
    let nac = Header { series: 3, description: "NAC", ..ct() };
    assert_eq!(verdicts(&rules(&ignored), &[nac, pet(2)]), ["ignored select.ignored", "no_rule select.no_partner"]);
    let best = turned.to_owned() + "\nper_study = \"best\"\nprefer = [\"slices\"]";
    let (few, many) = (pet(2), Header { slices: 60, ..pet(4) });
    assert_eq!(verdicts(&rules(&best), &[ct(), few, many]), ["with 4", "not best but 4", "petct 1+4"]);
}

proptest! {
    /// Verdicts are about series, not about places in a list.
    #[test]
    fn the_order_of_arrival_changes_nothing(
        shuffled in Just((0..12usize).collect::<Vec<_>>()).prop_shuffle(),
        text in prop::sample::select(vec![CHEST, THIN, "[[select]]\nname = \"p\"\nmodel = \"pair\"", "[[select]]\nname = \"p\"\nmodel = \"turned\"\nper_study = \"best\""]),
    ) {
        let mut headers = chest();
        headers.extend([pet(20), pet(21), Header { study: 2, ..pet(22) }, Header { distance: 3.0, ..pet(23) }]);
        let rules = rules(text);
        let straight = verdicts(&rules, &headers);
        let turned: Vec<Header> = shuffled.iter().map(|&i| headers[i].clone()).collect();
        let found = verdicts(&rules, &turned);
        for (place, &i) in shuffled.iter().enumerate() {
            prop_assert_eq!(&found[place], &straight[i]);
        }
    }
}

/// Scouts, secondary captures, uncorrected PET, our own and other people's segmentations: a rule that asks for everything gets none.
#[test]
fn what_is_no_source_image_is_never_selected() {
    let cases = need!(cases(), "no generated cases");
    let decoder = decoder();
    let rules = rules("[[select]]\nname = \"everything\"\n[[select]]\nname = \"pairs\"\nmodel = \"pair\"");
    for name in ["mix_localizer", "mix_derived_objects", "mix_own_output", "pet_nac"] {
        let case = cases_manifest(cases).into_iter().find(|case| case["name"] == name).expect("case");
        let uid = |volume: &serde_json::Value| volume["series_instance_uid"].as_str().expect("uid").to_owned();
        let wanted: Vec<String> = case["expect"]["volumes"].as_array().expect("volumes").iter().map(uid).collect();
        let series = grouped(&cases.join(name), &Policy::default(), &decoder).series;
        let all: Vec<&Series> = series.iter().collect();
        let selected = select(&rules, &all).into_iter().zip(&all).filter(|(v, _)| matches!(v, Verdict::Selected { .. }));
        let selected: Vec<String> = selected.map(|(_, s)| s.series_uid.to_string()).collect();
        let images = selected.iter().all(|uid| wanted.contains(uid));
        assert!(images && (selected.len() == wanted.len() || name == "pet_nac"), "{name}: {selected:?}, not {wanted:?}");
    }
}

/// A real scanner codes its tracer by a scheme of its own.
#[test]
fn the_tracer_of_a_real_pet_is_known_by_its_code() {
    let pet = need!(data("petct_sts001/PT"), "shared data is not there");
    let series = grouped(&pet, &Policy::default(), &decoder()).series;
    assert_eq!(series[0].selection.radiopharmaceutical, "99SDM:Y-X1743");
    let verdict = |codes: &[&str]| {
        let radiopharmaceutical = codes.iter().map(|&c| c.to_owned()).collect();
        let limits = Scope { modality: vec!["PT".into()], radiopharmaceutical, min_age: 0.0, ..Scope::default() };
        select(&[Rule::all(scope(limits))], &[&series[0]]).remove(0)
    };
    assert!(matches!(verdict(&["SCT:35321007", "99SDM:Y-X1743"]), Verdict::Selected { .. }));
    assert!(matches!(verdict(&["SCT:35321007"]), Verdict::Outside { .. }));
}
