//! What the examples of learning share: where their data lies, and a flash in memory.
#![allow(dead_code, reason = "each example uses some of it")]

use std::path::{Path, PathBuf};

use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

/// The real data set under `$ELECTRET_SHARED/data`, or the sample in examples/data.
pub fn data(shared: &str, sample: &str) -> PathBuf {
    match std::env::var_os("ELECTRET_SHARED") {
        Some(root) => PathBuf::from(root).join("data").join(shared),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(sample),
    }
}

/// Examples in an order that the seed decides.
pub fn shuffled<T>(mut all: Vec<T>, seed: u64) -> Vec<T> {
    let mut state = seed;
    for last in (1..all.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        all.swap(last, (state >> 33) as usize % (last + 1));
    }
    all
}

/// A NOR flash in memory, with sectors of 4 KiB.
pub struct Flash(Vec<u8>);

impl Flash {
    pub fn new(bytes: usize) -> Self {
        Self(vec![0xff; bytes])
    }
}

impl ErrorType for Flash {
    type Error = core::convert::Infallible;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.copy_from_slice(&self.0[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.len()
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        self.0[from as usize..to as usize].fill(0xff);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        for (place, byte) in self.0[offset as usize..].iter_mut().zip(bytes) {
            *place &= byte;
        }
        Ok(())
    }
}
