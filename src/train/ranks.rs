//! The processes that share a run's batches: each takes some parts of every batch, and gradients are summed over all.
//!
//! Which parts a rank takes changes nothing but the order of the sums, so that a run may go on with another number of
//! ranks. All of them need the run's folder; rank 0 alone writes into it.

/// A process among its like.
pub trait Ranks {
    /// Its number.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Begins to sum `values`, which are as many on each, over all ranks; what is returned waits for the sums. All ranks
    /// begin the same sums in the same order.
    fn begin(&self, values: Vec<f32>) -> Pending;

    /// Puts the sums over all ranks in the place of `values`.
    fn sum(&self, values: &mut [f32]) {
        values.copy_from_slice(&self.begin(values.to_vec())());
    }

    /// Waits for all.
    fn wait(&self) {
        self.sum(&mut [0.0]);
    }
}

/// Sums that are on their way.
pub type Pending = Box<dyn FnOnce() -> Vec<f32>>;

/// One process by itself.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn begin(&self, values: Vec<f32>) -> Pending {
        Box::new(|| values)
    }
}

#[cfg(feature = "mpi")]
pub use over_mpi::Mpi;

#[cfg(feature = "mpi")]
mod over_mpi {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::{self, JoinHandle};
    use std::time::Duration;

    use anyhow::{Context, Result};
    use mpi::Threading;
    use mpi::collective::SystemOperation;
    use mpi::request;
    use mpi::topology::SimpleCommunicator;
    use mpi::traits::{Communicator, CommunicatorCollectives};

    use super::{Pending, Ranks};

    /// Between two looks at a sum that is on its way. MPI moves it on when it is looked at, and its own waiting would
    /// keep a core busy that computes the next one.
    const LOOK: Duration = Duration::from_micros(50);

    /// The processes that `mpirun` or a cluster's scheduler started. All of MPI is called by a thread of its own, one sum
    /// after another.
    pub struct Mpi {
        rank: usize,
        size: usize,
        jobs: Option<Sender<Job>>,
        aborted: Arc<AtomicBool>,
        thread: Option<JoinHandle<()>>,
    }

    /// Values to be summed, and who waits for the sums.
    type Job = (Vec<f32>, Sender<Vec<f32>>);

    impl Mpi {
        /// Joins them; a process that was started by itself is alone.
        ///
        /// # Errors
        /// If this process has joined already.
        pub fn join() -> Result<Self> {
            let (jobs, to_do) = channel();
            let (joined, place) = channel();
            let aborted = Arc::new(AtomicBool::new(false));
            let stop = Arc::clone(&aborted);
            let thread = thread::spawn(move || {
                // Left when this thread ends.
                let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else { return };
                let world = universe.world();
                if joined.send((world.rank() as usize, world.size() as usize)).is_ok() {
                    serve(&world, &to_do, &stop);
                }
            });
            let (rank, size) = place.recv().context("MPI was initialised already")?;
            Ok(Self { rank, size, jobs: Some(jobs), aborted, thread: Some(thread) })
        }

        /// Ends all of them, after an error that the others cannot know of.
        pub fn abort(&self) -> ! {
            self.aborted.store(true, Ordering::Relaxed);
            // The thread may wait for something to do.
            drop(self.begin(Vec::new()));
            loop {
                thread::park();
            }
        }
    }

    /// Sums what comes, until nobody is left who could send anything.
    fn serve(world: &SimpleCommunicator, jobs: &Receiver<Job>, aborted: &AtomicBool) {
        let end_if_told = || {
            if aborted.load(Ordering::Relaxed) {
                world.abort(1);
            }
        };
        for (own, waiting) in jobs {
            end_if_told();
            let mut sums = vec![0.0; own.len()];
            request::scope(|scope| {
                let operation = SystemOperation::sum();
                let mut request = world.immediate_all_reduce_into(scope, &own[..], &mut sums[..], operation);
                while let Err(pending) = request.test() {
                    end_if_told();
                    thread::sleep(LOOK);
                    request = pending;
                }
            });
            // Nobody waits any longer in a process that is about to end.
            waiting.send(sums).ok();
        }
    }

    impl Ranks for Mpi {
        fn rank(&self) -> usize {
            self.rank
        }

        fn size(&self) -> usize {
            self.size
        }

        fn begin(&self, values: Vec<f32>) -> Pending {
            let (waiting, sums) = channel();
            let jobs = self.jobs.as_ref().expect("taken by `drop` alone");
            jobs.send((values, waiting)).expect("the thread lives as long as this sender");
            Box::new(move || sums.recv().expect("the thread sums all that it was sent"))
        }
    }

    impl Drop for Mpi {
        fn drop(&mut self) {
            drop(self.jobs.take());
            if let Some(thread) = self.thread.take() {
                thread.join().ok();
            }
        }
    }
}
