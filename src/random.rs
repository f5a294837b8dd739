//! Reproducible numbers for random weights and test shapes: Marsaglia's xorshift, 64 bits.

/// The generator; its state is never zero.
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// 32 bits.
    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    /// 0..end.
    pub fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    /// 0.0..1.0.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 8) as f32 / (1 << 24) as f32
    }
}
