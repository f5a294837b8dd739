//! The losses of ELECTRA's heads, in f64 over f32 logits.

use ndarray::ArrayView2;

/// Mean cross-entropy of `[rows, classes]` logits in nats; rows whose target is `None` do not count.
pub fn cross_entropy(logits: ArrayView2<'_, f32>, targets: &[Option<usize>]) -> f64 {
    let mut sum = 0.0;
    let mut count = 0;
    for (row, target) in logits.rows().into_iter().zip(targets) {
        let Some(target) = *target else { continue };
        let max = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        let normaliser: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
        sum += normaliser.ln() - f64::from(row[target] - max);
        count += 1;
    }
    sum / f64::from(count)
}

/// Mean binary cross-entropy of logits in nats, over the tokens that are no padding.
pub fn binary_cross_entropy(logits: &[f32], labels: &[bool], padding: &[bool]) -> f64 {
    let mut sum = 0.0;
    let mut count = 0;
    for ((&logit, &label), _) in logits.iter().zip(labels).zip(padding).filter(|(_, padding)| !**padding) {
        let x = f64::from(logit);
        sum += x.max(0.0) - if label { x } else { 0.0 } + (-x.abs()).exp().ln_1p();
        count += 1;
    }
    sum / f64::from(count)
}
