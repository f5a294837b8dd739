//! What a device can do, so that a run can say how much of it is used.

use std::time::Instant;

use burn::tensor::{Distribution, Tensor, backend::Backend};

use super::optimizer::scalar;
use super::run::Run;
use super::trainer::Shapes;

/// Rows, inner values and columns of the product that is timed: large enough for a GPU, a blink for a processor.
const SIDE: usize = 1024;

/// Floating-point operations a second that a large f32 product reaches on the device, best of five.
pub fn measured<B: Backend>(device: &B::Device) -> f64 {
    let random = || Tensor::<B, 2>::random([SIDE, SIDE], Distribution::Default, device);
    let (a, b) = (random(), random());
    let rate = |_| {
        let started = Instant::now();
        // Reading one value waits for the product.
        scalar(a.clone().matmul(b.clone()).slice([0..1, 0..1]).reshape([1]));
        2.0 * (SIDE as f64).powi(3) / started.elapsed().as_secs_f64()
    };
    (0..6).map(rate).skip(1).fold(0.0, f64::max)
}

/// Floating-point operations of a token's way forward and back: two for a multiply-accumulate forward, four back
/// (`flops_computation.py`), in sequences of `length` tokens.
pub fn operations_a_token(run: &Run, shapes: &Shapes, length: usize) -> f64 {
    let encoder = |config: &crate::ElectraConfig| config.multiply_accumulates(length) as f64 / length as f64;
    let words = (shapes.discriminator.embedding_size * shapes.discriminator.vocab_size) as f64;
    let discriminator = encoder(&shapes.discriminator);
    let networks =
        if run.has_generator() { discriminator + encoder(&shapes.generator) } else { discriminator };
    6.0 * (networks + run.objective.mask_prob * words)
}
