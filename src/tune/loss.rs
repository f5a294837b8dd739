//! Losses over a sentence's logits, in nats, and their gradients in the logits' place.
//!
//! A sentence's loss is the mean over what it teaches: its one label, its labelled tokens, its two ends.

use super::task::{IGNORED, Task};
use crate::kernels::KernelSet;
use crate::kernels::lanes::{exp, sigmoid};
use crate::weights::HeadKind;

/// The loss of one sentence. `logits` `[rows, labels]` become their gradient; `labels` is what
/// [`label_tokens`](super::task::label_tokens) wrote, `value` a regression's target.
pub fn loss(kernels: &KernelSet, task: &Task<'_>, logits: &mut [f32], labels: &[u16], value: f32) -> f32 {
    match task.kind {
        HeadKind::Regress => squared_error(logits, value),
        HeadKind::Detect => binary_cross_entropy(logits, labels),
        HeadKind::Answer => span(logits, labels),
        _ => cross_entropies(kernels, task, logits, labels),
    }
}

/// (x − value)², as PyTorch's `MSELoss`.
fn squared_error(logits: &mut [f32], value: f32) -> f32 {
    let Some(x) = logits.first_mut() else { return 0.0 };
    let difference = *x - value;
    *x = 2.0 * difference;
    difference * difference
}

/// Cross-entropy of each labelled row, weighted by its class, with smoothed labels.
fn cross_entropies(kernels: &KernelSet, task: &Task<'_>, logits: &mut [f32], labels: &[u16]) -> f32 {
    let share = 1.0 / labels.iter().filter(|&&label| label != IGNORED).count().max(1) as f32;
    let mut sum = 0.0;
    for (row, &label) in logits.chunks_exact_mut(task.labels.len()).zip(labels) {
        if label == IGNORED {
            row.fill(0.0);
            continue;
        }
        let weight = task.class_weights.get(usize::from(label)).copied().unwrap_or(1.0) * share;
        sum += cross_entropy(kernels, row, label.into(), weight, task.label_smoothing);
    }
    sum
}

/// weight · −Σ target·ln softmax(row), where the target is 1 at `label`, smoothed; the row becomes its
/// gradient.
fn cross_entropy(kernels: &KernelSet, row: &mut [f32], label: usize, weight: f32, smoothing: f32) -> f32 {
    (kernels.softmax)(row);
    let even = smoothing / row.len() as f32;
    let mut loss = 0.0;
    for (index, p) in row.iter_mut().enumerate() {
        let target = even + if index == label { 1.0 - smoothing } else { 0.0 };
        if target > 0.0 {
            loss -= target * libm::logf(p.max(f32::MIN_POSITIVE));
        }
        *p = weight * (*p - target);
    }
    weight * loss
}

/// Mean of the cross-entropies of the start and the end over all tokens.
fn span(logits: &mut [f32], labels: &[u16]) -> f32 {
    // Two columns side by side: the softmax of one is taken without moving it.
    let mut sum = 0.0;
    for (column, &label) in labels.iter().take(2).enumerate() {
        let max = logits.iter().skip(column).step_by(2).fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        let mut total = 0.0;
        for x in logits.iter_mut().skip(column).step_by(2) {
            *x = exp(*x - max);
            total += *x;
        }
        for (token, x) in logits.iter_mut().skip(column).step_by(2).enumerate() {
            let p = *x / total;
            let target = f32::from(u8::from(token == usize::from(label)));
            if target > 0.0 {
                sum -= 0.5 * libm::logf(p.max(f32::MIN_POSITIVE));
            }
            *x = 0.5 * (p - target);
        }
    }
    sum
}

/// Mean binary cross-entropy of the labelled tokens: ln(1 + e^−|x|) + max(x, 0) − x·y.
fn binary_cross_entropy(logits: &mut [f32], labels: &[u16]) -> f32 {
    let share = 1.0 / labels.iter().filter(|&&label| label != IGNORED).count().max(1) as f32;
    let mut sum = 0.0;
    for (x, &label) in logits.iter_mut().zip(labels) {
        if label == IGNORED {
            *x = 0.0;
            continue;
        }
        let y = f32::from(label);
        sum += share * (libm::log1pf(exp(-x.abs())) + x.max(0.0) - *x * y);
        *x = share * (sigmoid(*x) - y);
    }
    sum
}
