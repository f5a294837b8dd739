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

    /// Puts the sums over all ranks in the place of `values`, which are as many on each.
    fn sum(&self, values: &mut [f32]);

    /// Waits for all.
    fn wait(&self) {
        self.sum(&mut [0.0]);
    }
}

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

    fn sum(&self, _values: &mut [f32]) {}
}

#[cfg(feature = "mpi")]
pub use over_mpi::Mpi;

#[cfg(feature = "mpi")]
mod over_mpi {
    use anyhow::{Context, Result};
    use mpi::collective::SystemOperation;
    use mpi::environment::Universe;
    use mpi::topology::SimpleCommunicator;
    use mpi::traits::{Communicator, CommunicatorCollectives};

    use super::Ranks;

    /// Values that are summed at once: large enough for a network's full speed, small beside the gradients.
    const BUCKET: usize = 1 << 20;

    /// The processes that `mpirun` or a cluster's scheduler started.
    pub struct Mpi {
        world: SimpleCommunicator,
        _universe: Universe,
    }

    impl Mpi {
        /// Joins them; a process that was started by itself is alone.
        ///
        /// # Errors
        /// If this process has joined already.
        pub fn join() -> Result<Self> {
            let universe = mpi::initialize().context("MPI was initialised already")?;
            Ok(Self { world: universe.world(), _universe: universe })
        }

        /// Ends all of them, after an error that the others cannot know of.
        pub fn abort(&self) -> ! {
            self.world.abort(1)
        }
    }

    impl Ranks for Mpi {
        fn rank(&self) -> usize {
            self.world.rank() as usize
        }

        fn size(&self) -> usize {
            self.world.size() as usize
        }

        fn sum(&self, values: &mut [f32]) {
            for bucket in values.chunks_mut(BUCKET) {
                let own = bucket.to_vec();
                self.world.all_reduce_into(&own[..], bucket, SystemOperation::sum());
            }
        }
    }
}
