//! Many texts on several threads: one arena a thread, one text at a time on each, so that mixed
//! lengths keep all of them busy. Answers come in the order of the texts, and have the same bits
//! for any number of threads.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::Session;
use crate::kernels::{self, KernelSet};
use crate::weights::{AlignedBytes, Model};
use crate::{Error, Plan};

/// A model at work on several threads.
#[derive(Debug)]
pub struct Batch<'m> {
    model: Model<'m>,
    plan: Plan,
    kernels: &'static KernelSet,
    arenas: Vec<Mutex<AlignedBytes>>,
    pool: rayon::ThreadPool,
}

/// Why a batch cannot start.
#[derive(Debug)]
pub enum BatchError {
    /// The plan does not fit the model.
    Session(Error),
    /// The operating system gave no threads.
    Threads(rayon::ThreadPoolBuildError),
}

impl core::fmt::Display for BatchError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Session(error) => error.fmt(f),
            Self::Threads(error) => write!(f, "threads: {error}"),
        }
    }
}

impl core::error::Error for BatchError {}

impl<'m> Batch<'m> {
    /// Takes `threads` threads, one a core if 0, and an arena by `plan` for each.
    ///
    /// # Errors
    /// What [`Session::with`] says about the plan; that the operating system gives no threads.
    pub fn new(model: Model<'m>, plan: Plan, threads: usize) -> Result<Self, BatchError> {
        Self::with(model, plan, threads, kernels::best())
    }

    /// The same with kernels of one's choice.
    ///
    /// # Errors
    /// As [`Batch::new`].
    pub fn with(
        model: Model<'m>,
        plan: Plan,
        threads: usize,
        kernels: &'static KernelSet,
    ) -> Result<Self, BatchError> {
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(BatchError::Threads)?;
        let plan = plan.for_model(&model);
        let mut arenas = vec![AlignedBytes::zeroed(plan.bytes()); pool.current_num_threads()];
        if let Some(arena) = arenas.first_mut() {
            Session::with(model, arena.as_mut_slice(), plan, kernels).map_err(BatchError::Session)?;
        }
        let arenas = arenas.into_iter().map(Mutex::new).collect();
        Ok(Self { model, plan, kernels, arenas, pool })
    }

    /// How many threads work.
    pub fn threads(&self) -> usize {
        self.arenas.len()
    }

    /// `answer` to each of `inputs`, in their order. It is called on one of the threads with a session
    /// of that thread's arena, which stays locked meanwhile: `answer` must not wait for work that it gives to these threads.
    pub fn answers<T: Sync, R: Send>(
        &self,
        inputs: &[T],
        answer: impl Fn(&mut Session<'m, '_>, &T) -> Result<R, Error> + Sync,
    ) -> Vec<Result<R, Error>> {
        let one = |input: &T| {
            let thread = rayon::current_thread_index().unwrap_or(0);
            // A panic in an earlier answer left nothing in the arena that matters.
            let mut arena = self.arenas[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let mut session = Session::with(self.model, arena.as_mut_slice(), self.plan, self.kernels)?;
            answer(&mut session, input)
        };
        self.pool.install(|| inputs.par_iter().with_max_len(1).map(one).collect())
    }
}
