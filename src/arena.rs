//! One caller-owned buffer, aligned to 64 bytes, carved into typed slices by a [`Plan`](crate::Plan).

use bytemuck::Pod;

use crate::Error;

/// Alignment of an arena and of every part of it.
pub const ALIGNMENT: usize = 64;

/// A buffer of `BYTES` bytes where a session may work:
/// `static ARENA: Arena<{ Plan::inference(&TINY, 64).bytes() }>`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Arena<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> Arena<BYTES> {
    /// All zeros, so that a static one needs no room in flash.
    pub const fn new() -> Self {
        Self([0; BYTES])
    }

    /// The buffer.
    pub const fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl<const BYTES: usize> Default for Arena<BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes that `count` values of `T` take in an arena.
pub(crate) const fn bytes_of<T>(count: usize) -> usize {
    let bytes = count.saturating_mul(size_of::<T>());
    bytes.saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

/// Takes typed slices off the front of a buffer.
pub(crate) struct Carver<'a>(pub &'a mut [u8]);

impl<'a> Carver<'a> {
    pub fn take<T: Pod>(&mut self, count: usize) -> Result<&'a mut [T], Error> {
        let rest = core::mem::take(&mut self.0);
        let found = rest.len();
        let needed = bytes_of::<T>(count);
        let (part, rest) = rest.split_at_mut_checked(needed).ok_or(Error::ArenaTooSmall { needed, found })?;
        self.0 = rest;
        let part = part.get_mut(..count * size_of::<T>()).unwrap_or_default();
        bytemuck::try_cast_slice_mut(part).map_err(|_| Error::ArenaMisaligned)
    }
}
