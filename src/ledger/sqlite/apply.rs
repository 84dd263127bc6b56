//! Changes to rows, inside the writer's transaction.

use super::rows::{self, Count, sql};
use crate::dicom::SeriesKey;
use crate::ledger::change::{Change, Claim, Closing, Lease, NewVolume};
use crate::ledger::contract::{Limits, Opening};
use crate::ledger::error::LedgerError;
use crate::ledger::names::{Event, State};
use crate::ledger::records::{Held, Job, JobId, Moment, Problem, Progress, Published, Received, Seq, Token};
use rusqlite::{Connection, OptionalExtension, Params, Row, ToSql, params};
use std::path::Path;
use std::time::Duration;

/// Longest text of a UID or a name.
pub const NAME: usize = 256;
/// Longest path, or words of a problem.
const WORDS: usize = 8192;

/// One transaction's view of the tables.
pub struct Desk<'c> {
    /// In a transaction.
    pub connection: &'c Connection,
    /// The file, for messages.
    pub path: &'c Path,
    /// For deadlines.
    pub now: Moment,
    /// For dates.
    pub date: Moment,
    /// When a job is suspect.
    pub limits: Limits,
}

/// A line for the journal.
pub struct Note<'n> {
    pub job: Option<JobId>,
    pub destination: Option<&'n str>,
    pub event: Event,
    pub before: Option<&'n str>,
    pub after: Option<&'n str>,
    pub who: &'n str,
    pub problem: Option<&'n Problem>,
}

impl<'n> Note<'n> {
    /// Of no job.
    pub fn of(event: Event, who: &'n str) -> Note<'n> {
        Note { job: None, destination: None, event, before: None, after: None, who, problem: None }
    }
}

impl Desk<'_> {
    /// Makes one change.
    pub fn apply(&self, change: Change) -> Result<(), LedgerError> {
        match change {
            Change::Receive(received) => self.receive(&received),
            Change::Close(closing) => self.close(closing),
            Change::Wait { series } => {
                let series = self.series(&series)?;
                self.run("UPDATE series SET waiting = ?2 WHERE id = ?1", params![series, self.date]).map(|_| ())
            }
            Change::Other { series, problem } => self.other(&series, &problem),
            Change::Finish { token, result, destinations, doubtful } => {
                let mut job = self.held(token)?;
                let who = owner(&job.progress);
                self.publish(&mut job, result, Progress::finish, &who, &destinations, doubtful)
            }
            Change::Postpone { token, pause, problem } => {
                let until = self.now.plus(pause);
                self.by_worker(token, |p| p.postpone(until, problem))
            }
            Change::Park { token, problem } => self.by_worker(token, |p| p.park(problem)),
            Change::Release { token } => self.by_worker(token, Progress::release),
            Change::Pin { token, model } => {
                check("model", &model, NAME)?;
                if self.is_withdrawn(&model)? {
                    return Err(LedgerError::Stale(token));
                }
                let pinned = self.run("UPDATE jobs SET model = ?2 WHERE token = ?1", params![token, model])?;
                if pinned == 1 { Ok(()) } else { Err(LedgerError::Stale(token)) }
            }
            Change::Outdate { token } => {
                let series = self.one("SELECT series_id FROM jobs WHERE token = ?1", [token], |row| row.get::<_, i64>(0)).ok();
                self.by_worker(token, Progress::supersede)?;
                self.doubt(series.unwrap_or_default())
            }
            Change::Retry { job, who } => self.retry(job, &who),
            Change::Cancel { job, who } => self.cancel(job, &who),
            Change::Reopen { job, who, problem } => {
                let (mut job, line) = (self.job(job)?, self.next("line")?);
                let before = job.progress.state;
                let event = job.progress.reopen(line, problem).map_err(|_| wrong(&job, "making it again"))?;
                self.store(&job, before, event, &who)
            }
            Change::Delivered { .. }
            | Change::PostponeDelivery { .. }
            | Change::Resend { .. }
            | Change::AskCommitment { .. }
            | Change::AwaitCommitment { .. }
            | Change::ParkDelivery { .. } => self.apply_to_delivery(change),
            Change::Committed { transaction, kept, pause, problem } => self.committed(&transaction, kept, pause, problem),
            Change::Training(change) => self.train(change),
            Change::Verified => {
                self.run("UPDATE counters SET value = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'journal'), 0) WHERE name = 'verified'", []).map(|_| ())
            }
            Change::Discard { series, paths } => self.discard(&series, &paths),
            Change::Forget { job } => self.forget(job),
            Change::Expire { job } => self.expire(job),
            Change::Leave { series, files } => self.leave(&series, &files),
            Change::Left { series } => self.leave(&series, &[]),
            Change::ForgetSeries { series } => self.forget_series(&series),
            Change::Purged { who, name } => {
                check("person", &who, NAME)?;
                let problem = Problem { code: Event::Purged.name().into(), detail: name };
                self.note(Note { problem: Some(&problem), ..Note::of(Event::Purged, &who) }).map(|_| ())
            }
            Change::Refuse(files) => self.refuse(&files),
            Change::ForgetRefused { before } => self.run("DELETE FROM refused_files WHERE last < ?1", [before]).map(|_| ()),
            Change::ForgetJournal { before } => {
                self.run("UPDATE counters SET value = max(value, ?1) WHERE name = 'journal_before'", [before])?;
                self.run("DELETE FROM journal WHERE at < ?1", [before]).map(|_| ())
            }
        }
    }

    /// Gives out the next job, if one may begin.
    pub fn claim(&self, lease: &Lease) -> Result<Option<Claim>, LedgerError> {
        let lost = self.tokens(
            "SELECT token FROM jobs WHERE state = 'running' AND until < ?1 AND owner <> ?2 ORDER BY id",
            params![self.now, lease.owner],
        )?;
        for token in lost {
            self.put_back(token)?;
        }
        let (running, alone): (Count, Count) = self.one(
            "SELECT count(*), count(*) FILTER (WHERE alone) FROM jobs WHERE state = 'running' AND owner = ?1",
            [&lease.owner],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if alone.0 > 0 || self.is_withdrawn(&lease.model)? {
            return Ok(None);
        }
        let query = format!(
            "{} WHERE j.state IN ('queued', 'waiting') AND (j.state = 'queued' OR j.not_before <= ?1) ORDER BY j.rank DESC, j.line LIMIT 1",
            rows::JOB
        );
        let Some(mut job) = self.maybe(&query, [self.now], rows::job)? else { return Ok(None) };
        if job.progress.suspect && running.0 > 0 {
            return Ok(None);
        }
        let token = Token(self.next("token")?);
        let held = Held { owner: lease.owner.clone(), token, until: self.now.plus(lease.hold), alone: job.progress.suspect };
        let before = job.progress.state;
        let event = job.progress.claim(held);
        job.model = Some(lease.model.clone());
        self.store(&job, before, event, &lease.owner)?;
        job.changed = self.date;
        Ok(Some(Claim { token, job }))
    }

    /// Lets a claim hold on.
    pub fn renew(&self, token: Token, hold: Duration) -> Result<(), LedgerError> {
        let until = self.now.plus(hold);
        let jobs = self.run("UPDATE jobs SET until = ?2 WHERE token = ?1", params![token, until])?;
        let all = jobs + self.run("UPDATE outbox SET until = ?2 WHERE token = ?1", params![token, until])?;
        if all == 1 { Ok(()) } else { Err(LedgerError::Stale(token)) }
    }

    /// Puts back what the processes before this one had in work: they are dead, or this one would not have the lock.
    pub fn recover(&self, opening: &mut Opening) -> Result<(), LedgerError> {
        for token in self.tokens("SELECT token FROM jobs WHERE state = 'running' ORDER BY id", [])? {
            match self.put_back(token)? {
                State::Parked => opening.parked += 1,
                _ => opening.requeued += 1,
            }
        }
        opening.doubtful = self.put_back_deliveries(None)?;
        // The wall clock may have been set back meanwhile; nobody waits longer than the longest pause then.
        let longest = self.now.plus(super::open::LONGEST_PAUSE);
        self.run("UPDATE jobs SET not_before = ?1 WHERE state = 'waiting' AND not_before > ?1", [longest])?;
        self.run("UPDATE outbox SET not_before = ?1 WHERE state = 'waiting' AND not_before > ?1", [longest])?;
        Ok(())
    }

    fn put_back(&self, token: Token) -> Result<State, LedgerError> {
        let (mut job, line) = (self.held(token)?, self.next("line")?);
        let who = owner(&job.progress);
        let before = job.progress.state;
        let event = job.progress.crash(self.limits, line);
        self.store(&job, before, event, &who)?;
        Ok(job.progress.state)
    }

    fn receive(&self, received: &Received) -> Result<(), LedgerError> {
        let series = self.series(&received.series)?;
        let Received { sop_instance, path, bytes, .. } = received;
        check("SOP Instance UID", sop_instance, NAME)?;
        check("path", path, WORDS)?;
        let insert = "INSERT INTO instances (series_id, sop_instance_uid, path, bytes, received) VALUES (?1, ?2, ?3, ?4, ?5) \
                      ON CONFLICT (path) DO NOTHING";
        if self.run(insert, params![series, sop_instance, path, Count(*bytes), self.date])? > 0 {
            // Who sends it once more after its result was removed wants it again.
            self.run("DELETE FROM expired WHERE series_id = ?1", [series])?;
        }
        Ok(())
    }

    fn close(&self, closing: Closing) -> Result<(), LedgerError> {
        let series = self.series(&closing.series)?;
        let update = "UPDATE series SET closings = closings + 1, closed = ?2, evidence = ?3, print = ?4, waiting = NULL WHERE id = ?1";
        check("print", &closing.print, NAME)?;
        self.run(update, params![series, self.date, closing.evidence.name(), closing.print])?;
        self.run("DELETE FROM refusals WHERE series_id = ?1", [series])?;
        for (place, problem) in (0i64..).zip(&closing.refusals) {
            check("words", &problem.code, NAME)?;
            let insert = "INSERT INTO refusals (series_id, place, code, detail) VALUES (?1, ?2, ?3, ?4)";
            self.run(insert, params![series, place, problem.code, short(&problem.detail)])?;
        }
        for volume in &closing.volumes {
            check("input", &volume.input, NAME)?;
            let known =
                self.maybe(&format!("{} WHERE j.series_id = ?1 AND j.input = ?2", rows::JOB), params![series, volume.input], rows::job)?;
            self.want(series, known, volume)?;
        }
        for mut job in self.list(&format!("{} WHERE j.series_id = ?1 ORDER BY j.id", rows::JOB), [series], rows::job)? {
            if closing.volumes.iter().any(|v| v.input == job.input) {
                continue;
            }
            let before = job.progress.state;
            match before {
                State::Queued | State::Waiting | State::Parked => {
                    let event = job.progress.supersede();
                    self.store(&job, before, event, "intake")?;
                }
                State::Done => self.cancel_deliveries(job.id, "intake").map(|_| ())?,
                State::Running | State::Cancelled | State::Superseded => {}
            }
        }
        Ok(())
    }

    fn other(&self, key: &SeriesKey, problem: &Problem) -> Result<(), LedgerError> {
        check("words", &problem.code, NAME)?;
        let series = self.series(key)?;
        let update = "UPDATE series SET closed = ?2 WHERE id = ?1 AND closed IS NULL AND waiting IS NULL";
        if self.run(update, params![series, self.date])? > 0 {
            let insert = "INSERT INTO refusals (series_id, place, code, detail) VALUES (?1, 0, ?2, ?3)";
            self.run(insert, params![series, problem.code, short(&problem.detail)])?;
        }
        Ok(())
    }

    /// A volume is wanted: it gets a job unless it has one.
    fn want(&self, series: i64, known: Option<Job>, volume: &NewVolume) -> Result<(), LedgerError> {
        let mut job = match known {
            Some(job) => job,
            None if self.is_expired(series, &volume.input)? => return Ok(()),
            None => self.insert(series, volume)?,
        };
        if job.contest != volume.contest {
            self.run("UPDATE jobs SET contest = ?2 WHERE id = ?1", params![job.id, volume.contest])?;
            job.contest.clone_from(&volume.contest);
        }
        let before = job.progress.state;
        match (&volume.result, before) {
            (Some(result), State::Queued | State::Waiting | State::Superseded) => {
                self.publish(&mut job, result.clone(), Progress::adopt, "intake", &volume.destinations, true)
            }
            (None, State::Superseded) => {
                let event = job.progress.revive(self.next("line")?);
                self.store(&job, before, event, "intake")
            }
            _ => Ok(()),
        }
    }

    fn insert(&self, series: i64, volume: &NewVolume) -> Result<Job, LedgerError> {
        let progress = Progress::queued(volume.priority, self.next("line")?);
        let insert = "INSERT INTO jobs (series_id, input, priority, created, changed, state, attempts, failures, crashes, crashes_alone, suspect, \
                      rank, line, rule, contest) VALUES (?1, ?2, ?3, ?4, ?4, 'queued', 0, 0, 0, 0, 0, ?5, ?6, ?7, ?8)";
        let (priority, rank) = (volume.priority, volume.priority as i64);
        let values = params![series, volume.input, priority, self.date, rank, Count(progress.line), volume.rule, volume.contest];
        self.run(insert, values)?;
        let id = JobId(u64::try_from(self.connection.last_insert_rowid()).unwrap_or_default());
        self.note(Note { job: Some(id), after: Some(State::Queued.name()), ..Note::of(Event::Queued, "intake") })?;
        self.job(id)
    }

    /// The job is done; its files are remembered and its result goes to the destinations.
    fn publish(
        &self,
        job: &mut Job,
        result: Published,
        step: impl FnOnce(&mut Progress) -> Event,
        who: &str,
        destinations: &[String],
        doubtful: bool,
    ) -> Result<(), LedgerError> {
        check("folder", &result.folder, NAME)?;
        check("identity", &result.identity, NAME)?;
        self.run("DELETE FROM objects WHERE job_id = ?1", [job.id])?;
        for object in &result.objects {
            check("file", &object.file, NAME)?;
            let insert = "INSERT INTO objects (job_id, file, bytes, sha256) VALUES (?1, ?2, ?3, ?4)";
            self.run(insert, params![job.id, object.file, Count(object.bytes), object.sha256])?;
        }
        let before = job.progress.state;
        let event = step(&mut job.progress);
        job.result = Some(result);
        self.store(job, before, event, who)?;
        destinations.iter().try_for_each(|destination| self.send_to(job.id, destination, doubtful))
    }

    fn retry(&self, id: JobId, who: &str) -> Result<(), LedgerError> {
        check("person", who, NAME)?;
        let mut job = self.job(id)?;
        if job.progress.state == State::Done && self.retry_deliveries(id, who)? > 0 {
            return Ok(());
        }
        let (before, line) = (job.progress.state, self.next("line")?);
        let event = job.progress.retry(line).map_err(|_| wrong(&job, "trying it again"))?;
        self.store(&job, before, event, who)
    }

    fn cancel(&self, id: JobId, who: &str) -> Result<(), LedgerError> {
        check("person", who, NAME)?;
        let mut job = self.job(id)?;
        if job.progress.state == State::Done {
            return if self.cancel_deliveries(id, who)? > 0 { Ok(()) } else { Err(wrong(&job, "ending it")) };
        }
        let before = job.progress.state;
        let event = job.progress.cancel().map_err(|_| wrong(&job, "ending it"))?;
        self.store(&job, before, event, who)
    }

    /// The state in which a series was closed says nothing any more: it is to be closed again.
    pub fn doubt(&self, series: i64) -> Result<(), LedgerError> {
        self.run("UPDATE series SET print = NULL WHERE id = ?1", [series]).map(|_| ())
    }

    fn by_worker(&self, token: Token, step: impl FnOnce(&mut Progress) -> Event) -> Result<(), LedgerError> {
        let mut job = self.held(token)?;
        let (who, before) = (owner(&job.progress), job.progress.state);
        let event = step(&mut job.progress);
        self.store(&job, before, event, &who)
    }

    /// Writes a job's row and the journal.
    pub fn store(&self, job: &Job, before: State, event: Event, who: &str) -> Result<(), LedgerError> {
        let p = &job.progress;
        let problem = p.problem.as_ref();
        if let Some(held) = &p.held {
            check("owner", &held.owner, NAME)?;
        }
        let (before, after) = (Some(before.name()), Some(p.state.name()));
        let seq = self.note(Note { job: Some(job.id), before, after, problem, ..Note::of(event, who) })?;
        let update = "UPDATE jobs SET changed = ?2, model = ?3, folder = ?4, identity = ?5, state = ?6, attempts = ?7, failures = ?8, crashes = ?9, \
                      crashes_alone = ?10, suspect = ?11, not_before = ?12, owner = ?13, token = ?14, until = ?15, alone = ?16, code = ?17, \
                      detail = ?18, rank = ?19, line = ?20, done = ?21 WHERE id = ?1";
        let (held, result) = (p.held.as_ref(), job.result.as_ref());
        self.run(
            update,
            params![
                job.id,
                self.date,
                job.model,
                result.map(|r| &r.folder),
                result.map(|r| &r.identity),
                p.state,
                p.attempts,
                p.failures,
                p.crashes,
                p.crashes_alone,
                p.suspect,
                p.not_before,
                held.map(|h| &h.owner),
                held.map(|h| h.token),
                held.map(|h| h.until),
                held.map(|h| h.alone),
                problem.map(|x| &x.code),
                problem.map(|x| short(&x.detail)),
                p.rank as i64,
                Count(p.line),
                (p.state == State::Done).then_some(seq),
            ],
        )
        .map(|_| ())
    }

    /// Adds a line to the journal.
    pub fn note(&self, note: Note<'_>) -> Result<Seq, LedgerError> {
        let insert = "INSERT INTO journal (at, job_id, destination, event, state_before, state_after, who, code, detail) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let Note { job, destination, event, before, after, who, problem } = note;
        let (code, detail) = (problem.map(|p| &p.code), problem.map(|p| short(&p.detail)));
        self.run(insert, params![self.date, job, destination, event, before, after, who, code, detail])?;
        Ok(Seq(u64::try_from(self.connection.last_insert_rowid()).unwrap_or_default()))
    }

    /// A job.
    pub fn job(&self, id: JobId) -> Result<Job, LedgerError> {
        let found = self.maybe(&format!("{} WHERE j.id = ?1", rows::JOB), [id], rows::job)?;
        found.ok_or(LedgerError::UnknownJob(id))
    }

    fn held(&self, token: Token) -> Result<Job, LedgerError> {
        let found = self.maybe(&format!("{} WHERE j.token = ?1", rows::JOB), [token], rows::job)?;
        found.ok_or(LedgerError::Stale(token))
    }

    /// The row of a series, which is made if need be.
    pub fn series(&self, key: &SeriesKey) -> Result<i64, LedgerError> {
        check("Study Instance UID", &key.study, NAME)?;
        check("Series Instance UID", &key.series, NAME)?;
        let insert = "INSERT INTO series (study_uid, series_uid) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.run(insert, [&key.study, &key.series])?;
        self.one("SELECT id FROM series WHERE series_uid = ?2 AND study_uid = ?1", [&key.study, &key.series], |row| row.get(0))
    }

    /// The end of the journal, lines that were removed since included.
    pub fn end(&self) -> Result<Seq, LedgerError> {
        self.one("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'journal'), 0)", [], |row| row.get(0))
    }

    /// The next number of a counter.
    pub fn next(&self, counter: &str) -> Result<u64, LedgerError> {
        let update = "UPDATE counters SET value = value + 1 WHERE name = ?1 RETURNING value";
        self.one(update, [counter], |row| row.get::<_, Count>(0)).map(|count| count.0)
    }

    fn tokens(&self, query: &str, parameters: impl Params) -> Result<Vec<Token>, LedgerError> {
        self.list(query, parameters, |row| row.get(0))
    }

    /// Runs a statement; how many rows it touched.
    pub fn run(&self, statement: &str, parameters: impl Params) -> Result<usize, LedgerError> {
        self.connection.prepare_cached(statement).and_then(|mut s| s.execute(parameters)).map_err(sql(self.path))
    }

    /// The one row of a query.
    pub fn one<T>(&self, query: &str, p: impl Params, read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>) -> Result<T, LedgerError> {
        self.connection.prepare_cached(query).and_then(|mut s| s.query_row(p, read)).map_err(sql(self.path))
    }

    /// The first row of a query, if there is one.
    pub fn maybe<T>(
        &self,
        query: &str,
        parameters: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, LedgerError> {
        self.connection.prepare_cached(query).and_then(|mut s| s.query_row(parameters, read).optional()).map_err(sql(self.path))
    }

    /// All rows of a query.
    pub fn list<T>(
        &self,
        query: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, LedgerError> {
        let rows = self.connection.prepare_cached(query).and_then(|mut s| s.query_map(parameters, read)?.collect());
        rows.map_err(sql(self.path))
    }
}

pub fn owner(progress: &Progress) -> String {
    progress.held.as_ref().map(|h| h.owner.clone()).unwrap_or_default()
}

/// The job's state does not allow a wish.
pub fn wrong(job: &Job, wish: &'static str) -> LedgerError {
    LedgerError::WrongState { job: job.id, state: job.progress.state, wish }
}

/// What comes from outside is bounded before it is stored.
pub fn check(what: &'static str, text: &str, longest: usize) -> Result<(), LedgerError> {
    if text.is_empty() || text.len() > longest { Err(LedgerError::Invalid(what)) } else { Ok(()) }
}

/// Words for people are cut, not refused.
pub fn short(text: &str) -> impl ToSql + '_ {
    let mut end = text.len().min(WORDS);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
