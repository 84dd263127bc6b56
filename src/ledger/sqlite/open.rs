//! Opening: one process at a time, tables brought up to date, running work put back, an older copy noticed.

use super::apply::{Desk, Note};
use super::mark::Mark;
use super::read::SqliteReader;
use super::rows::{Count, sql};
use super::schema;
use super::writer::{Tools, Writer};
use crate::dicom::SeriesKey;
use crate::ledger::change::{Change, Claim, DeliveryClaim, Lease};
use crate::ledger::contract::{Ledger, Limits, Opening, Reader, Which};
use crate::ledger::error::LedgerError;
use crate::ledger::names::{Event, State};
use crate::ledger::records::{
    Delivery, Entry, Job, JobId, Moment, Object, Outbox, Received, RefusedFile, Seq, SeriesRecord, Token, Transition,
};
use crate::ledger::training::{Active, AuditEntry, CaseRow, Patient, RunRow};
use crate::sys::clock::Clock;
use crate::sys::crash::{self, Point};
use crate::sys::durable::{self, Step, StorageError};
use crate::sys::lock::LockFile;
use rusqlite::{Connection, OpenFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The file in the state folder.
pub const FILE: &str = "ledger.sqlite";
/// Nobody waits longer than this for another try; a clock that was set back changes nothing in that.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How a ledger is opened.
#[derive(Clone)]
pub struct Options {
    /// The state folder; created if need be.
    pub state: PathBuf,
    /// When a job is suspect.
    pub limits: Limits,
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// This process, in the journal.
    pub who: String,
}

/// The ledger of a single machine.
pub struct SqliteLedger {
    /// None once it is closed.
    open: Mutex<Option<Open>>,
    reader: SqliteReader,
    path: PathBuf,
    who: String,
    commits: Commits,
}

/// Who is told how long each transaction took.
pub type Commits = Arc<OnceLock<Box<dyn Fn(Duration) + Send + Sync>>>;

/// What an open ledger holds.
struct Open {
    writer: Writer,
    thread: JoinHandle<Connection>,
    lock: LockFile,
}

/// Dates and deadlines: see [`Reader::now`].
#[derive(Clone)]
pub struct Time {
    clock: Arc<dyn Clock>,
    wall: Moment,
    monotonic: Instant,
}

impl Time {
    /// Starts with what the wall clock says.
    pub fn start(clock: Arc<dyn Clock>) -> Time {
        Time { wall: clock.wall().into(), monotonic: clock.monotonic(), clock }
    }

    /// Now, for dates.
    pub fn date(&self) -> Moment {
        self.clock.wall().into()
    }

    /// Now, for measuring.
    pub fn instant(&self) -> Instant {
        self.clock.monotonic()
    }

    /// Now, for deadlines.
    pub fn now(&self) -> Moment {
        self.wall.plus(self.clock.monotonic().saturating_duration_since(self.monotonic))
    }
}

impl SqliteLedger {
    /// Opens the ledger in a state folder, or begins one. Jobs that were running are put back (see [`Limits`]).
    ///
    /// Fails when another process has it, when the file is damaged, newer than this program, or gone although its mark is there.
    pub fn open(options: &Options) -> Result<(SqliteLedger, Opening), LedgerError> {
        durable::create_dir_all(&options.state)?;
        let path = options.state.join(FILE);
        let lock = lock(&path)?;
        crash::point(Point::LedgerLocked);
        let mark = Mark::read(&path);
        if mark.is_some() && !path.exists() {
            return Err(LedgerError::Missing(path));
        }
        let mut opening = Opening { fresh: !path.exists(), ..Opening::default() };
        let mut connection = connect(&path)?;
        schema::migrate(&mut connection, &path, schema::STEPS)?;
        durable::sync_dir(&options.state)?;
        crash::point(Point::LedgerMigrated);

        let time = Time::start(options.clock.clone());
        let here = recover(&mut connection, &path, options, &time, mark.as_ref(), &mut opening)?;
        crash::point(Point::LedgerRecovered);
        here.write(&path)?;

        let reader = SqliteReader::connect(&path, time.clone())?;
        let commits = Commits::default();
        let tools = Tools { connection, path: path.clone(), limits: options.limits, time, commits: commits.clone() };
        let (writer, thread) = Writer::start(tools)?;
        let open = Mutex::new(Some(Open { writer, thread, lock }));
        Ok((SqliteLedger { open, reader, path, who: options.who.clone(), commits }, opening))
    }

    /// From now on `told` hears how long each transaction took. Only the first call counts.
    pub fn tell_commits(&self, told: impl Fn(Duration) + Send + Sync + 'static) {
        let _ = self.commits.set(Box::new(told));
    }

    /// Ends well: results published so far count as verified, the log is folded into the file, and the mark says how far it went. Whoever
    /// still asks is refused.
    pub fn close(&self) -> Result<(), LedgerError> {
        self.commit(vec![Change::Verified])?;
        let Some((connection, lock)) = self.stop() else { return Err(closed()) };
        let date = self.reader.now();
        let desk = Desk { connection: &connection, path: &self.path, now: date, date, limits: Limits::default() };
        desk.note(Note::of(Event::Ended, &self.who))?;
        let mark = stand(&desk)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(sql(&self.path))?;
        crash::point(Point::LedgerFolded);
        mark.write(&self.path)?;
        drop(lock);
        Ok(())
    }

    /// Ends as a crash would: what is committed stays, and the next opening puts running jobs back. Whoever still asks is refused.
    pub fn leave(&self) {
        self.stop();
    }

    fn stop(&self) -> Option<(Connection, LockFile)> {
        let Open { writer, thread, lock } = self.lock().take()?;
        drop(writer);
        // A panic there was told by the hook.
        Some((thread.join().ok()?, lock))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> Result<Writer, LedgerError> {
        self.lock().as_ref().map(|open| open.writer.clone()).ok_or_else(closed)
    }
}

fn closed() -> LedgerError {
    LedgerError::Bug("the ledger is closed".into())
}

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Sets a damaged or missing ledger aside so that the next opening begins a new one: the file, its log and its mark get a name that ends in
/// `.broken-N`. Returns the new names. Fails when a process has the ledger open.
pub fn set_aside(state: &Path) -> Result<Vec<PathBuf>, LedgerError> {
    let path = state.join(FILE);
    let _lock = lock(&path)?;
    let mut names = Vec::new();
    let number =
        (1..).find(|n| !state.join(format!("{FILE}.broken-{n}")).exists() && !state.join(format!("ledger.mark.broken-{n}")).exists());
    let number: u32 = number.ok_or_else(|| LedgerError::Bug("no free name".into()))?;
    for old in [path.clone(), state.join(format!("{FILE}-wal")), state.join(format!("{FILE}-shm")), Mark::path(&path)] {
        if old.exists() {
            let mut name = old.clone().into_os_string();
            name.push(format!(".broken-{number}"));
            durable::rename(&old, Path::new(&name))?;
            names.push(PathBuf::from(name));
        }
    }
    Ok(names)
}

/// Removes copies of the ledger: those that were set aside, and those that were made before the tables were brought up to date. How many.
pub fn remove_copies(state: &Path) -> Result<u64, LedgerError> {
    let mut removed = 0;
    for entry in std::fs::read_dir(state).map_err(StorageError::at(Step::Read, state))? {
        let entry = entry.map_err(StorageError::at(Step::Read, state))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let set_aside = name.strip_prefix("ledger.").is_some_and(|rest| rest.contains(".broken-"));
        let version = name.strip_prefix("ledger.v").and_then(|rest| rest.split_once(".sqlite"));
        if set_aside || version.is_some_and(|(version, _)| version.parse::<u32>().is_ok()) {
            std::fs::remove_file(entry.path()).map_err(StorageError::at(Step::Remove, &entry.path()))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn lock(path: &Path) -> Result<LockFile, LedgerError> {
    let file = path.with_extension("lock");
    LockFile::take(&file)?.ok_or_else(|| LedgerError::InUse { by: LockFile::holder(&file), path: file })
}

/// A connection that may write; the file is checked from end to end.
fn connect(path: &Path) -> Result<Connection, LedgerError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(sql(path))?;
    // The size limit keeps the log short after a burst. What is deleted is overwritten: a purged study leaves no UID in free pages.
    let set = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; \
               PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -2048; PRAGMA secure_delete = ON;";
    connection.execute_batch(set).map_err(sql(path))?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(sql(path))?;
    connection.set_prepared_statement_cache_capacity(64);
    check(&connection, path)?;
    Ok(connection)
}

/// Fails when the tables are not sound.
pub fn check(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql(path))?;
    if found == "ok" { Ok(()) } else { Err(LedgerError::Corrupt { path: path.into(), detail: found }) }
}

/// How far the ledger is.
fn stand(desk: &Desk<'_>) -> Result<Mark, LedgerError> {
    Ok(Mark {
        instance: desk.one("SELECT value FROM facts WHERE name = 'instance'", [], |row| row.get(0))?,
        opening: desk.one("SELECT value FROM counters WHERE name = 'opening'", [], |row| row.get::<_, Count>(0))?.0,
        seq: desk.end()?.0,
    })
}

/// Everything that an opening changes, in one transaction.
fn recover(
    connection: &mut Connection,
    path: &Path,
    options: &Options,
    time: &Time,
    mark: Option<&Mark>,
    opening: &mut Opening,
) -> Result<Mark, LedgerError> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sql(path))?;
    let desk = Desk { connection: &transaction, path, now: time.now(), date: time.date(), limits: options.limits };
    let instance = uuid::Builder::from_random_bytes(random()?).into_uuid().to_string();
    desk.run("INSERT INTO facts (name, value) VALUES ('instance', ?1) ON CONFLICT DO NOTHING", [instance])?;
    let here = stand(&desk)?;
    opening.restored = mark.is_some_and(|mark| here.is_behind(mark));
    if opening.restored {
        // What happened after the copy was made is not known: every result is looked at, every delivery asked about.
        desk.note(Note::of(Event::Restored, &options.who))?;
        desk.run("UPDATE counters SET value = 0 WHERE name = 'verified'", [])?;
        desk.run("UPDATE outbox SET doubtful = 1 WHERE state IN ('pending', 'sending', 'waiting', 'parked')", [])?;
        let ahead = mark.map_or(here.opening, |mark| mark.opening.max(here.opening));
        desk.run("UPDATE counters SET value = ?1 WHERE name = 'opening'", [Count(ahead)])?;
    }
    desk.next("opening")?;
    desk.note(Note::of(Event::Opened, &options.who))?;
    desk.recover(opening)?;
    let here = stand(&desk)?;
    transaction.commit().map_err(sql(path))?;
    Ok(here)
}

/// Random bytes of the system.
fn random() -> Result<[u8; 16], LedgerError> {
    use std::io::Read;
    let mut bytes = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map(|()| bytes).map_err(|e| LedgerError::Bug(format!("/dev/urandom: {e}")))
}

impl Reader for SqliteLedger {
    fn now(&self) -> Moment {
        self.reader.now()
    }
    fn instance(&self) -> Result<String, LedgerError> {
        self.reader.instance()
    }
    fn job(&self, id: JobId) -> Result<Option<Job>, LedgerError> {
        self.reader.job(id)
    }
    fn jobs(&self, which: &Which) -> Result<Vec<Job>, LedgerError> {
        self.reader.jobs(which)
    }
    fn counts(&self) -> Result<Vec<(State, u64)>, LedgerError> {
        self.reader.counts()
    }
    fn next_due(&self) -> Result<Option<Duration>, LedgerError> {
        self.reader.next_due()
    }
    fn oldest(&self) -> Result<Vec<(State, Duration)>, LedgerError> {
        self.reader.oldest()
    }
    fn objects(&self, job: JobId) -> Result<Vec<Object>, LedgerError> {
        self.reader.objects(job)
    }
    fn deliveries(&self, job: JobId) -> Result<Vec<Delivery>, LedgerError> {
        self.reader.deliveries(job)
    }
    fn transaction(&self, uid: &str) -> Result<Option<Delivery>, LedgerError> {
        self.reader.transaction(uid)
    }
    fn outbox(&self) -> Result<Vec<Outbox>, LedgerError> {
        self.reader.outbox()
    }
    fn journal(&self, job: Option<JobId>) -> Result<Vec<Entry>, LedgerError> {
        self.reader.journal(job)
    }
    fn transitions(&self, after: Seq) -> Result<(Seq, Vec<Transition>), LedgerError> {
        self.reader.transitions(after)
    }
    fn unverified(&self) -> Result<Vec<JobId>, LedgerError> {
        self.reader.unverified()
    }
    fn series(&self, uid: &str) -> Result<Vec<SeriesRecord>, LedgerError> {
        self.reader.series(uid)
    }
    fn closed(&self, series: &SeriesKey) -> Result<Option<String>, LedgerError> {
        self.reader.closed(series)
    }
    fn expired(&self, before: Moment, limit: u64) -> Result<Vec<Job>, LedgerError> {
        self.reader.expired(before, limit)
    }
    fn idle(&self, before: Moment, skip: u64, limit: u64) -> Result<Vec<SeriesKey>, LedgerError> {
        self.reader.idle(before, skip, limit)
    }
    fn leaving(&self) -> Result<BTreeMap<SeriesKey, BTreeSet<String>>, LedgerError> {
        self.reader.leaving()
    }
    fn settled(&self, before: Moment, parked_before: Moment, limit: u64) -> Result<Vec<SeriesKey>, LedgerError> {
        self.reader.settled(before, parked_before, limit)
    }
    fn received_of(&self, series: &SeriesKey) -> Result<Vec<Received>, LedgerError> {
        self.reader.received_of(series)
    }
    fn refused(&self, limit: u64) -> Result<Vec<RefusedFile>, LedgerError> {
        self.reader.refused(limit)
    }
    fn unknown(&self, paths: Vec<String>) -> Result<Vec<String>, LedgerError> {
        self.reader.unknown(paths)
    }
    fn received(&self, skip: u64, limit: u64) -> Result<Vec<Received>, LedgerError> {
        self.reader.received(skip, limit)
    }
    fn active(&self) -> Result<Vec<Active>, LedgerError> {
        self.reader.active()
    }
    fn cases(&self) -> Result<Vec<CaseRow>, LedgerError> {
        self.reader.cases()
    }
    fn patients(&self) -> Result<Vec<Patient>, LedgerError> {
        self.reader.patients()
    }
    fn runs(&self) -> Result<Vec<RunRow>, LedgerError> {
        self.reader.runs()
    }
    fn audit(&self) -> Result<Vec<AuditEntry>, LedgerError> {
        self.reader.audit()
    }
}

impl Ledger for SqliteLedger {
    fn commit(&self, changes: Vec<Change>) -> Result<Seq, LedgerError> {
        self.writer()?.commit(changes)
    }
    fn claim(&self, lease: &Lease) -> Result<Option<Claim>, LedgerError> {
        self.writer()?.claim(lease)
    }
    fn claim_delivery(&self, destination: &str, lease: &Lease) -> Result<Option<DeliveryClaim>, LedgerError> {
        self.writer()?.claim_delivery(destination, lease)
    }
    fn renew(&self, token: Token, hold: Duration) -> Result<(), LedgerError> {
        self.writer()?.renew(token, hold)
    }
}
