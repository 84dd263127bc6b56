//! Who gets which cores: libtorch, rayon and the stage threads by one explicit plan.

/// Threads of each kind. They may add up to more than the cores: a stage thread mostly waits for its own rayon or libtorch work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Threads of one libtorch operation.
    pub torch: usize,
    /// Threads of rayon's pool: decoding, resampling, packing.
    pub rayon: usize,
    /// Prepare stages side by side.
    pub prepare: usize,
    /// Finish stages side by side.
    pub finish: usize,
}

impl Cores {
    /// The plan for this many cores. On the CPU the network is the long part and gets all of them; the next study is prepared in its
    /// shade. With a GPU the CPU's part is the long one: several studies are prepared side by side and libtorch needs few threads.
    pub fn plan(cores: usize, gpu: bool) -> Cores {
        let cores = cores.max(1);
        if gpu {
            Cores { torch: cores.div_ceil(4).min(4), rayon: cores, prepare: (cores / 4).clamp(1, 4), finish: (cores / 8).clamp(1, 2) }
        } else {
            Cores { torch: cores, rayon: cores, prepare: 1, finish: 1 }
        }
    }

    /// Cores that this process may use: affinity and control group limits count.
    pub fn available() -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }

    /// Gives rayon its pool. Does nothing when rayon has one already, as in tests.
    pub fn start_rayon(&self) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.rayon).thread_name(|i| format!("rayon-{i}"));
        let _ = pool.build_global();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_gets_a_thread_on_any_machine() {
        for cores in 0..300 {
            for gpu in [false, true] {
                let plan = Cores::plan(cores, gpu);
                assert!(plan.torch >= 1 && plan.rayon >= 1 && plan.prepare >= 1 && plan.finish >= 1, "{cores} {plan:?}");
                assert!(plan.torch <= cores.max(1) && plan.rayon <= cores.max(1), "{cores} {plan:?}");
            }
        }
    }
}
