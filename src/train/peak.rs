//! What a device can do, so that a run can say how much of it is used.

use std::time::Instant;

use burn::tensor::{DType, Distribution, Tensor, backend::Backend};

use super::learner::Precision;
use super::optimizer::scalar;
use super::run::Run;
use super::trainer::Shapes;

/// Rows, inner values and columns of a product that is timed, and of a larger one for a GPU.
const SIDES: [usize; 2] = [1024, 4096];

/// Seconds beside which starting a product and waiting for it are little.
const LONG: f64 = 1e-3;

/// Floating-point operations a second that a large product in that precision reaches on the device.
pub fn measured<B: Backend>(precision: Precision, device: &B::Device) -> f64 {
    let rate = |side: usize, seconds: f64| 2.0 * (side as f64).powi(3) / seconds;
    let [small, large] = SIDES;
    let seconds = product_seconds::<B>(small, precision, device);
    if seconds > LONG {
        return rate(small, seconds);
    }
    rate(large, product_seconds::<B>(large, precision, device))
}

/// Seconds of a square product, best of five.
fn product_seconds<B: Backend>(side: usize, precision: Precision, device: &B::Device) -> f64 {
    let random = || {
        let values = Tensor::<B, 2>::random([side, side], Distribution::Default, device);
        if precision == Precision::Bf16 { values.cast(DType::BF16) } else { values }
    };
    let (a, b) = (random(), random());
    let seconds = |_| {
        let started = Instant::now();
        // Reading one value waits for the product.
        scalar(a.clone().matmul(b.clone()).slice([0..1, 0..1]).reshape([1]));
        started.elapsed().as_secs_f64()
    };
    (0..6).map(seconds).skip(1).fold(f64::INFINITY, f64::min)
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
