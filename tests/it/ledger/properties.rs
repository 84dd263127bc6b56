//! Random histories: after every step the file says what the reference says, and what must never happen has not happened.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
enum Step {
    /// Changes made together. Tokens and jobs are chosen by number among those there have ever been.
    Commit(Vec<Wish>),
    Claim(u8),
    Send(u8, u8),
    Renew(usize),
    Pass(u32),
    Jump(i32),
    Crash,
}

#[derive(Clone, Debug)]
enum Wish {
    Close(u8, BTreeSet<u8>, u8, bool),
    Receive(u8, u8),
    Finish(usize, u8),
    Postpone(usize, u32),
    Park(usize),
    Release(usize),
    Outdate(usize),
    Pin(usize),
    Retry(u8),
    Cancel(u8),
    Reopen(u8),
    Delivered(usize, bool),
    PostponeDelivery(usize, u32, bool, bool),
    Resend(usize),
    AskCommitment(usize, u8),
    AwaitCommitment(usize, u32, bool),
    Committed(u8, bool),
    ParkDelivery(usize, bool),
    Verified,
    Purged,
    Discard(u8, u8),
    Forget(u8),
    Expire(u8),
    ForgetSeries(u8),
    Leave(u8, u8),
    Left(u8),
    Wait(u8),
    Other(u8),
    ForgetJournal(u32),
    Train(TrainingChange),
}

fn wish() -> impl Strategy<Value = Wish> {
    let token = || 0usize..12;
    prop_oneof![
        4 => (0u8..5, prop::collection::btree_set(0u8..4, 0..3), 0u8..3, prop::bool::weighted(0.1)).prop_map(|(s, v, p, r)| Wish::Close(s, v, p, r)),
        1 => (0u8..5, 0u8..4).prop_map(|(s, n)| Wish::Receive(s, n)),
        4 => (token(), 0u8..4).prop_map(|(t, d)| Wish::Finish(t, d)),
        2 => (token(), 0u32..100_000).prop_map(|(t, p)| Wish::Postpone(t, p)),
        1 => token().prop_map(Wish::Park),
        1 => token().prop_map(Wish::Release),
        1 => token().prop_map(Wish::Outdate),
        1 => token().prop_map(Wish::Pin),
        1 => (0u8..12).prop_map(Wish::Retry),
        1 => (0u8..12).prop_map(Wish::Cancel),
        1 => (0u8..12).prop_map(Wish::Reopen),
        2 => (token(), any::<bool>()).prop_map(|(t, w)| Wish::Delivered(t, w)),
        1 => (token(), 0u32..100_000, any::<bool>(), any::<bool>()).prop_map(|(t, p, d, r)| Wish::PostponeDelivery(t, p, d, r)),
        1 => token().prop_map(Wish::Resend),
        2 => (token(), 0u8..4).prop_map(|(t, n)| Wish::AskCommitment(t, n)),
        2 => (token(), 0u32..100_000, any::<bool>()).prop_map(|(t, p, w)| Wish::AwaitCommitment(t, p, w)),
        2 => (0u8..4, any::<bool>()).prop_map(|(n, k)| Wish::Committed(n, k)),
        1 => (token(), any::<bool>()).prop_map(|(t, d)| Wish::ParkDelivery(t, d)),
        1 => Just(Wish::Verified),
        1 => Just(Wish::Purged),
        1 => (0u8..5, 0u8..4).prop_map(|(s, n)| Wish::Discard(s, n)),
        1 => (0u8..12).prop_map(Wish::Forget),
        2 => (0u8..12).prop_map(Wish::Expire),
        1 => (0u8..5).prop_map(Wish::ForgetSeries),
        1 => (0u8..5, 0u8..3).prop_map(|(s, n)| Wish::Leave(s, n)),
        1 => (0u8..5).prop_map(Wish::Left),
        1 => (0u8..5).prop_map(Wish::Wait),
        1 => (0u8..5).prop_map(Wish::Other),
        1 => (0u32..200_000).prop_map(Wish::ForgetJournal),
        8 => training::change().prop_map(Wish::Train),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(wish(), 1..4).prop_map(Step::Commit),
        6 => (0u8..2).prop_map(Step::Claim),
        3 => (0u8..2, 0u8..2).prop_map(|(o, d)| Step::Send(o, d)),
        1 => (0usize..12).prop_map(Step::Renew),
        2 => (0u32..90_000).prop_map(Step::Pass),
        1 => (-200_000i32..200_000).prop_map(Step::Jump),
        2 => Just(Step::Crash),
    ]
}

/// Tokens given out so far, the latest first.
#[derive(Default)]
struct Given(Vec<Token>);

impl Given {
    fn token(&self, number: usize) -> Token {
        *self.0.iter().rev().nth(number).unwrap_or(&Token(0))
    }
}

const DESTINATIONS: [&str; 2] = ["pacs", "folder"];

fn change(wish: &Wish, given: &Given, now: Moment) -> Change {
    let job = |n: &u8| JobId(u64::from(*n));
    let who = || "anna".to_string();
    let problem = || problem("disk.full");
    match wish {
        Wish::Close(series, inputs, priority, there) => {
            let volumes = inputs.iter().map(|i| NewVolume {
                priority: Priority::ALL[usize::from(*priority)],
                contest: (*priority > 0).then(|| format!("place {priority}")),
                result: there.then(|| result(&format!("found-{series}-{i}"))),
                destinations: vec!["pacs".into()],
                ..volume(i.to_string())
            });
            let refusals = if inputs.is_empty() { vec![problem()] } else { vec![] };
            Change::Close(Closing {
                series: key(u32::from(*series)),
                evidence: Evidence::Timer,
                print: format!("{inputs:?}"),
                volumes: volumes.collect(),
                refusals,
            })
        }
        Wish::Receive(series, n) => Change::Receive(Received {
            series: key(u32::from(*series)),
            sop_instance: format!("1.9.{series}.{n}"),
            path: format!("{series}/{n}"),
            bytes: 1,
        }),
        Wish::Finish(t, destinations) => finish(given.token(*t), &DESTINATIONS[..usize::from(*destinations).min(2)]),
        Wish::Postpone(t, ms) => {
            Change::Postpone { token: given.token(*t), pause: Duration::from_millis((*ms).into()), problem: problem() }
        }
        Wish::Park(t) => Change::Park { token: given.token(*t), problem: problem() },
        Wish::Release(t) => Change::Release { token: given.token(*t) },
        Wish::Outdate(t) => Change::Outdate { token: given.token(*t) },
        Wish::Pin(t) => Change::Pin { token: given.token(*t), model: ["other", "g1"][t % 2].into() },
        Wish::Retry(n) => Change::Retry { job: job(n), who: who() },
        Wish::Cancel(n) => Change::Cancel { job: job(n), who: who() },
        Wish::Reopen(n) => Change::Reopen { job: job(n), who: who(), problem: problem() },
        Wish::Delivered(t, warning) => Change::Delivered { token: given.token(*t), warning: warning.then(problem) },
        Wish::PostponeDelivery(t, ms, doubtful, refused) => Change::PostponeDelivery {
            token: given.token(*t),
            pause: Duration::from_millis((*ms).into()),
            doubtful: *doubtful,
            refused: *refused,
            problem: problem(),
        },
        Wish::Resend(t) => Change::Resend { token: given.token(*t) },
        Wish::AskCommitment(t, n) => Change::AskCommitment { token: given.token(*t), transaction: format!("2.25.{n}") },
        Wish::AwaitCommitment(t, ms, warning) => Change::AwaitCommitment {
            token: given.token(*t),
            pause: Duration::from_millis((*ms).into()),
            problem: super::problem(if *warning { "delivery.coerced" } else { "delivery.uncommitted" }),
        },
        Wish::Committed(n, kept) => {
            Change::Committed { transaction: format!("2.25.{n}"), kept: *kept, pause: Duration::from_secs(2), problem: problem() }
        }
        Wish::ParkDelivery(t, doubtful) => Change::ParkDelivery { token: given.token(*t), doubtful: *doubtful, problem: problem() },
        Wish::Verified => Change::Verified,
        Wish::Purged => Change::Purged { who: who(), name: "study 12ab".into() },
        Wish::Discard(series, n) => {
            Change::Discard { series: key(u32::from(*series)), paths: (0..*n).map(|n| format!("{series}/{n}")).collect() }
        }
        Wish::Forget(n) => Change::Forget { job: job(n) },
        Wish::Train(change) => Change::Training(change.clone()),
        Wish::Expire(n) => Change::Expire { job: job(n) },
        Wish::Leave(series, n) => Change::Leave { series: key(u32::from(*series)), files: (0..*n).map(|n| format!("file {n}")).collect() },
        Wish::Wait(series) => Change::Wait { series: key(u32::from(*series)) },
        Wish::Other(series) => Change::Other { series: key(u32::from(*series)), problem: problem() },
        Wish::Left(series) => Change::Left { series: key(u32::from(*series)) },
        Wish::ForgetSeries(series) => Change::ForgetSeries { series: key(u32::from(*series)) },
        Wish::ForgetJournal(ms) => Change::ForgetJournal { before: Moment(now.0 - i64::from(*ms)) },
    }
}

/// What came to its end some time ago.
fn settled(ledger: &dyn Ledger) -> Vec<Vec<SeriesKey>> {
    let ago = |ms: i64| Moment(ledger.now().0 - ms);
    let mut all: Vec<Vec<SeriesKey>> = [(0, 0), (20_000, 0), (0, 20_000), (60_000, 90_000)]
        .into_iter()
        .map(|(received, parked)| ledger.settled(ago(received), ago(parked), 100).expect("read"))
        .collect();
    // In which order series became known is told elsewhere.
    all.iter_mut().for_each(|keys| keys.sort());
    all
}

fn over(ledger: &dyn Ledger) -> (Vec<JobId>, Vec<SeriesKey>) {
    let before = Moment(ledger.now().0 - 20_000);
    let jobs = ledger.expired(before, 100).expect("read").into_iter().map(|job| job.id).collect();
    let mut idle = ledger.idle(before, 0, 100).expect("read");
    idle.sort();
    (jobs, idle)
}

fn undelivered(ledger: &dyn Ledger) -> Vec<JobId> {
    let which = Which { states: vec![State::Parked], undelivered: true, ..Which::default() };
    ledger.jobs(&which).expect("read").into_iter().map(|job| job.id).collect()
}

/// Everything that can be read.
fn all(ledger: &dyn Ledger) -> impl PartialEq + std::fmt::Debug + use<> {
    let jobs = ledger.jobs(&Which::default()).expect("read");
    let of_jobs: Vec<_> = (0..16)
        .map(|n| {
            let id = JobId(n);
            let job = ledger.job(id).expect("read");
            (job, ledger.objects(id).expect("read"), ledger.deliveries(id).expect("read"), ledger.journal(Some(id)).expect("read"))
        })
        .collect();
    let series: Vec<_> = (0..2).map(|study| ledger.series(&format!("1.2.{study}")).expect("read")).collect();
    let transactions: Vec<_> = (0..4).map(|n| ledger.transaction(&format!("2.25.{n}")).expect("read")).collect();
    let closed: Vec<_> = (0..5).map(|series| ledger.closed(&key(series)).expect("read")).collect();
    let received: BTreeSet<_> = ledger.received(0, 100).expect("read").into_iter().map(|r| r.path).collect();
    let rest = (
        ledger.counts().expect("read"),
        (ledger.next_due().expect("read"), ledger.oldest().expect("read")),
        (ledger.outbox().expect("read"), undelivered(ledger), settled(ledger), over(ledger), ledger.leaving().expect("read")),
        (ledger.unverified().expect("read"), transactions),
    );
    let own: Vec<_> = ledger.journal(None).expect("read").into_iter().map(|e| (e.event, e.at)).collect();
    let models = (ledger.active().expect("read"), ledger.audit().expect("read"));
    let learnt = (ledger.cases().expect("read"), ledger.patients().expect("read"), ledger.runs().expect("read"));
    (jobs, of_jobs, (series, closed), received, rest, (own, models, learnt))
}

/// What an outsider keeps in mind to judge by, without knowing how a ledger works.
#[derive(Default)]
struct Witness {
    /// Volumes that were ever wanted and not forgotten, by job.
    wanted: BTreeMap<JobId, (SeriesKey, String)>,
    /// Accepted publications minus reopenings.
    published: BTreeMap<JobId, i32>,
    /// Which job a token was given for.
    claimed: BTreeMap<Token, JobId>,
    last_token: u64,
    audited: usize,
}

impl Witness {
    fn judge(&mut self, ledger: &dyn Ledger, given: &Given) -> Result<(), TestCaseError> {
        let jobs = ledger.jobs(&Which::default()).expect("read");
        // No job is lost, none is there twice.
        let mut contents = BTreeSet::new();
        for job in &jobs {
            prop_assert!(contents.insert((job.series.clone(), job.input.clone())), "{} twice", job.id);
            let known = self.wanted.entry(job.id).or_insert_with(|| (job.series.clone(), job.input.clone()));
            prop_assert_eq!(known, &(job.series.clone(), job.input.clone()));
            prop_assert!(job.progress.state == State::Running || job.progress.held.is_none());
            // Published once, or not at all.
            let times = self.published.get(&job.id).copied().unwrap_or(0);
            prop_assert!(
                times == i32::from(job.progress.state == State::Done),
                "{} published {times} times: {:?}",
                job.id,
                job.progress.state
            );
        }
        for id in self.wanted.keys() {
            prop_assert!(jobs.iter().any(|j| j.id == *id), "{id} is lost");
        }
        // Whoever is suspect runs alone in its process.
        let held: Vec<&Held> = jobs.iter().filter_map(|j| j.progress.held.as_ref()).collect();
        for one in held.iter().filter(|h| h.alone) {
            prop_assert_eq!(held.iter().filter(|h| h.owner == one.owner).count(), 1);
        }
        // No model that was rolled back is at work, and the audit hangs together.
        let withdrawn: Vec<_> = ledger.active().expect("read").into_iter().filter_map(|a| a.withdrawn).collect();
        prop_assert!(!jobs.iter().any(|j| j.progress.state == State::Running && withdrawn.contains(j.model.as_ref().expect("claimed"))));
        let audit = ledger.audit().expect("read");
        prop_assert!(first_broken(&audit).is_none() && audit.len() >= self.audited, "{audit:?}");
        self.audited = audit.len();
        // A token that no row holds is refused.
        let live: BTreeSet<Token> = held.iter().map(|h| h.token).collect();
        let stale = given.0.iter().filter(|t| !live.contains(t));
        for token in stale.take(3) {
            prop_assert_eq!(ledger.commit(vec![finish(*token, &[])]), Err(LedgerError::Stale(*token)));
        }
        Ok(())
    }

    /// Counts what was accepted: every publication, and every wish to publish again.
    fn committed(&mut self, changes: &[Change], after: &[Job]) {
        for change in changes {
            match change {
                Change::Finish { token, .. } => *self.published.entry(self.claimed[token]).or_default() += 1,
                Change::Retry { job, .. } if after.iter().any(|j| j.id == *job && j.progress.state == State::Queued) => {
                    self.published.insert(*job, 0);
                }
                // What is reopened and was not published before was adopted in this very commit.
                Change::Reopen { job, .. } => *self.published.entry(*job).and_modify(|n| *n = (*n).max(1)).or_insert(1) -= 1,
                Change::Forget { job } | Change::Expire { job } => {
                    self.wanted.remove(job);
                    self.published.remove(job);
                }
                _ => {}
            }
        }
        for job in after.iter().filter(|j| j.progress.state == State::Done) {
            let adopted = changes.iter().any(|c| matches!(c, Change::Close(c) if c.volumes.iter().any(|v| v.result.is_some())));
            let times = self.published.entry(job.id).or_default();
            if adopted && *times == 0 {
                *times = 1;
            }
        }
    }
}

fn history(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut reference, mut disk) = (InMemory::new(), OnDisk::new());
    let (mut a, _) = reference.open();
    let (mut b, _) = disk.open();
    let (mut given, mut witness) = (Given::default(), Witness::default());
    for step in steps {
        match &step {
            Step::Commit(wishes) => {
                let changes: Vec<Change> = wishes.iter().map(|w| change(w, &given, a.now())).collect();
                let before = b.jobs(&Which::default()).expect("read");
                let answers = (a.commit(changes.clone()), b.commit(changes.clone()));
                prop_assert_eq!(&answers.0, &answers.1, "{:?}", changes);
                if answers.1.is_ok() {
                    witness.committed(&changes, &b.jobs(&Which::default()).expect("read"));
                } else {
                    prop_assert_eq!(before, b.jobs(&Which::default()).expect("read"));
                }
            }
            Step::Claim(owner) => {
                let lease = lease(&format!("w{owner}"));
                let answers = (a.claim(&lease).expect("asked"), b.claim(&lease).expect("asked"));
                prop_assert_eq!(&answers.0, &answers.1);
                if let Some(claim) = answers.1 {
                    prop_assert!(claim.token.0 > witness.last_token);
                    witness.last_token = claim.token.0;
                    witness.claimed.insert(claim.token, claim.job.id);
                    given.0.push(claim.token);
                }
            }
            Step::Send(owner, destination) => {
                let (lease, destination) = (lease(&format!("w{owner}")), DESTINATIONS[usize::from(*destination)]);
                let answers =
                    (a.claim_delivery(destination, &lease).expect("asked"), b.claim_delivery(destination, &lease).expect("asked"));
                prop_assert_eq!(&answers.0, &answers.1);
                if let Some(claim) = answers.1 {
                    witness.last_token = claim.token.0;
                    given.0.push(claim.token);
                }
            }
            Step::Renew(token) => {
                let token = given.token(*token);
                prop_assert_eq!(a.renew(token, Duration::from_secs(60)), b.renew(token, Duration::from_secs(60)));
            }
            Step::Pass(ms) => {
                for clock in [reference.clock(), disk.clock()] {
                    clock.advance(Duration::from_millis((*ms).into()));
                }
            }
            Step::Jump(seconds) => {
                for clock in [reference.clock(), disk.clock()] {
                    use stunetd::sys::clock::Clock;
                    let (by, wall) = (Duration::from_secs(seconds.unsigned_abs().into()), clock.wall());
                    clock.set_wall(if *seconds < 0 { wall - by } else { wall + by });
                }
            }
            Step::Crash => {
                reference.crash(a);
                disk.crash(b);
                let (again, said) = reference.open();
                let (real, also) = disk.open();
                prop_assert_eq!(said, also);
                (a, b) = (again, real);
            }
        }
        prop_assert_eq!(all(&*a), all(&*b), "after {:?}", step);
        witness.judge(&*b, &given)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::support::cases_of(60), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_file_does_what_the_reference_does_and_nothing_is_lost_or_doubled(steps in prop::collection::vec(step(), 1..50)) {
        history(steps)?;
    }
}
