//! What every ledger does.

use super::training::told as models;
use super::*;
use crate::support::eventually;

type Story = fn(&mut dyn Site);

fn of_every_kind(story: Story) {
    story(&mut InMemory::new());
    story(&mut OnDisk::new());
}

/// One test a story, for every kind of ledger.
macro_rules! stories {
    ($told:ident: $($name:ident)*) => { $(
        #[test]
        fn $name() { of_every_kind($told::$name); }
    )* };
}

stories! { told:
    a_volume_becomes_one_job_however_often_its_series_is_closed
    the_attempt_is_counted_before_the_work
    priority_goes_first_then_the_line
    a_failure_that_may_pass_waits_its_pause
    who_crashes_twice_runs_alone_and_who_crashes_alone_three_times_is_parked
    a_lost_claim_is_refused_with_everything
    a_lease_that_ran_out_is_taken_by_another_owner_only
    a_commit_happens_whole_or_not_at_all
    a_changed_series_supersedes_what_nobody_has_begun
    a_result_that_is_there_makes_a_job_that_is_done
    people_retry_and_cancel_and_the_journal_names_them
    results_since_the_last_check_are_told
    deliveries_go_in_order_and_a_crash_leaves_them_doubtful
    nothing_undelivered_is_forgotten
    a_result_whose_time_is_over_is_not_made_again
    a_clock_that_jumps_moves_no_deadline
    acknowledged_instances_are_found_by_any_uid
    of_refused_files_those_that_came_last_are_kept
    many_threads_lose_nothing
}

stories! { models:
    a_rollback_takes_the_work_of_the_model_that_goes_and_of_no_other
    rolling_back_goes_back_and_never_forth
    a_patient_never_changes_sides
    a_decision_is_about_the_labels_that_were_seen
    one_run_at_a_time_and_only_a_run_that_passed_is_promoted
}

mod told {
    use super::*;

    pub fn a_volume_becomes_one_job_however_often_its_series_is_closed(site: &mut dyn Site) {
        let (ledger, opening) = site.open();
        assert!(opening.fresh && !opening.restored);
        ledger.commit(vec![close(1, &["a", "b"])]).expect("durable");
        ledger.commit(vec![close(1, &["b", "a"]), close(2, &["a"])]).expect("durable");
        site.crash(ledger);
        let (ledger, opening) = site.open();
        assert_eq!(opening, Opening::default());
        let jobs = ledger.jobs(&Which::default()).expect("read");
        let told: Vec<_> = jobs.iter().map(|j| (j.id.0, j.series.clone(), j.input.as_str(), j.progress.state)).collect();
        let q = State::Queued;
        assert_eq!(told, [(1, key(1), "a", q), (2, key(1), "b", q), (3, key(2), "a", q)]);
        assert_eq!(ledger.jobs(&Which { uid: Some(key(2).series), ..Which::default() }).expect("read").len(), 1);
        assert_eq!(
            ledger.jobs(&Which { uid: Some(key(2).study), after: Some(JobId(1)), limit: Some(1), ..Which::default() }).expect("read")[0]
                .id
                .0,
            2
        );
        assert_eq!(ledger.counts().expect("read")[0], (State::Queued, 3));
        assert_eq!(ledger.series(&key(1).series).expect("read")[0].closings, 2);
    }

    pub fn the_attempt_is_counted_before_the_work(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        ledger.commit(vec![close(1, &["a"])]).expect("durable");
        let claim = ledger.claim(&lease("w")).expect("asked").expect("a job");
        assert_eq!((claim.job.progress.attempts, claim.job.model.as_deref()), (1, Some("m")));
        assert_eq!(Some(claim.job), ledger.job(JobId(1)).expect("read"));
        site.crash(ledger);
        let (ledger, opening) = site.open();
        assert_eq!((opening.requeued, opening.parked), (1, 0));
        let job = ledger.job(JobId(1)).expect("read").expect("known");
        assert_eq!((job.progress.state, job.progress.attempts, job.progress.crashes), (State::Queued, 1, 1));
        // Given back at a clean end is no crash.
        let claim = ledger.claim(&lease("w2")).expect("asked").expect("a job");
        ledger.commit(vec![Change::Pin { token: claim.token, model: "other".into() }]).expect("durable");
        assert_eq!(ledger.job(JobId(1)).expect("read").expect("known").model.as_deref(), Some("other"));
        ledger.commit(vec![Change::Release { token: claim.token }]).expect("durable");
        let job = ledger.job(JobId(1)).expect("read").expect("known");
        assert_eq!((job.progress.state, job.progress.attempts, job.progress.crashes), (State::Queued, 2, 1));
    }

    pub fn priority_goes_first_then_the_line(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        for (series, priority) in
            [(1, Priority::Batch), (2, Priority::Routine), (3, Priority::Stat), (4, Priority::Routine), (5, Priority::Stat)]
        {
            let volumes = vec![NewVolume { priority, ..volume("a") }];
            let closing = Closing { series: key(series), evidence: Evidence::Association, print: "p".into(), volumes, refusals: vec![] };
            ledger.commit(vec![Change::Close(closing)]).expect("durable");
        }
        let order: Vec<u64> = (0..5).map(|_| ledger.claim(&lease("w")).expect("asked").expect("a job").job.id.0).collect();
        assert_eq!(order, [3, 5, 2, 4, 1]);
        assert_eq!(ledger.claim(&lease("w")).expect("asked"), None);
    }

    pub fn a_failure_that_may_pass_waits_its_pause(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        ledger.commit(vec![close(1, &["a"])]).expect("durable");
        for round in 1..=3 {
            let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
            let pause = Duration::from_secs(10);
            ledger.commit(vec![Change::Postpone { token, pause, problem: problem("disk.full") }]).expect("durable");
            assert_eq!(ledger.next_due().expect("read"), Some(pause));
            assert_eq!(ledger.claim(&lease("w")).expect("asked"), None);
            site.clock().advance(pause);
            assert_eq!(ledger.next_due().expect("read"), Some(Duration::ZERO));
            let job = ledger.job(JobId(1)).expect("read").expect("known");
            assert_eq!((job.progress.failures, job.progress.problem), (round, Some(problem("disk.full"))));
        }
        let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
        ledger.commit(vec![finish(token, &[])]).expect("durable");
        let job = ledger.job(JobId(1)).expect("read").expect("known");
        assert_eq!((job.progress.failures, job.progress.problem, job.progress.attempts), (0, None, 4));
    }

    pub fn who_crashes_twice_runs_alone_and_who_crashes_alone_three_times_is_parked(site: &mut dyn Site) {
        let (mut ledger, _) = site.open();
        ledger.commit(vec![close(1, &["a"]), close(2, &["b"])]).expect("durable");
        // Both are in flight at two crashes: both are suspect.
        for _ in 0..2 {
            (0..2).for_each(|_| drop(ledger.claim(&lease("w")).expect("asked").expect("a job")));
            site.crash(ledger);
            ledger = site.open().0;
        }
        // A third one overtakes them; while it runs no suspect begins.
        ledger.commit(vec![close(3, &["c"])]).expect("durable");
        let first = ledger.claim(&lease("w")).expect("asked").expect("a job");
        assert_eq!((first.job.id.0, first.job.progress.held.expect("held").alone), (1, true));
        // Nothing runs beside a suspect.
        assert_eq!(ledger.claim(&lease("w")).expect("asked"), None);
        // Another process may go on.
        let other = ledger.claim(&lease("elsewhere")).expect("asked").expect("a job");
        assert_eq!(other.job.id.0, 2);
        ledger.commit(vec![finish(first.token, &[]), finish(other.token, &[])]).expect("durable");
        let third = ledger.claim(&lease("w")).expect("asked").expect("a job");
        assert_eq!((third.job.id.0, third.job.progress.suspect), (3, false));
        // And a suspect waits until nothing runs.
        ledger.commit(vec![Change::Reopen { job: JobId(2), who: "test".into(), problem: problem("results.damaged") }]).expect("durable");
        assert_eq!(ledger.claim(&lease("w")).expect("asked"), None);
        ledger.commit(vec![finish(third.token, &[])]).expect("durable");
        for crashes_alone in 1..=3 {
            let claim = ledger.claim(&lease("w")).expect("asked").expect("a job");
            assert_eq!(claim.job.id.0, 2);
            site.crash(ledger);
            let (again, opening) = site.open();
            ledger = again;
            assert_eq!((opening.requeued, opening.parked), if crashes_alone < 3 { (1, 0) } else { (0, 1) });
        }
        let job = ledger.job(JobId(2)).expect("read").expect("known");
        assert_eq!(job.progress.state, State::Parked);
        assert_eq!(job.progress.problem.expect("why").code, "job.crashed_the_daemon");
        assert_eq!(ledger.claim(&lease("w")).expect("asked"), None);
        // A person tries once more: alone.
        ledger.commit(vec![Change::Retry { job: JobId(2), who: "anna".into() }]).expect("durable");
        let claim = ledger.claim(&lease("w")).expect("asked").expect("a job");
        assert!(claim.job.progress.held.expect("held").alone);
    }

    pub fn a_lost_claim_is_refused_with_everything(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        ledger.commit(vec![close(1, &["a"])]).expect("durable");
        let old = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
        site.crash(ledger);
        let (ledger, _) = site.open();
        let new = ledger.claim(&lease("w2")).expect("asked").expect("a job").token;
        assert!(new > old);
        let (pause, why) = (Duration::from_secs(1), problem("disk.full"));
        for change in [
            finish(old, &["pacs"]),
            Change::Postpone { token: old, pause, problem: why.clone() },
            Change::Park { token: old, problem: why.clone() },
            Change::Release { token: old },
            Change::Outdate { token: old },
            Change::Pin { token: old, model: "other".into() },
            Change::Delivered { token: old, warning: None },
            Change::ParkDelivery { token: old, doubtful: true, problem: why },
        ] {
            assert_eq!(ledger.commit(vec![change]), Err(LedgerError::Stale(old)));
        }
        assert_eq!(ledger.renew(old, pause), Err(LedgerError::Stale(old)));
        ledger.renew(new, pause).expect("held");
        ledger.commit(vec![finish(new, &["pacs"])]).expect("durable");
        // Done is done: the same claim publishes once.
        assert_eq!(ledger.commit(vec![finish(new, &["pacs"])]), Err(LedgerError::Stale(new)));
        assert_eq!(ledger.deliveries(JobId(1)).expect("read").len(), 1);
    }

    pub fn a_lease_that_ran_out_is_taken_by_another_owner_only(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        ledger.commit(vec![close(1, &["a"])]).expect("durable");
        let old = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
        site.clock().advance(Duration::from_secs(30));
        ledger.renew(old, Duration::from_secs(60)).expect("held");
        site.clock().advance(Duration::from_secs(59));
        assert_eq!(ledger.claim(&lease("w2")).expect("asked"), None);
        site.clock().advance(Duration::from_secs(2));
        // Its own owner does not take it from itself.
        assert_eq!(ledger.claim(&lease("w")).expect("asked"), None);
        ledger.renew(old, Duration::ZERO).expect("held");
        site.clock().advance(Duration::from_secs(1));
        let new = ledger.claim(&lease("w2")).expect("asked").expect("a job");
        assert_eq!((new.job.progress.attempts, new.job.progress.crashes), (2, 1));
        assert_eq!(ledger.commit(vec![finish(old, &[])]), Err(LedgerError::Stale(old)));
    }

    pub fn a_commit_happens_whole_or_not_at_all(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        ledger.commit(vec![close(1, &["a"])]).expect("durable");
        let before = ledger.journal(Some(JobId(1))).expect("read");
        let cancel = Change::Cancel { job: JobId(1), who: "anna".into() };
        let end = ledger.commit(vec![close(2, &["b"]), cancel, Change::Retry { job: JobId(9), who: "anna".into() }]);
        assert_eq!(end, Err(LedgerError::UnknownJob(JobId(9))));
        assert_eq!(ledger.commit(vec![close(3, &["c"]), close(4, &[""])]), Err(LedgerError::Invalid("input")));
        assert_eq!((state(&*ledger, 1), ledger.journal(Some(JobId(1))).expect("read")), (State::Queued, before));
        assert_eq!(ledger.jobs(&Which::default()).expect("read").len(), 1);
        assert_eq!(ledger.series(&key(3).series).expect("read"), []);
    }

    pub fn a_changed_series_supersedes_what_nobody_has_begun(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        ledger.commit(vec![close(1, &["a"]), close(2, &["x"])]).expect("durable");
        let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
        ledger.commit(vec![finish(token, &["pacs"])]).expect("durable");
        ledger.commit(vec![close(1, &["b"])]).expect("durable");
        ledger.commit(vec![close(1, &["c"])]).expect("durable");
        let states: Vec<_> = (1..=4).map(|id| state(&*ledger, id)).collect();
        assert_eq!(states, [State::Done, State::Queued, State::Superseded, State::Queued]);
        // The old result that was not sent yet is not sent any more.
        assert_eq!(ledger.deliveries(JobId(1)).expect("read")[0].state, DeliveryState::Cancelled);
        // Back to what it was.
        ledger.commit(vec![close(1, &["b"])]).expect("durable");
        assert_eq!((state(&*ledger, 3), state(&*ledger, 4), state(&*ledger, 2)), (State::Queued, State::Superseded, State::Queued));
        // A worker finds that the files have changed under it.
        ledger.claim(&lease("w")).expect("asked").expect("the other series");
        let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
        ledger.commit(vec![Change::Outdate { token }]).expect("durable");
        assert_eq!(state(&*ledger, 3), State::Superseded);
    }

    pub fn a_result_that_is_there_makes_a_job_that_is_done(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        let found = NewVolume { result: Some(result("old")), destinations: vec!["pacs".into()], ..volume("a") };
        let closing = Closing {
            series: key(1),
            evidence: Evidence::Timer,
            print: "p".into(),
            volumes: vec![found],
            refusals: vec![problem("series.localizer")],
        };
        ledger.commit(vec![Change::Close(closing.clone())]).expect("durable");
        ledger.commit(vec![Change::Close(closing)]).expect("durable");
        let job = ledger.job(JobId(1)).expect("read").expect("known");
        assert_eq!((job.progress.state, job.progress.attempts), (State::Done, 0));
        assert_eq!(ledger.objects(JobId(1)).expect("read").iter().map(|o| o.file.as_str()).collect::<Vec<_>>(), ["preview.png", "seg.dcm"]);
        // Whether it was sent before is not known.
        let deliveries = ledger.deliveries(JobId(1)).expect("read");
        assert!(deliveries.len() == 1 && deliveries[0].doubtful);
        assert_eq!(ledger.series(&key(1).study).expect("read")[0].refusals, [problem("series.localizer")]);
    }

    pub fn people_retry_and_cancel_and_the_journal_names_them(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        ledger.commit(vec![close(1, &["a"])]).expect("durable");
        let retry = || Change::Retry { job: JobId(1), who: "anna".into() };
        let cancel = || Change::Cancel { job: JobId(1), who: "bert".into() };
        let wrong = |state, wish| Err(LedgerError::WrongState { job: JobId(1), state, wish });
        assert_eq!(ledger.commit(vec![retry()]), wrong(State::Queued, "trying it again"));
        let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
        ledger.commit(vec![cancel()]).expect("durable");
        assert_eq!(ledger.renew(token, Duration::ZERO), Err(LedgerError::Stale(token)));
        assert_eq!(ledger.commit(vec![cancel()]), wrong(State::Cancelled, "ending it"));
        ledger.commit(vec![retry()]).expect("durable");
        let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
        ledger.commit(vec![Change::Park { token, problem: problem("internal.bug") }]).expect("durable");
        ledger.commit(vec![retry()]).expect("durable");
        let told: Vec<_> = ledger.journal(Some(JobId(1))).expect("read").into_iter().map(|e| (e.event, e.who)).collect();
        let says = |event, who: &str| (event, who.to_string());
        let expected = [
            says(Event::Queued, "intake"),
            says(Event::Claimed, "w"),
            says(Event::Cancelled, "bert"),
            says(Event::Retried, "anna"),
            says(Event::Claimed, "w"),
            says(Event::Parked, "w"),
            says(Event::Retried, "anna"),
        ];
        assert_eq!(told, expected);
        let nobody = Change::Cancel { job: JobId(1), who: String::new() };
        assert_eq!(ledger.commit(vec![nobody]), Err(LedgerError::Invalid("person")));
    }

    pub fn results_since_the_last_check_are_told(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        ledger.commit(vec![close(1, &["a"]), close(2, &["b"]), close(3, &["c"])]).expect("durable");
        let done = |ledger: &dyn Ledger| {
            let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
            ledger.commit(vec![finish(token, &[])]).expect("durable");
        };
        done(&*ledger);
        ledger.commit(vec![Change::Verified]).expect("durable");
        done(&*ledger);
        assert_eq!(ledger.unverified().expect("read"), [JobId(2)]);
        site.crash(ledger);
        let (ledger, _) = site.open();
        assert_eq!(ledger.unverified().expect("read"), [JobId(2)]);
        ledger.commit(vec![Change::Reopen { job: JobId(2), who: "test".into(), problem: problem("results.damaged") }]).expect("durable");
        assert_eq!(ledger.unverified().expect("read"), []);
        done(&*ledger);
        done(&*ledger);
        assert_eq!(ledger.unverified().expect("read"), [JobId(2), JobId(3)]);
    }

    pub fn deliveries_go_in_order_and_a_crash_leaves_them_doubtful(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        ledger.commit(vec![close(1, &["a"]), close(2, &["b"])]).expect("durable");
        for _ in 0..2 {
            let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
            ledger.commit(vec![finish(token, &["pacs", "folder"])]).expect("durable");
        }
        let next = |ledger: &dyn Ledger, to: &str| ledger.claim_delivery(to, &lease("d")).expect("asked");
        assert_eq!(next(&*ledger, "nowhere"), None);
        let first = next(&*ledger, "pacs").expect("one");
        assert_eq!((first.delivery.job, first.delivery.attempts, first.delivery.doubtful), (JobId(1), 1, false));
        let second = next(&*ledger, "pacs").expect("one");
        assert_eq!(second.delivery.job, JobId(2));
        assert_eq!(next(&*ledger, "pacs"), None);
        site.crash(ledger);
        let (ledger, opening) = site.open();
        assert_eq!(opening.doubtful, 2);
        let again = next(&*ledger, "pacs").expect("one");
        assert!(again.delivery.job == JobId(1) && again.delivery.doubtful && again.delivery.attempts == 2);
        assert_eq!(ledger.commit(vec![Change::Delivered { token: first.token, warning: None }]), Err(LedgerError::Stale(first.token)));
        ledger.renew(again.token, Duration::from_secs(1)).expect("held");
        let warning = Some(problem("delivery.coerced"));
        ledger.commit(vec![Change::Delivered { token: again.token, warning: warning.clone() }]).expect("durable");
        let pause = Duration::from_secs(5);
        let second = next(&*ledger, "pacs").expect("one");
        let late =
            Change::PostponeDelivery { token: second.token, pause, doubtful: false, refused: true, problem: problem("delivery.down") };
        ledger.commit(vec![late]).expect("durable");
        assert_eq!(next(&*ledger, "pacs"), None);
        site.clock().advance(pause);
        let second = next(&*ledger, "pacs").expect("one");
        ledger.commit(vec![Change::Resend { token: second.token }]).expect("durable");
        let counted = &ledger.deliveries(JobId(2)).expect("read")[0];
        assert_eq!((counted.refusals, counted.resends, counted.state), (1, 1, DeliveryState::Sending));
        ledger
            .commit(vec![Change::ParkDelivery { token: second.token, doubtful: false, problem: problem("delivery.refused") }])
            .expect("durable");
        assert_eq!(next(&*ledger, "pacs"), None);
        ledger.commit(vec![Change::Retry { job: JobId(2), who: "anna".into() }]).expect("durable");
        let again = next(&*ledger, "pacs").expect("one").delivery;
        assert_eq!((again.attempts, again.refusals, again.resends), (4, 0, 0));
        let first = &ledger.deliveries(JobId(1)).expect("read")[0];
        assert_eq!((first.state, first.doubtful, &first.problem), (DeliveryState::Delivered, false, &warning));
        // What is being sent is not called back; the rest is.
        ledger.commit(vec![Change::Cancel { job: JobId(2), who: "anna".into() }]).expect("durable");
        let states: Vec<_> = ledger.deliveries(JobId(2)).expect("read").into_iter().map(|d| d.state).collect();
        assert_eq!(states, [DeliveryState::Sending, DeliveryState::Cancelled]);
    }

    pub fn nothing_undelivered_is_forgotten(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        let received = Received { series: key(1), sop_instance: "1.9".into(), path: "a/b.dcm".into(), bytes: 5 };
        ledger.commit(vec![Change::Receive(received), close(1, &["a"])]).expect("durable");
        let forget = || Change::Forget { job: JobId(1) };
        let wrong = |state| Err(LedgerError::WrongState { job: JobId(1), state, wish: "forgetting it" });
        assert_eq!(ledger.commit(vec![forget()]), wrong(State::Queued));
        let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
        assert_eq!(ledger.commit(vec![forget()]), wrong(State::Running));
        ledger.commit(vec![finish(token, &["pacs"])]).expect("durable");
        assert_eq!(ledger.commit(vec![forget()]), wrong(State::Done));
        let token = ledger.claim_delivery("pacs", &lease("d")).expect("asked").expect("one").token;
        assert_eq!(ledger.commit(vec![forget()]), wrong(State::Done));
        ledger.commit(vec![Change::Delivered { token, warning: None }]).expect("durable");
        ledger.commit(vec![forget()]).expect("durable");
        assert_eq!(ledger.job(JobId(1)).expect("read"), None);
        assert_eq!((ledger.series("1.9").expect("read"), ledger.received(0, 9).expect("read")), (vec![], vec![]));
        assert!(ledger.objects(JobId(1)).expect("read").is_empty() && ledger.deliveries(JobId(1)).expect("read").is_empty());
        // The journal stays until its own time is over, and numbers are never used again.
        assert_eq!(ledger.journal(Some(JobId(1))).expect("read").last().expect("told").event, Event::Forgotten);
        site.clock().advance(Duration::from_secs(10));
        let seq = ledger.commit(vec![close(2, &["b"])]).expect("durable");
        ledger.commit(vec![Change::ForgetJournal { before: ledger.now() }]).expect("durable");
        assert!(ledger.journal(Some(JobId(1))).expect("read").is_empty());
        assert_eq!(ledger.journal(Some(JobId(2))).expect("read").last().expect("kept").seq, seq);
    }

    pub fn a_result_whose_time_is_over_is_not_made_again(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        let (pause, expire) = (Duration::from_secs(10), |job| Change::Expire { job: JobId(job) });
        ledger.commit(vec![close(1, &["a"])]).expect("durable");
        let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
        ledger.commit(vec![finish(token, &["pacs"])]).expect("durable");
        site.clock().advance(pause);
        let token = ledger.claim_delivery("pacs", &lease("d")).expect("asked").expect("one").token;
        ledger.commit(vec![Change::ParkDelivery { token, doubtful: false, problem: problem("delivery.refused") }]).expect("durable");
        site.clock().advance(pause);
        // Refused is not delivered; and the time counts from the delivery.
        let wrong = LedgerError::WrongState { job: JobId(1), state: State::Done, wish: "removing its result" };
        assert_eq!((ledger.expired(ledger.now(), 9).expect("read"), ledger.commit(vec![expire(1)])), (vec![], Err(wrong)));
        ledger.commit(vec![Change::Retry { job: JobId(1), who: "anna".into() }]).expect("durable");
        let token = ledger.claim_delivery("pacs", &lease("d")).expect("asked").expect("one").token;
        let delivered = ledger.now();
        ledger.commit(vec![Change::Delivered { token, warning: None }]).expect("durable");
        site.clock().advance(pause);
        assert_eq!(ledger.expired(delivered, 9).expect("read"), []);
        let over = ledger.expired(ledger.now(), 9).expect("read");
        assert_eq!(over.iter().map(|job| job.id).collect::<Vec<_>>(), [JobId(1)]);
        ledger.commit(vec![expire(1)]).expect("durable");
        site.crash(ledger);
        let (ledger, _) = site.open();
        assert_eq!((ledger.job(JobId(1)).expect("read"), ledger.closed(&key(1)).expect("read")), (None, Some("p".into())));
        assert!(ledger.objects(JobId(1)).expect("read").is_empty() && ledger.deliveries(JobId(1)).expect("read").is_empty());
        // Found again, it is not done again; in another state it is.
        ledger.commit(vec![close(1, &["a"])]).expect("durable");
        assert_eq!(ledger.jobs(&Which::default()).expect("read"), []);
        ledger.commit(vec![close(1, &["b"])]).expect("durable");
        assert_eq!(state(&*ledger, 2), State::Queued);
        // Nothing is known of a series that has neither jobs nor instances once it may go.
        ledger.commit(vec![Change::Cancel { job: JobId(2), who: "anna".into() }, expire(2)]).expect("durable");
        site.clock().advance(pause);
        assert_eq!(ledger.idle(ledger.now(), 0, 9).expect("read"), [key(1)]);
        assert_eq!(ledger.idle(ledger.now(), 1, 9).expect("read"), []);
        ledger.commit(vec![Change::ForgetSeries { series: key(1) }]).expect("durable");
        assert_eq!(ledger.closed(&key(1)).expect("read"), None);
        // Sent once more after its result was removed, it is done again.
        ledger.commit(vec![close(2, &["c"])]).expect("durable");
        ledger.commit(vec![Change::Cancel { job: JobId(3), who: "anna".into() }, expire(3)]).expect("durable");
        let received = Received { series: key(2), sop_instance: "1.9".into(), path: "a/b.dcm".into(), bytes: 5 };
        ledger.commit(vec![Change::Receive(received), close(2, &["c"])]).expect("durable");
        assert_eq!(state(&*ledger, 4), State::Queued);
    }

    pub fn a_clock_that_jumps_moves_no_deadline(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        ledger.commit(vec![close(1, &["a"])]).expect("durable");
        let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
        let (pause, day) = (Duration::from_secs(600), Duration::from_secs(86_400));
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        ledger.commit(vec![Change::Postpone { token, pause, problem: problem("disk.full") }]).expect("durable");
        for wall in [start + day, start - day] {
            site.clock().set_wall(wall);
            assert_eq!(ledger.next_due().expect("read"), Some(pause));
            assert_eq!(ledger.claim(&lease("w")).expect("asked"), None);
        }
        // Set back before a restart: the wait is at most the longest pause.
        site.crash(ledger);
        let (ledger, _) = site.open();
        assert_eq!(ledger.next_due().expect("read"), Some(Duration::from_secs(3600)));
        site.clock().advance(Duration::from_secs(3600));
        ledger.claim(&lease("w")).expect("asked").expect("a job");
    }

    pub fn acknowledged_instances_are_found_by_any_uid(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        let received = |series: u32, n: u32| Received {
            series: key(series),
            sop_instance: format!("1.9.{series}.{n}"),
            path: format!("{series}/{n}.dcm"),
            bytes: u64::from(n),
        };
        let all: Vec<Received> = (1..=2).flat_map(|series| (1..=5).map(move |n| received(series, n))).collect();
        ledger.commit(all.iter().cloned().map(Change::Receive).collect()).expect("durable");
        // Sent again: the same file.
        ledger.commit(vec![Change::Receive(received(1, 3))]).expect("durable");
        site.crash(ledger);
        let (ledger, _) = site.open();
        for uid in ["1.9.1.4", &key(1).series] {
            let found = ledger.series(uid).expect("read");
            assert_eq!(found.iter().map(|s| (s.series.clone(), s.instances)).collect::<Vec<_>>(), [(key(1), 5)]);
        }
        assert_eq!(ledger.series(&key(1).study).expect("read").len(), 2);
        assert_eq!(ledger.received(0, 100).expect("read"), all);
        let lie = ["1/4.dcm", "1/6.dcm", "2/5.dcm", "3/1.dcm"].map(String::from);
        assert_eq!(ledger.unknown(lie.to_vec()).expect("read"), [lie[1].clone(), lie[3].clone()]);
        assert_eq!(ledger.received(4, 3).expect("read"), all[4..7]);
    }

    pub fn of_refused_files_those_that_came_last_are_kept(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        let file = |n: u64, code: &str| RefusedFile {
            origin: if n == 0 { Origin::Network } else { Origin::Folder },
            place: format!("place {n}"),
            bytes: n,
            modified: Moment(5),
            code: code.into(),
            first: Moment(0),
            last: Moment(0),
        };
        let begun = ledger.now();
        ledger.commit(vec![Change::Refuse((0..MOST_REFUSED).map(|n| file(n, "input.corrupt")).collect())]).expect("durable");
        site.clock().advance(Duration::from_secs(60));
        // One is found once more, in another state, and one is new: the one that was longest unheard of goes.
        ledger.commit(vec![Change::Refuse(vec![file(0, "input.truncated"), file(MOST_REFUSED, "input.empty_file")])]).expect("durable");
        site.crash(ledger);
        let (ledger, _) = site.open();
        let last = begun.plus(Duration::from_secs(60));
        let found = ledger.refused(3).expect("read");
        let again = RefusedFile { first: begun, last, ..file(0, "input.truncated") };
        let new = RefusedFile { first: last, last, ..file(MOST_REFUSED, "input.empty_file") };
        let before = RefusedFile { first: begun, last: begun, ..file(MOST_REFUSED - 1, "input.corrupt") };
        assert_eq!(found, [new, again, before]);
        let all = ledger.refused(2 * MOST_REFUSED).expect("read");
        assert_eq!((all.len() as u64, &*all.last().expect("one").place), (MOST_REFUSED, "place 2"));
        ledger.commit(vec![Change::ForgetRefused { before: last }]).expect("durable");
        assert_eq!(ledger.refused(10).expect("read").len(), 2);
    }

    pub fn many_threads_lose_nothing(site: &mut dyn Site) {
        const JOBS: u32 = 200;
        let (ledger, _) = site.open();
        let done = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for part in 0..4 {
                let ledger = &*ledger;
                scope.spawn(move || {
                    for n in (0..JOBS).filter(|n| n % 4 == part) {
                        ledger.commit(vec![close(n, &["a"])]).expect("durable");
                    }
                });
            }
            for worker in 0..4 {
                let (ledger, done) = (&*ledger, &done);
                scope.spawn(move || {
                    let own = lease(&format!("w{worker}"));
                    eventually("all are done", || {
                        if let Some(claim) = ledger.claim(&own).expect("asked") {
                            ledger.commit(vec![finish(claim.token, &["pacs"])]).expect("durable");
                            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                        done.load(std::sync::atomic::Ordering::Relaxed) == JOBS
                    });
                });
            }
        });
        site.crash(ledger);
        let (ledger, opening) = site.open();
        assert_eq!(opening.requeued, 0);
        let jobs = ledger.jobs(&Which::default()).expect("read");
        assert!(jobs.len() == JOBS as usize && jobs.iter().all(|j| j.progress.state == State::Done && j.progress.attempts == 1));
        assert!(jobs.iter().all(|j| ledger.deliveries(j.id).expect("read").len() == 1));
    }
}
