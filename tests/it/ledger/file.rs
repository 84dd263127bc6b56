//! What only a file can suffer: another process, damage, loss, an older copy, a full disk.

use super::*;
use stunetd::fault::{Code, Fault};

fn fill(ledger: &dyn Ledger, jobs: u32) {
    for n in 1..=jobs {
        ledger.commit(vec![close(n, &["a"])]).expect("durable");
    }
}

fn code(error: LedgerError) -> Code {
    Fault::from(error).code
}

#[test]
fn one_process_at_a_time() {
    let site = OnDisk::new();
    let (ledger, _) = SqliteLedger::open(&site.options()).expect("a ledger");
    let error = SqliteLedger::open(&site.options()).err().expect("refused");
    assert_eq!(error, LedgerError::InUse { path: site.state().join("ledger.lock"), by: Some(std::process::id()) });
    assert!(matches!(set_aside(&site.state()), Err(LedgerError::InUse { .. })));
    // Reading is always possible.
    fill(&ledger, 3);
    let reader = SqliteReader::open(&site.state(), clock()).expect("readable").expect("there");
    assert_eq!(reader.jobs(&Which::default()).expect("read").len(), 3);
    drop(ledger);
    SqliteLedger::open(&site.options()).expect("free again");
}

#[test]
fn a_clean_end_verifies_and_is_told_by_the_journal() {
    let mut site = OnDisk::new();
    let (ledger, _) = SqliteLedger::open(&site.options()).expect("a ledger");
    fill(&ledger, 1);
    let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
    ledger.commit(vec![finish(token, &[])]).expect("durable");
    ledger.close().expect("closed");
    assert!(!site.state().join("ledger.sqlite-wal").exists(), "the log is folded into the file");
    let (ledger, opening) = site.open();
    assert_eq!((opening, ledger.unverified().expect("read")), (Opening::default(), vec![]));
    let events: Vec<Event> = ledger.journal(None).expect("read").into_iter().map(|e| e.event).collect();
    assert_eq!(events, [Event::Opened, Event::Ended, Event::Opened]);
}

#[test]
fn damage_is_named_and_set_aside_for_a_new_beginning() {
    let mut site = OnDisk::new();
    let (ledger, _) = SqliteLedger::open(&site.options()).expect("a ledger");
    fill(&ledger, 50);
    ledger.close().expect("closed");
    let file = site.state().join("ledger.sqlite");
    let sound = std::fs::read(&file).expect("bytes");
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("first page", |bytes| bytes[..64].fill(0xaa)),
        ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
        ("inner pages", |bytes| {
            let half = bytes.len() / 2;
            bytes[half..half + 8192].fill(0x5a)
        }),
        ("another file", |bytes| *bytes = b"not a ledger at all, but long enough to be looked at".repeat(100)),
    ];
    for (what, damage) in damages {
        let mut bytes = sound.clone();
        damage(&mut bytes);
        std::fs::write(&file, &bytes).expect("written");
        let error = SqliteLedger::open(&site.options()).err().unwrap_or_else(|| panic!("{what}: opened"));
        assert_eq!(code(error), Code::LedgerCorrupt, "{what}");
    }
    let moved = set_aside(&site.state()).expect("moved");
    assert!(moved.iter().all(|p| p.exists()) && moved.len() >= 2, "{moved:?}");
    let (ledger, opening) = site.open();
    assert!(opening.fresh && !opening.restored);
    assert!(ledger.jobs(&Which::default()).expect("read").is_empty());
}

#[test]
fn a_ledger_that_is_gone_is_not_silently_begun_anew() {
    let site = OnDisk::new();
    SqliteLedger::open(&site.options()).expect("a ledger").0.close().expect("closed");
    std::fs::remove_file(site.state().join("ledger.sqlite")).expect("removed");
    assert_eq!(SqliteLedger::open(&site.options()).err().map(code), Some(Code::LedgerMissing));
    set_aside(&site.state()).expect("moved");
    assert!(SqliteLedger::open(&site.options()).expect("anew").1.fresh);
}

#[test]
fn a_newer_ledger_is_left_alone() {
    let site = OnDisk::new();
    SqliteLedger::open(&site.options()).expect("a ledger").0.close().expect("closed");
    // The version is a big-endian number at byte 60 of the file (SQLite file format, section 1.3).
    let file = site.state().join("ledger.sqlite");
    let mut bytes = std::fs::read(&file).expect("bytes");
    bytes[60..64].copy_from_slice(&99u32.to_be_bytes());
    std::fs::write(&file, &bytes).expect("written");
    assert_eq!(SqliteLedger::open(&site.options()).err().map(code), Some(Code::LedgerTooNew));
    assert_eq!(SqliteReader::open(&site.state(), clock()).err().map(code), Some(Code::LedgerTooNew));
    assert_eq!(std::fs::read(&file).expect("bytes"), bytes);
}

#[test]
fn an_older_copy_is_noticed_its_results_are_looked_at_and_its_deliveries_asked_about() {
    let mut site = OnDisk::new();
    let (ledger, _) = SqliteLedger::open(&site.options()).expect("a ledger");
    fill(&ledger, 2);
    let token = ledger.claim(&lease("w")).expect("asked").expect("a job").token;
    ledger.commit(vec![finish(token, &["pacs"])]).expect("durable");
    ledger.close().expect("closed");
    let backup = site.state().with_extension("backup");
    copy_ledger(&site.state(), &backup);

    let (ledger, opening) = SqliteLedger::open(&site.options()).expect("a ledger");
    assert!(!opening.restored);
    let token = ledger.claim_delivery("pacs", &lease("d")).expect("asked").expect("one").token;
    ledger.commit(vec![Change::Delivered { token, warning: None }]).expect("durable");
    ledger.close().expect("closed");
    // The file alone comes back.
    std::fs::copy(backup.join("ledger.sqlite"), site.state().join("ledger.sqlite")).expect("restored");
    let (ledger, opening) = site.open();
    assert!(opening.restored);
    assert_eq!(ledger.unverified().expect("read"), [JobId(1)]);
    assert!(ledger.deliveries(JobId(1)).expect("read")[0].doubtful);
    assert!(ledger.journal(None).expect("read").iter().any(|e| e.event == Event::Restored));
    site.crash(ledger);
    // Said once.
    assert!(!site.open().1.restored);
}

#[test]
fn nobody_can_change_the_journal_the_audit_or_the_split() {
    let site = OnDisk::new();
    let (ledger, _) = SqliteLedger::open(&site.options()).expect("a ledger");
    fill(&ledger, 1);
    let (roles, who) = (vec![("p".into(), PatientRole::Locked)], "night".into());
    ledger.commit(vec![Change::Training(TrainingChange::AssignRoles { roles, who })]).expect("durable");
    ledger.close().expect("closed");
    let connection = rusqlite::Connection::open(site.state().join("ledger.sqlite")).expect("database");
    for (statement, why) in [
        ("UPDATE journal SET who = 'nobody'", "append-only"),
        ("DELETE FROM journal WHERE seq = 1", "append-only"),
        ("UPDATE audit SET who = 'nobody'", "append-only"),
        ("DELETE FROM audit", "append-only"),
        ("UPDATE patients SET role = 'training'", "for ever"),
        ("DELETE FROM patients", "for ever"),
    ] {
        let error = connection.execute(statement, []).expect_err(statement);
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_line_of_the_audit_that_was_forged_or_taken_out_is_found() {
    let mut site = OnDisk::new();
    let (ledger, _) = site.open();
    let note = |subject: &str| {
        let (who, event, subject, detail) = ("anna".into(), AuditEvent::Approved, subject.into(), "by document 7".into());
        Change::Training(TrainingChange::Note { who, event, subject, detail })
    };
    ledger.commit(vec![note("g1"), note("g2"), note("g3")]).expect("durable");
    let sound = ledger.audit().expect("read");
    assert_eq!(first_broken(&sound), None);
    let mut forged = sound.clone();
    forged[1].who = "bert".into();
    assert_eq!(first_broken(&forged), Some(Seq(2)));
    // Even with a chain made to fit: then the next one does not.
    forged[1].chain = chain(&forged[0].chain, &forged[1]);
    assert_eq!(first_broken(&forged), Some(Seq(3)));
    let mut cut = sound;
    cut.remove(1);
    assert_eq!(first_broken(&cut), Some(Seq(3)));
}

/// Runs a body in a process of its own, for limits that hold for a whole process. `test` is the full name of the test that calls.
fn in_its_own_process(test: &str, body: impl FnOnce()) {
    const MARK: &str = "STUNETD_TEST_ALONE";
    if std::env::var(MARK).is_ok_and(|name| name == test) {
        return body();
    }
    let own = std::env::current_exe().expect("this program");
    let out = std::process::Command::new(own).args(["--exact", test, "--nocapture"]).env(MARK, test).output().expect("started");
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

/// Files of this process may not grow beyond so many bytes.
fn limit_file_size(bytes: u64) {
    // SAFETY: plain system calls on a struct that lives for the call; a write beyond the limit is then an error, not a signal.
    let set = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit);
        limit.rlim_cur = if bytes == u64::MAX { limit.rlim_max } else { bytes };
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit)
    };
    assert_eq!(set, 0);
}

#[test]
fn a_full_disk_fails_the_commit_and_the_next_one_works_when_there_is_space() {
    in_its_own_process("ledger::file::a_full_disk_fails_the_commit_and_the_next_one_works_when_there_is_space", || {
        let site = OnDisk::new();
        let (ledger, _) = SqliteLedger::open(&site.options()).expect("a ledger");
        fill(&ledger, 3);
        limit_file_size(std::fs::metadata(site.state().join("ledger.sqlite-wal")).expect("log").len());
        let errors: Vec<Code> = (10..14).filter_map(|n| ledger.commit(vec![close(n, &["a"])]).err()).map(code).collect();
        assert!(errors.len() == 4 && errors.iter().all(|c| matches!(c, Code::DiskFull | Code::DiskUnwritable)), "{errors:?}");
        assert_eq!(ledger.jobs(&Which::default()).expect("reading goes on").len(), 3);
        limit_file_size(u64::MAX);
        ledger.commit(vec![close(20, &["a"])]).expect("there is space again");
        ledger.close().expect("closed");
        assert_eq!(
            SqliteReader::open(&site.state(), clock()).expect("sound").expect("there").jobs(&Which::default()).expect("read").len(),
            4
        );
    });
}
