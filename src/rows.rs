//! Rows of a matrix that lies flat in memory. A width of 0, which no opened model has, gives no rows instead of a
//! panic: the compiler sees that nothing here can go wrong, and firmware links without a panic.

use core::slice::{Chunks, ChunksExact, ChunksExactMut, ChunksMut};

/// A flat matrix.
pub(crate) trait Rows<T> {
    /// Its rows; what is left of the last one if that is not whole is no row.
    fn rows(&self, width: usize) -> ChunksExact<'_, T>;
    /// As [`Rows::rows`].
    fn rows_mut(&mut self, width: usize) -> ChunksExactMut<'_, T>;
    /// Its values in parts of that size, the last one perhaps smaller.
    fn parts(&self, size: usize) -> Chunks<'_, T>;
    /// As [`Rows::parts`].
    fn parts_mut(&mut self, size: usize) -> ChunksMut<'_, T>;
    /// Copies as many values as both have.
    fn copy_values(&mut self, from: &[T])
    where
        T: Copy;
}

impl<T> Rows<T> for [T] {
    #[inline(always)]
    fn rows(&self, width: usize) -> ChunksExact<'_, T> {
        if width == 0 { [].chunks_exact(1) } else { self.chunks_exact(width) }
    }
    #[inline(always)]
    fn rows_mut(&mut self, width: usize) -> ChunksExactMut<'_, T> {
        if width == 0 { [].chunks_exact_mut(1) } else { self.chunks_exact_mut(width) }
    }
    #[inline(always)]
    fn parts(&self, size: usize) -> Chunks<'_, T> {
        if size == 0 { [].chunks(1) } else { self.chunks(size) }
    }
    #[inline(always)]
    fn parts_mut(&mut self, size: usize) -> ChunksMut<'_, T> {
        if size == 0 { [].chunks_mut(1) } else { self.chunks_mut(size) }
    }
    #[inline(always)]
    fn copy_values(&mut self, from: &[T])
    where
        T: Copy,
    {
        let length = self.len().min(from.len());
        if let (Some(to), Some(from)) = (self.get_mut(..length), from.get(..length)) {
            to.copy_from_slice(from);
        }
    }
}
