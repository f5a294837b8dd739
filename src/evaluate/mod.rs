//! Labelled examples, and how well a model answers them.

mod labelled;
mod reader;
mod score;

pub use labelled::{Example, LabelNames, Labelled, LabelledError, Truth};
pub use reader::{Reader, ReferenceReader, TextReader};
pub use score::{Answers, Difference, Metric, score};

/// Area under the ROC curve: the probability that a positive scores higher than a negative, ties
/// counting half. `None` without both a positive and a negative.
pub fn roc_auc(scores: &[f32], positive: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let positives = positive.iter().filter(|&&p| p).count() as f64;
    let negatives = positive.len() as f64 - positives;
    // Sum of the positives' ranks, each run of ties sharing its mean rank (Mann-Whitney).
    let mut rank_sum = 0.0;
    let mut start = 0;
    while start < order.len() {
        let tied = |&&i: &&usize| scores[i] == scores[order[start]];
        let end = start + order[start..].iter().take_while(tied).count().max(1);
        let mean_rank = (start + 1 + end) as f64 / 2.0;
        let here = order[start..end].iter().filter(|&&i| positive[i]).count();
        rank_sum += here as f64 * mean_rank;
        start = end;
    }
    let wins = rank_sum - positives * (positives + 1.0) / 2.0;
    (positives > 0.0 && negatives > 0.0).then(|| wins / (positives * negatives))
}
