//! The gates: a candidate that is worse anywhere is refused, and one that is better somewhere and worse nowhere is not.

use proptest::prelude::*;
use std::collections::BTreeMap;
use stunetd::training::data::Random;
use stunetd::training::gates::{
    ChangePlan, Conditions, Emptiness, Evaluation, Facts, Gate, Limits, Mode, Patient, Perturbation, Picture, PlanClass, Score, Technical,
    Verdict, dice, judge, mean_difference, read_signed, report, surface_dice, write_signed,
};

fn plan() -> ChangePlan {
    let classes = vec![PlanClass { value: 1, target: true, critical: false }, PlanClass { value: 2, target: false, critical: true }];
    ChangePlan { schema: 1, name: "test".into(), demonstration: false, limits: Limits::default(), classes, ..shipped() }
}

/// The plan that is shipped.
fn shipped() -> ChangePlan {
    ChangePlan::read(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/change-plan.toml")).expect("plan")
}

/// A run in which nothing is wrong.
fn facts() -> Facts {
    Facts {
        plan: "c".repeat(64),
        plan_unchanged: true,
        plan_writable: false,
        plan_covers: true,
        cases: [30, 24],
        unsigned: vec![],
        on_both_sides: vec![],
        locked: "d".repeat(64),
        openings: 4,
        teaching_targets: vec![],
        from_base: true,
        rehearsal: (50, 0.5),
        research: true,
        audit_whole: true,
    }
}

/// 24 patients with three classes; class 1 gains 0.03, the others stay, all with a little noise.
fn good() -> Evaluation {
    let mut random = Random::new(4, 4);
    let patients = (0..24)
        .map(|i| {
            let mut score = |gain: f64| {
                let old = random.between(0.85, 0.95);
                let new = old + gain + random.between(-0.004, 0.004);
                [Score { dice: old, surface_dice: old }, Score { dice: new, surface_dice: new }]
            };
            Patient {
                id: format!("p{i}"),
                subgroups: BTreeMap::from([("vendor".to_string(), if i < 22 { "A" } else { "B" }.to_string())]),
                scores: BTreeMap::from([(1, score(0.03)), (2, score(0.0)), (3, score(0.0))]),
                absent: Default::default(),
                components: BTreeMap::from([(1, [1, 1]), (3, [2, 2])]),
            }
        })
        .collect();
    Evaluation {
        serving: "a".repeat(64),
        candidate: "b".repeat(64),
        patients,
        agreement: BTreeMap::from([(4, vec![0.995; 20])]),
        perturbations: vec![Perturbation { name: "noise".into(), differences: vec![0.001, -0.002, 0.0, 0.003] }],
        empty: vec![Emptiness { name: "air".into(), voxels: [0, 0] }],
        technical: Technical { finite: true, same_signature: true, repeatable: true, seconds: [10.0, 10.2], bytes: [1000, 1010] },
        facts: Some(facts()),
    }
}

fn verdict(change: impl FnOnce(&mut Evaluation, &mut ChangePlan)) -> Verdict {
    let (mut evaluation, mut plan) = (good(), plan());
    change(&mut evaluation, &mut plan);
    judge(&evaluation, &[1, 2, 3, 4], &plan)
}

fn refused_by(verdict: &Verdict) -> Vec<Gate> {
    verdict.gates.iter().filter(|outcome| !outcome.passed).map(|outcome| outcome.gate).collect()
}

#[test]
fn better_somewhere_and_worse_nowhere_passes() {
    let verdict = verdict(|_, _| {});
    assert!(verdict.passed && verdict.not_assessable == [4], "{verdict:#?}");
    let json = serde_json::to_value(&verdict).expect("json");
    assert_eq!(json["gates"].as_array().map(Vec::len), Some(13));
    // Every gate of the plan is judged, or is said to be judged elsewhere.
    let mut named: Vec<Gate> = verdict.gates.iter().map(|o| o.gate).chain(verdict.elsewhere.iter().map(|e| e.0)).collect();
    named.sort_unstable();
    assert_eq!(named.len(), 19);
    assert!(named.windows(2).all(|pair| pair[0] < pair[1]), "{named:?}");
    let mut without = good();
    without.facts = None;
    let verdict = judge(&without, &[1, 2, 3, 4], &plan());
    assert_eq!((verdict.gates.len(), verdict.elsewhere.len()), (6, 13));
}

#[test]
fn each_way_of_being_worse_is_refused_by_its_gate() {
    type Change = fn(&mut Evaluation, &mut ChangePlan);
    fn shift(evaluation: &mut Evaluation, label: u16, by: f64, patients: usize) {
        for patient in evaluation.patients.iter_mut().take(patients) {
            patient.scores.get_mut(&label).expect("score")[1].dice += by;
        }
    }
    fn run(evaluation: &mut Evaluation) -> &mut Facts {
        evaluation.facts.as_mut().expect("facts")
    }
    let cases: &[(&str, Gate, Change)] = &[
        ("a class loses a little everywhere", Gate::G6, |e, _| shift(e, 3, -0.015, 24)),
        ("a critical class loses less than others may", Gate::G6, |e, _| shift(e, 2, -0.0075, 24)),
        ("one patient loses much", Gate::G6, |e, _| shift(e, 3, -0.12, 1)),
        ("the surface gets worse", Gate::G6, |e, _| {
            e.patients.iter_mut().for_each(|p| p.scores.get_mut(&3).expect("score")[1].surface_dice -= 0.03)
        }),
        ("a score is no number", Gate::G6, |e, _| e.patients[5].scores.get_mut(&3).expect("score")[1].dice = f64::NAN),
        ("nothing is better", Gate::G7, |e, _| shift(e, 1, -0.03, 24)),
        ("there is no target", Gate::G7, |_, p| p.classes.clear()),
        ("a subgroup loses", Gate::G8, |e, p| {
            p.limits.subgroup_patients = 2;
            e.patients.iter_mut().skip(22).for_each(|patient| patient.scores.values_mut().for_each(|s| s[1].dice -= 0.05));
        }),
        ("noise", Gate::G9, |e, _| e.perturbations[0].differences.iter_mut().for_each(|d| *d -= 0.05)),
        ("no changed input was tried", Gate::G9, |e, _| e.perturbations.clear()),
        ("something is found in air", Gate::G9, |e, _| e.empty[0].voxels[1] = 5),
        ("it falls to pieces", Gate::G9, |e, _| e.patients.iter_mut().for_each(|p| p.components.get_mut(&3).expect("count")[1] = 9)),
        ("an unassessable class changes", Gate::G3, |e, _| e.agreement.get_mut(&4).expect("dice")[3] = 0.94),
        ("an unassessable class was compared too seldom", Gate::G3, |e, _| e.agreement.get_mut(&4).expect("dice").truncate(19)),
        ("an unassessable class was not compared", Gate::G3, |e, _| e.agreement.clear()),
        ("an agreement is no number", Gate::G3, |e, _| e.agreement.get_mut(&4).expect("dice")[3] = f64::NAN),
        ("a target can not be assessed", Gate::G3, |e, _| {
            e.agreement.insert(1, vec![1.0; 30]);
            e.patients.iter_mut().skip(10).for_each(|p| p.scores.retain(|label, _| *label != 1));
        }),
        ("the plan was changed", Gate::G0, |e, _| run(e).plan_unchanged = false),
        ("the plan is the daemon's own", Gate::G0, |e, _| run(e).plan_writable = true),
        ("the plan is for another model", Gate::G0, |e, _| run(e).plan_covers = false),
        ("a case was not signed", Gate::G1, |e, _| run(e).unsigned.push("x".into())),
        ("a person is on both sides", Gate::G2, |e, _| run(e).on_both_sides.push("x".into())),
        ("one opening too many", Gate::G3, |e, _| run(e).openings = 5),
        ("rehearsal teaches a target", Gate::G4, |e, _| run(e).teaching_targets.push("x".into())),
        ("it started from a candidate", Gate::G5, |e, _| run(e).from_base = false),
        ("too little was rehearsed", Gate::G5, |e, _| run(e).rehearsal.0 = 49),
        ("the candidate calls itself approved", Gate::G15, |e, _| run(e).research = false),
        ("the audit was touched", Gate::G18, |e, _| run(e).audit_whole = false),
        ("patients without the class do not make it assessable", Gate::G3, |e, _| {
            e.agreement.insert(3, vec![1.0; 19]);
            e.patients.iter_mut().skip(10).for_each(|p| p.absent.extend([3]));
        }),
        ("slower", Gate::G10, |e, _| e.technical.seconds[1] = 10.6),
        ("larger", Gate::G10, |e, _| e.technical.bytes[1] = 1021),
        ("a weight is infinite", Gate::G10, |e, _| e.technical.finite = false),
        ("another signature", Gate::G10, |e, _| e.technical.same_signature = false),
        ("not repeatable", Gate::G10, |e, _| e.technical.repeatable = false),
        ("a time that was not taken", Gate::G10, |e, _| e.technical.seconds = [0.0, 0.0]),
    ];
    for (what, gate, change) in cases {
        let verdict = verdict(change);
        assert!(!verdict.passed && refused_by(&verdict).contains(gate), "{what}: {:?}", refused_by(&verdict));
    }
}

#[test]
fn the_same_evaluation_gives_the_same_verdict() {
    assert_eq!(verdict(|_, _| {}), verdict(|_, _| {}));
}

#[test]
fn shuffled_labels_are_refused() {
    // A candidate whose scores have nothing to do with the cases.
    let mut random = Random::new(9, 9);
    let verdict = verdict(|e, _| {
        e.patients.iter_mut().for_each(|p| p.scores.values_mut().for_each(|s| s[1].dice = random.between(0.0, 0.3)));
    });
    assert!(refused_by(&verdict).contains(&Gate::G6) && refused_by(&verdict).contains(&Gate::G7));
}

#[test]
fn bounds_cover_what_they_promise() {
    // A known truth, drawn again and again: the lower bound lies above it about as often as the error says.
    let (mut above, rounds) = (0, 400);
    for round in 0..rounds {
        let mut random = Random::new(77, round);
        let differences: Vec<f64> = (0..40).map(|_| 0.01 + 0.02 * random.normal()).collect();
        let bounds = mean_difference(&differences, 1000, 0.05, round).expect("bounds");
        assert!(bounds.lower <= bounds.mean && bounds.mean <= bounds.upper && bounds.pairs == 40);
        above += usize::from(bounds.lower > 0.01);
    }
    assert!((8..=40).contains(&above), "{above} of {rounds}, 20 expected");
    assert!(mean_difference(&[], 1000, 0.05, 0).is_none() && mean_difference(&[f64::NAN], 1000, 0.05, 0).is_none());
    let same = mean_difference(&[0.5; 7], 1000, 0.05, 0).expect("bounds");
    assert_eq!((same.mean, same.lower, same.upper), (0.5, 0.5, 0.5));
}

#[test]
fn the_shipped_plan_is_the_default_and_weaker_ones_have_to_say_so() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/change-plan.toml");
    let shipped = ChangePlan::read(&path).expect("plan");
    assert_eq!((shipped.limits, shipped.demonstration, shipped.classes.len()), (Limits::default(), false, 0));
    assert_eq!((shipped.conditions, shipped.recipe, shipped.mode), (Conditions::default(), Default::default(), Mode::Manual));
    assert!(shipped.covers(&["any"]));
    let folder = tempfile::tempdir().expect("folder");
    let text = std::fs::read_to_string(&path).expect("text");
    let read = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let path = folder.path().join("plan.toml");
        std::fs::write(&path, text.replace(from, to)).expect("write");
        ChangePlan::read(&path)
    };
    for (from, to) in [
        ("min_patients = 20", "min_patients = 2"),
        ("dice = -0.01", "dice = -0.5"),
        ("dice = -0.01", "dice = 0.5"),
        ("error = 0.05", "error = nan"),
        ("error = 0.05", "error = 0.0"),
        ("resamples = 10000", "resamples = 1"),
        ("schema = 1", "schema = 2"),
        ("slower = 0.05", "slower = 0.05\nfaster = 1"),
        ("patient_loss = 0.1\n", ""),
        ("training_patients = 20", "training_patients = 2"),
        ("rehearsal_studies = 50", "rehearsal_studies = 49"),
        ("openings = 4", "openings = 5"),
        ("mode = \"manual\"", "mode = \"auto\""),
        ("models = []", "models = [\"\"]"),
        ("learning_rate = 0.001", "learning_rate = 0.0"),
        ("rehearsal_share = 0.5", "rehearsal_share = 0.0"),
    ] {
        assert!(read(from, to).is_err(), "{to:?}");
    }
    let small = read("demonstration = false", "demonstration = true").expect("plan");
    assert!(small.demonstration);
    std::fs::write(
        folder.path().join("small.toml"),
        text.replace("demonstration = false", "demonstration = true").replace("min_patients = 20", "min_patients = 2"),
    )
    .expect("write");
    assert_eq!(ChangePlan::read(&folder.path().join("small.toml")).expect("plan").limits.min_patients, 2);
}

#[test]
fn surface_dice_of_known_bodies() {
    let shape = [12, 14, 16];
    let block = |start: [usize; 3], size: [usize; 3]| -> Vec<u16> {
        (0..12 * 14 * 16)
            .map(|i| {
                let at = [i / (14 * 16), i / 16 % 14, i % 16];
                u16::from((0..3).all(|a| (start[a]..start[a] + size[a]).contains(&at[a]))) * 3
            })
            .collect()
    };
    let (a, shifted) = (block([2, 3, 4], [5, 5, 5]), block([2, 3, 5], [5, 5, 5]));
    let spacing = [2.0, 1.0, 1.5];
    assert_eq!((dice(&a, &a, 3), surface_dice(&a, &a, shape, spacing, 3, 0.0)), (Some(1.0), Some(1.0)));
    assert_eq!((dice(&a, &a, 4), surface_dice(&a, &a, shape, spacing, 4, 1.0)), (None, None));
    assert_eq!(dice(&a, &shifted, 3), Some(0.8));
    assert_eq!(surface_dice(&a, &vec![0; a.len()], shape, spacing, 3, 5.0), Some(0.0));
    // One voxel of 1.5 mm along x: everything is within 1.5 mm, and only part of it within 1.4 mm.
    assert_eq!(surface_dice(&a, &shifted, shape, spacing, 3, 1.5), Some(1.0));
    assert!(surface_dice(&a, &shifted, shape, spacing, 3, 1.4).expect("value") < 1.0);
}

/// The definition, voxel against voxel.
fn plain_surface_dice(a: &[u16], b: &[u16], shape: [usize; 3], spacing: [f64; 3], tolerance: f64) -> Option<f64> {
    let at = |i: usize| [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
    let surface = |labels: &[u16]| -> Vec<[usize; 3]> {
        let inside = |at: [i64; 3]| {
            (0..3).all(|a| (0..shape[a] as i64).contains(&at[a]))
                && labels[(at[0] as usize * shape[1] + at[1] as usize) * shape[2] + at[2] as usize] == 1
        };
        (0..labels.len())
            .map(at)
            .filter(|p| {
                let p = p.map(|v| v as i64);
                inside(p)
                    && (0..6).any(|k| {
                        let mut beside = p;
                        beside[k / 2] += if k % 2 == 0 { 1 } else { -1 };
                        !inside(beside)
                    })
            })
            .collect()
    };
    let (a, b) = (surface(a), surface(b));
    let distance = |p: &[usize; 3], q: &[usize; 3]| (0..3).map(|k| ((p[k] as f64 - q[k] as f64) * spacing[k]).powi(2)).sum::<f64>().sqrt();
    let near =
        |from: &[[usize; 3]], to: &[[usize; 3]]| from.iter().filter(|p| to.iter().any(|q| distance(p, q) <= tolerance + 1e-9)).count();
    (!a.is_empty() || !b.is_empty()).then(|| (near(&a, &b) + near(&b, &a)) as f64 / (a.len() + b.len()) as f64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn surface_dice_is_its_definition(
        shape in proptest::array::uniform3(1usize..7), spacing in proptest::array::uniform3(0.5f64..3.0), tolerance in 0.0f64..4.0, seed in any::<u64>(),
    ) {
        let mut random = Random::new(seed, 1);
        let mut labels = || -> Vec<u16> { (0..shape.iter().product::<usize>()).map(|_| u16::from(random.chance(0.4))).collect() };
        let (a, b) = (labels(), labels());
        let (ours, plain) = (surface_dice(&a, &b, shape, spacing, 1, tolerance), plain_surface_dice(&a, &b, shape, spacing, tolerance));
        prop_assert_eq!(ours.is_some(), plain.is_some());
        if let (Some(ours), Some(plain)) = (ours, plain) {
            prop_assert!((ours - plain).abs() < 1e-12, "{} {}", ours, plain);
        }
    }
}

#[test]
fn the_report_says_what_was_found_and_escapes_names() {
    let names = BTreeMap::from([(1, "liver".to_string()), (3, "<script>alert(1)</script>".to_string())]);
    let (mut evaluation, plan) = (good(), plan());
    evaluation.patients.iter_mut().for_each(|p| p.scores.get_mut(&3).expect("score")[1].dice -= 0.2);
    let verdict = judge(&evaluation, &[1, 2, 3, 4], &plan);
    let pictures = [Picture { patient: "p1".into(), class: 3, dice: [0.9, 0.7], png: "QUJD\"><script>".into() }];
    let [json, html] = report(&verdict, &evaluation, &plan, &names, &pictures).expect("report");
    assert_eq!(
        report(&verdict, &evaluation, &plan, &names, &pictures).expect("report"),
        [json.clone(), html.clone()],
        "the same bytes again"
    );
    let document: serde_json::Value = serde_json::from_str(&json).expect("json");
    let digest = document["digest"].as_str().expect("digest");
    assert!(digest.len() == 64 && html.contains(digest) && html.contains("refused") && html.contains("liver (1)"));
    assert!(html.contains("&lt;script&gt;") && !html.contains("<script"), "names are text");
    assert_eq!(document["verdict"]["passed"], false);
    assert!(html.contains("base64,QUJDscript\"") && html.contains("0.900 → 0.700") && html.matches("<circle").count() > 24);
    // Signed, read back, changed.
    let folder = tempfile::tempdir().expect("folder");
    write_signed(folder.path(), b"secret", &json, &html).expect("written");
    assert_eq!(read_signed(folder.path(), b"secret").expect("whole"), document);
    assert_eq!(read_signed(folder.path(), b"another").expect_err("another's").code.name(), "training.report_changed");
    std::fs::write(folder.path().join("report.json"), json.replace("\"passed\": false", "\"passed\": true")).expect("changed");
    assert_eq!(read_signed(folder.path(), b"secret").expect_err("changed").code.name(), "training.report_changed");
    // Another score, another digest.
    evaluation.patients[0].scores.get_mut(&1).expect("score")[1].dice += 1e-9;
    let [other, _] = report(&judge(&evaluation, &[1, 2, 3, 4], &plan), &evaluation, &plan, &names, &pictures).expect("report");
    assert!(!other.contains(digest));
}
