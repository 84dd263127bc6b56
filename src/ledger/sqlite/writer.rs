//! The one thread that writes: it gathers what waits, makes one transaction of it, and answers when the disk has it.

use super::apply::Desk;
use super::open::{Commits, Time};
use super::rows::sql;
use crate::ledger::change::{Change, Claim, DeliveryClaim, Lease};
use crate::ledger::contract::Limits;
use crate::ledger::error::LedgerError;
use crate::ledger::records::{Seq, Token};
use crate::sys::crash::{self, Point};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Requests that may wait for the writer; more callers wait before they have asked.
const WAITING: usize = 1024;
/// Requests that share one transaction.
const TOGETHER: usize = 512;

/// Where an answer goes: one message.
type Reply<T> = SyncSender<Result<T, LedgerError>>;

/// What can be asked of the writer.
enum Request {
    Commit(Vec<Change>, Reply<Seq>),
    Claim(Lease, Reply<Option<Claim>>),
    ClaimDelivery(String, Lease, Reply<Option<DeliveryClaim>>),
    Renew(Token, Duration, Reply<()>),
}

/// The way to the writer thread.
#[derive(Clone)]
pub struct Writer {
    requests: SyncSender<Request>,
}

/// What the thread works with.
pub struct Tools {
    /// The only connection that writes.
    pub connection: Connection,
    /// The file, for messages.
    pub path: PathBuf,
    /// When a job is suspect.
    pub limits: Limits,
    /// Dates and deadlines.
    pub time: Time,
    /// Who is told how long each transaction took.
    pub commits: Commits,
}

impl Writer {
    /// Starts the thread. It ends, and gives its connection back, when the last writer is dropped.
    pub fn start(mut tools: Tools) -> Result<(Writer, std::thread::JoinHandle<Connection>), LedgerError> {
        let (requests, incoming) = sync_channel(WAITING);
        let run = move || {
            serve(&mut tools, &incoming);
            tools.connection
        };
        let thread = std::thread::Builder::new().name("ledger".into()).spawn(run);
        let thread = thread.map_err(|e| LedgerError::Bug(format!("no thread for the ledger: {e}")))?;
        Ok((Writer { requests }, thread))
    }

    /// See [`crate::ledger::Ledger::commit`].
    pub fn commit(&self, changes: Vec<Change>) -> Result<Seq, LedgerError> {
        self.ask(|reply| Request::Commit(changes, reply))
    }

    /// See [`crate::ledger::Ledger::claim`].
    pub fn claim(&self, lease: &Lease) -> Result<Option<Claim>, LedgerError> {
        self.ask(|reply| Request::Claim(lease.clone(), reply))
    }

    /// See [`crate::ledger::Ledger::claim_delivery`].
    pub fn claim_delivery(&self, destination: &str, lease: &Lease) -> Result<Option<DeliveryClaim>, LedgerError> {
        self.ask(|reply| Request::ClaimDelivery(destination.into(), lease.clone(), reply))
    }

    /// See [`crate::ledger::Ledger::renew`].
    pub fn renew(&self, token: Token, hold: Duration) -> Result<(), LedgerError> {
        self.ask(|reply| Request::Renew(token, hold, reply))
    }

    fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, LedgerError> {
        let gone = || LedgerError::Bug("the ledger's thread has ended".into());
        let (reply, answer) = sync_channel(1);
        self.requests.send(request(reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

fn serve(tools: &mut Tools, incoming: &Receiver<Request>) {
    while let Ok(first) = incoming.recv() {
        let batch = std::iter::once(first).chain(incoming.try_iter().take(TOGETHER - 1)).collect();
        turn(tools, batch);
        crash::point(Point::LedgerAnswered);
    }
}

/// An answer that may be given once the transaction is on disk, or not.
type Answer = Box<dyn FnOnce(Result<(), LedgerError>)>;

/// One transaction for all requests. One that fails takes only its own changes back.
fn turn(tools: &mut Tools, batch: Vec<Request>) {
    let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
    let begun = tools.time.instant();
    let done = work(tools, batch, &mut answers);
    if let Some(told) = tools.commits.get() {
        told(tools.time.instant().saturating_duration_since(begun));
    }
    for answer in answers {
        answer(done.clone());
    }
}

fn work(tools: &mut Tools, batch: Vec<Request>, answers: &mut Vec<Answer>) -> Result<(), LedgerError> {
    let Tools { connection, path, limits, time, .. } = tools;
    let path: &Path = path;
    let begun = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sql(path));
    let mut transaction = match begun {
        Ok(transaction) => transaction,
        Err(error) => {
            batch.into_iter().for_each(|request| answers.push(refuse(request)));
            return Err(error);
        }
    };
    let (now, date) = (time.now(), time.date());
    let mut batch = batch.into_iter();
    while let Some(request) = batch.next() {
        let savepoint = match transaction.savepoint().map_err(sql(path)) {
            Ok(savepoint) => savepoint,
            // Nothing of this transaction counts then.
            Err(error) => {
                answers.extend(std::iter::once(request).chain(batch).map(refuse));
                return Err(error);
            }
        };
        let desk = Desk { connection: &savepoint, path, now, date, limits: *limits };
        let (good, answer) = handle(&desk, request);
        answers.push(answer);
        // Dropped without a commit, the savepoint takes back what this request did.
        if good && let Err(error) = savepoint.commit().map_err(sql(path)) {
            answers.extend(batch.map(refuse));
            return Err(error);
        }
    }
    crash::point(Point::LedgerChanged);
    transaction.commit().map_err(sql(path))?;
    crash::point(Point::LedgerCommitted);
    Ok(())
}

/// Does what a request asks; whether its changes are to be kept, and how it is answered.
fn handle(desk: &Desk<'_>, request: Request) -> (bool, Answer) {
    match request {
        Request::Commit(changes, reply) => {
            let made = changes.into_iter().try_for_each(|change| desk.apply(change));
            let end = made.and_then(|()| desk.end());
            kept(end, reply)
        }
        Request::Claim(lease, reply) => kept(desk.claim(&lease), reply),
        Request::ClaimDelivery(destination, lease, reply) => kept(desk.claim_delivery(&destination, &lease), reply),
        Request::Renew(token, hold, reply) => kept(desk.renew(token, hold), reply),
    }
}

fn kept<T: 'static>(made: Result<T, LedgerError>, reply: Reply<T>) -> (bool, Answer) {
    // Who no longer waits has dropped the other end.
    (made.is_ok(), Box::new(move |durable| drop(reply.send(made.and_then(|value| durable.map(|()| value))))))
}

/// The answer to a request that was not even looked at.
fn refuse(request: Request) -> Answer {
    fn with<T: 'static>(reply: Reply<T>) -> Answer {
        Box::new(move |durable| {
            let error = durable.err().unwrap_or_else(|| LedgerError::Bug("a request of the ledger was left out".into()));
            drop(reply.send(Err(error)));
        })
    }
    match request {
        Request::Commit(_, reply) => with(reply),
        Request::Claim(_, reply) => with(reply),
        Request::ClaimDelivery(_, _, reply) => with(reply),
        Request::Renew(_, _, reply) => with(reply),
    }
}
