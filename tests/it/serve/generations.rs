//! Generations that come into service and go out of it while the daemon works: no job is lost, none is done by two models.

use super::daemon::{Daemon, World};
use super::scripted::Act;
use crate::support::ct::Ct;
use std::path::Path;
use std::sync::Arc;
use stunetd::config;
use stunetd::fault::{Code, Fault};
use stunetd::ledger::{AuditEvent, Event, Job, JobId, Reader, SqliteReader, State, Which};
use stunetd::models::{Approval, Generation, Lineage, Manifest, Status, Store};
use stunetd::pipeline::control::{Command, ask, ask_models};
use stunetd::pipeline::promotion::ModelCommand;
use stunetd::sys::clock::SystemClock;

fn demo() -> Generation {
    Generation::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")).expect("the demo model")
}

/// The demo model under another name, in the world's store.
fn generation(world: &World, name: &str) -> Generation {
    let demo = demo();
    let lineage = Lineage { slot: demo.digest.clone(), ..Lineage::default() };
    let manifest = Manifest { name: name.into(), ..demo.manifest.clone() };
    Store::of(&world.state()).publish(manifest, &demo.weights(), &lineage).expect("published")
}

fn tell(world: &World, command: ModelCommand) -> Result<String, Fault> {
    ask_models(&world.state(), &command).map(|answer| answer.expect("a daemon runs"))
}

fn activate(world: &World, generation: &str) -> Result<String, Fault> {
    let (slot, generation, by, reason) = (demo().digest, generation.into(), "Dr. Ada".into(), "it is better".into());
    tell(world, ModelCommand::Activate { slot, generation, by, reason })
}

fn roll_back(world: &World) -> Result<String, Fault> {
    tell(world, ModelCommand::Rollback { slot: demo().digest, by: "Dr. Ada".into(), reason: "it is worse".into() })
}

fn ledger(world: &World) -> SqliteReader {
    SqliteReader::open(&world.state(), Arc::new(SystemClock)).expect("readable").expect("there")
}

fn jobs(world: &World) -> Vec<Job> {
    ledger(world).jobs(&Which::default()).expect("read")
}

/// The model of each job's result, in the order of the jobs. Ledger, manifest and object name the same one.
fn models(world: &World) -> Vec<String> {
    let one = |job: Job| {
        let folder = job.result.unwrap_or_else(|| panic!("job {} has a result: {:?}", job.id, job.progress)).folder;
        let model = world.manifest(&folder).model;
        assert_eq!(job.model.as_ref(), Some(&model.digest), "job {}", job.id);
        let object = std::fs::read(world.output().join(&folder).join("seg.dcm")).expect("object");
        assert!(object.windows(model.name.len()).any(|bytes| bytes == model.name.as_bytes()), "the object names its model");
        model.name
    };
    jobs(world).into_iter().map(one).collect()
}

#[test]
fn a_job_that_was_put_back_while_its_work_hung_ends_by_its_new_claim_alone() {
    let world = World::new();
    let go = world.engine.next_hangs();
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.passes("the engine works", || world.engine.calls() == 1);
    ask(&world.state(), Command::Cancel { job: 1 }).expect("carried out");
    ask(&world.state(), Command::Retry { job: 1 }).expect("carried out");
    daemon.passes("it is claimed again", || jobs(&world)[0].progress.attempts == 2);
    // The first claim's work comes to its end while the second one's waits for the device.
    go.send(()).expect("the engine hangs");
    daemon.passes("it is done", || jobs(&world)[0].progress.state == State::Done);
    daemon.shows("stunetd_jobs_ended_total{result=\"abandoned\"}", 1.0);
    assert_eq!((world.engine.calls(), world.results().len()), (2, 1));
    daemon.end().expect("a clean end");
    assert_eq!(jobs(&world)[0].progress.crashes, 0);
}

#[test]
fn every_job_is_done_by_one_model_across_activation_and_rollback() {
    let world = World::new();
    let better = generation(&world, "better");
    let go = world.engine.next_waits();
    let daemon = Daemon::start(&world);
    (1..=8).for_each(|number| Ct::new(number, 4).write(&world.incoming()));
    daemon.passes("the engine works", || world.engine.calls() == 1);
    assert_eq!(activate(&world, &better.digest).expect("activated"), better.digest);
    daemon.shows("stunetd_model_promotions_total", 1.0);
    let serving = |daemon: &Daemon, model: &Generation| {
        let (name, version, digest) = model.names();
        daemon.metric(&format!(
            "stunetd_model_info{{digest12=\"{}\",model=\"{name}\",role=\"production\",version=\"{version}\"}}",
            &digest[..12]
        ))
    };
    assert_eq!(serving(&daemon, &better), 1.0);
    go.send(()).expect("the engine waits");
    daemon.passes("all are done", || world.results().len() == 8 && jobs(&world).iter().all(|job| job.progress.state == State::Done));
    // Who was claimed before ends with the model of then; who was claimed after has the new one.
    let by = models(&world);
    let old = by.iter().take_while(|name| *name == "demo").count();
    assert!((1..8).contains(&old) && by[old..].iter().all(|name| name == "better"), "{by:?}");
    assert!(jobs(&world).iter().all(|job| job.progress.attempts == 1));

    // With the new one in work it is rolled back: what is not published is done again, and by the old one.
    let calls = world.engine.calls();
    let _never = world.engine.next_waits();
    (11..=15).for_each(|number| Ct::new(number, 4).write(&world.incoming()));
    daemon.passes("the engine works", || world.engine.calls() == calls + 1);
    assert_eq!(roll_back(&world).expect("rolled back"), demo().digest);
    let taken_back = ledger(&world).journal(Some(JobId(9))).expect("read");
    assert!(taken_back.iter().any(|entry| entry.event == Event::Repinned), "{taken_back:?}");
    daemon.passes("all are done", || world.results().len() == 13 && jobs(&world).iter().all(|job| job.progress.state == State::Done));
    assert_eq!(&models(&world)[8..], ["demo"; 5]);
    daemon.shows("stunetd_model_rollbacks_total{cause=\"person\"}", 1.0);
    assert_eq!(serving(&daemon, &demo()), 1.0);
    let audit = ledger(&world).audit().expect("read");
    assert!(audit.iter().all(|entry| entry.who.starts_with("Dr. Ada, as ") && entry.who.contains("uid ")), "{audit:?}");
    assert_eq!(audit.iter().map(|entry| entry.event).collect::<Vec<_>>(), [AuditEvent::Activated, AuditEvent::RolledBack]);
    daemon.end().expect("a clean end");
}

#[test]
fn what_serves_is_kept_over_a_restart_and_no_series_is_judged_anew_for_it() {
    let world = World::new();
    let better = generation(&world, "better");
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.passes("it is done", || jobs(&world).iter().any(|job| job.progress.state == State::Done));
    activate(&world, &better.digest).expect("activated");
    daemon.end().expect("a clean end");
    let daemon = Daemon::start(&world);
    Ct::new(2, 4).write(&world.incoming());
    daemon.passes("both are done", || world.results().len() == 2 && jobs(&world).iter().all(|job| job.progress.state == State::Done));
    assert_eq!(models(&world), ["demo", "better"]);
    daemon.end().expect("a clean end");
    let closings = |number: u32| ledger(&world).series(Ct::new(number, 4).series_uid().as_str()).expect("read")[0].closings;
    assert_eq!((closings(1), closings(2)), (1, 1));
}

#[test]
fn a_generation_that_fails_its_canary_serves_nobody() {
    let world = World::new();
    let better = generation(&world, "better");
    let daemon = Daemon::start(&world);
    activate(&world, &better.digest).expect("activated");
    daemon.shows("stunetd_model_promotions_total", 1.0);
    world.engine.next(Act::Fail(Code::ModelNotFinite));
    Ct::new(1, 4).write(&world.incoming());
    daemon.passes("it is done", || jobs(&world).iter().any(|job| job.progress.state == State::Done));
    assert_eq!(models(&world), ["demo"]);
    daemon.shows("stunetd_model_rollbacks_total{cause=\"daemon\"}", 1.0);
    daemon.shows("stunetd_faults_total{code=\"model.canary_failed\"}", 1.0);
    daemon.shows("stunetd_jobs{state=\"parked\"}", 0.0);
    daemon.end().expect("a clean end");
    let audit = ledger(&world).audit().expect("read");
    let last = audit.last().expect("told");
    assert_eq!((last.event, &last.subject), (AuditEvent::RolledBack, &better.digest));
    assert!(last.detail.contains("model.not_finite") && last.who.starts_with("stunetd-"), "{last:?}");
}

#[test]
fn labels_that_changed_on_the_same_machine_fail_the_canary_at_the_start() {
    let world = World::new();
    let better = generation(&world, "better");
    let daemon = Daemon::start(&world);
    activate(&world, &better.digest).expect("activated");
    Ct::new(1, 4).write(&world.incoming());
    daemon.passes("it is done", || jobs(&world).iter().any(|job| job.progress.state == State::Done));
    daemon.end().expect("a clean end");
    assert_eq!(models(&world), ["better"]);
    let recorded = world.state().join("training/canaries").join(&better.digest);
    let file = std::fs::read_dir(&recorded).expect("folder").next().expect("one device").expect("entry").path();
    std::fs::write(file, "0".repeat(64)).expect("written");
    let daemon = Daemon::start(&world);
    Ct::new(2, 4).write(&world.incoming());
    daemon.passes("both are done", || world.results().len() == 2 && jobs(&world).iter().all(|job| job.progress.state == State::Done));
    assert_eq!(models(&world), ["better", "demo"]);
    daemon.end().expect("a clean end");
}

#[test]
fn a_generation_that_is_gone_is_taken_out_of_service_and_the_daemon_starts() {
    let world = World::new();
    let better = generation(&world, "better");
    let daemon = Daemon::start(&world);
    activate(&world, &better.digest).expect("activated");
    let unknown = activate(&world, &"ab".repeat(32)).expect_err("there is no such");
    assert_eq!(unknown.code, Code::ModelUnknownGeneration);
    daemon.end().expect("a clean end");
    std::fs::remove_dir_all(&better.dir).expect("removed");
    let daemon = Daemon::start(&world);
    daemon.shows("stunetd_faults_total{code=\"model.unknown_generation\"}", 1.0);
    Ct::new(1, 4).write(&world.incoming());
    daemon.passes("it is done", || jobs(&world).iter().any(|job| job.progress.state == State::Done));
    assert_eq!(models(&world), ["demo"]);
    daemon.end().expect("a clean end");
}

#[test]
fn clinical_destinations_get_results_of_approved_generations_only() {
    let mut world = World::new();
    let text = |name: &str, accepts: &str| {
        format!("[[destination]]\nname = \"{name}\"\nkind = \"folder\"\naccepts = \"{accepts}\"\npath = \"/nowhere\"\n")
    };
    let destinations = config::parse(&(text("ward", "clinical") + &text("study", "research"))).expect("valid").destination;
    let share = tempfile::tempdir().expect("folder");
    let base = share.path().to_path_buf();
    world.configure = Box::new(move |config| {
        config.destination = destinations.clone();
        config.destination.iter_mut().for_each(|to| to.path = base.join(&to.name));
    });
    let research = generation(&world, "better");
    let daemon = Daemon::start(&world);
    activate(&world, &research.digest).expect("activated");
    Ct::new(1, 4).write(&world.incoming());
    daemon.passes("it is done", || jobs(&world).iter().any(|job| job.progress.state == State::Done));

    let approval = Approval { by: "Dr. Ada".into(), document: "QM 7".into() };
    let approved = Store::of(&world.state()).approve(&research, &demo().digest, approval).expect("approved");
    assert_eq!((approved.manifest.status, approved.digest == research.digest), (Status::Clinical, false));
    // The folder alone makes no approval.
    assert_eq!(activate(&world, &approved.digest).expect_err("nobody approved it").code, Code::ModelNotPromotable);
    let (generation, from, by, document) = (approved.digest.clone(), research.digest.clone(), "Dr. Ada".into(), "QM 7".into());
    tell(&world, ModelCommand::Approved { generation, from, by, document }).expect("noted");
    activate(&world, &approved.digest).expect("activated");
    Ct::new(2, 4).write(&world.incoming());
    daemon.passes("both are done", || world.results().len() == 2 && jobs(&world).iter().all(|job| job.progress.state == State::Done));
    let to = |job: u64| -> Vec<String> {
        let deliveries = ledger(&world).deliveries(JobId(job)).expect("read");
        deliveries.into_iter().map(|delivery| delivery.destination).collect()
    };
    assert_eq!((to(1), to(2)), (vec!["study".to_owned()], vec!["ward".to_owned(), "study".to_owned()]));
    assert_eq!(world.manifest(&jobs(&world)[1].result.as_ref().expect("done").folder).marking, None);
    // Training may not put a model that nobody approved in its place; going back is always possible.
    assert_eq!(activate(&world, &research.digest).expect_err("it is not approved").code, Code::ModelNotPromotable);
    assert_eq!(roll_back(&world).expect("rolled back"), research.digest);
    daemon.end().expect("a clean end");
}
