//! Batches ahead of time, on threads of their own, in an order that does not depend on them.

use super::{Augmentation, CaseFile, Level, Random, is_forced, lower_targets};
use crate::training::Error;
use crossbeam::channel::{Receiver, bounded};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Batches that each worker holds ready, beside the one that it is making.
const AHEAD: usize = 2;

/// What the random numbers of a run are for; validation draws from generators of its own.
const VALIDATION: u64 = 1 << 62;

/// The cases that are trained on.
pub struct TrainingSet {
    /// Cases of people's labels.
    pub curated: Vec<CaseFile>,
    /// Cases of the base model's labels, against forgetting.
    pub rehearsal: Vec<CaseFile>,
    /// Share of samples from `rehearsal`; without such cases it has to be 0.
    pub rehearsal_share: f64,
}

/// How batches are made.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    /// Of the run.
    pub seed: u64,
    /// Samples in a batch.
    pub batch: usize,
    /// How samples are changed.
    pub augmentation: Augmentation,
    /// From each head to the next.
    pub strides: Vec<[usize; 3]>,
}

/// One batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// From 0.
    pub number: u64,
    /// `[N, C, a0, a1, a2]`.
    pub image: Vec<f32>,
    /// Targets of each head, full resolution first.
    pub levels: Vec<Level>,
    /// Per sample: the classes that were reviewed.
    pub allowed: Vec<Vec<u16>>,
    /// Per sample: whether it is one of the rehearsal.
    pub rehearsal: Vec<bool>,
}

impl TrainingSet {
    /// Refuses a set that can not be drawn from, and cases of another number of channels.
    pub fn check(&self, channels: usize) -> Result<(), Error> {
        let share = self.rehearsal_share;
        let all = self.curated.iter().chain(&self.rehearsal);
        match () {
            () if !(0.0..=1.0).contains(&share) => Err(Error::Settings(format!("a rehearsal share of {share}"))),
            () if self.curated.is_empty() && share < 1.0 => Err(Error::Settings("there are no curated cases".into())),
            () if self.rehearsal.is_empty() && share > 0.0 => Err(Error::Settings("there are no cases for rehearsal".into())),
            () => match all.map(CaseFile::channels).find(|&found| found != channels) {
                Some(found) => Err(Error::Settings(format!("a case has {found} channels, the network takes {channels}"))),
                None => Ok(()),
            },
        }
    }

    fn draw(&self, random: &mut Random) -> (Option<&CaseFile>, bool) {
        let rehearsal = random.chance(self.rehearsal_share);
        let cases = if rehearsal { &self.rehearsal } else { &self.curated };
        (cases.get(random.below(cases.len() as u64) as usize), rehearsal)
    }
}

impl BatchPlan {
    /// Makes a batch: the same number gives the same batch, wherever and whenever.
    pub fn make(&self, set: &TrainingSet, number: u64) -> Result<Batch, Error> {
        self.build(set, number, 0, Augmentation::sample)
    }

    /// A batch for validation: not changed, and drawn apart from those that are trained on.
    pub fn make_plain(&self, set: &TrainingSet, number: u64) -> Result<Batch, Error> {
        self.build(set, number, VALIDATION, Augmentation::plain)
    }

    fn build(
        &self,
        set: &TrainingSet,
        number: u64,
        purpose: u64,
        cut: impl Fn(&Augmentation, &CaseFile, bool, &mut Random) -> Result<super::Patch, Error>,
    ) -> Result<Batch, Error> {
        let mut batch = Batch { number, image: Vec::new(), levels: Vec::new(), allowed: Vec::new(), rehearsal: Vec::new() };
        let mut labels = Vec::new();
        for place in 0..self.batch {
            let mut random = Random::new(self.seed, purpose | (number * self.batch as u64 + place as u64));
            let (case, rehearsal) = set.draw(&mut random);
            let case = case.ok_or_else(|| Error::Settings("there are no cases to draw from".into()))?;
            let patch = cut(&self.augmentation, case, is_forced(place, self.batch), &mut random)?;
            batch.image.extend(patch.image);
            labels.extend(patch.labels);
            batch.allowed.push(case.allowed().to_vec());
            batch.rehearsal.push(rehearsal);
        }
        batch.levels = lower_targets(Level { labels, shape: self.augmentation.geometry.patch }, &self.strides);
        Ok(batch)
    }
}

/// Threads that make batches. Worker `w` of `n` makes the batches `w`, `w + n`, …, and waits once it is [`AHEAD`].
pub struct Loader {
    ready: Vec<Receiver<Result<Batch, Error>>>,
    workers: Vec<JoinHandle<()>>,
    next: usize,
}

impl Loader {
    /// Starts the workers; the first batch that comes out has number `first`.
    pub fn start(set: Arc<TrainingSet>, plan: BatchPlan, first: u64, workers: usize) -> Result<Loader, Error> {
        let count = workers.max(1);
        let mut loader = Loader { ready: Vec::with_capacity(count), workers: Vec::with_capacity(count), next: 0 };
        for worker in 0..count {
            let (send, receive) = bounded(AHEAD);
            let (set, plan) = (set.clone(), plan.clone());
            let body = move || {
                let mut number = first + worker as u64;
                // The receiver is gone once training ends.
                while send.send(plan.make(&set, number)).is_ok() {
                    number += count as u64;
                }
            };
            let thread = std::thread::Builder::new().name(format!("loader-{worker}")).spawn(body);
            loader.workers.push(thread.map_err(|e| Error::Settings(format!("no thread for loading could be started: {e}")))?);
            loader.ready.push(receive);
        }
        Ok(loader)
    }

    /// The next batch; waits for it if need be.
    pub fn next_batch(&mut self) -> Result<Batch, Error> {
        let ready = &self.ready[self.next];
        self.next = (self.next + 1) % self.ready.len();
        ready.recv().unwrap_or_else(|_| Err(Error::Settings("a thread for loading has ended".into())))
    }

    /// Batches that lie ready.
    pub fn waiting(&self) -> usize {
        self.ready.iter().map(Receiver::len).sum()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.ready.clear();
        for worker in self.workers.drain(..) {
            // A panic has been told on stderr, and there is nobody left to tell.
            let _ = worker.join();
        }
    }
}
