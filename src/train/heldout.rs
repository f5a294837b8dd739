//! Is it a discriminator? Held-out text with replaced tokens, and how well they are told apart.

use anyhow::{Context, Result, ensure};
use burn::tensor::{Int, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::corpus::{Corpus, Example, HELDOUT_EVERY};
use super::kernels::Kernels;
use super::masked::Masked;
use super::model::Network;
use super::objective::{Counts, Pair, sample_replacements};
use super::placed::Placed;
use super::run::Run;
use super::weights::{Weights, host_values, ids};
use crate::evaluate::roc_auc;
use crate::quantize::{pieces, vocabulary_archive};
use crate::text::Token;
use crate::weights::{AlignedBytes, access_vocabulary};
use crate::{HeadKind, Model, Plan, Session};

/// Sequences that go through the networks together.
const BATCH: usize = 16;

/// Where replacements come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replacement {
    /// Sampled from the run's own generator at 15 % of the tokens.
    Generator,
    /// Any piece of the vocabulary but the special ones, at 15 % of the tokens.
    RandomWord,
}

/// Areas under the ROC curve over all tokens but the special ones.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scores {
    /// Where the replacements came from.
    pub replacement: Replacement,
    /// Tokens that were judged.
    pub tokens: usize,
    /// Share of them that was replaced.
    pub replaced: f64,
    /// The f32 discriminator.
    pub auc_f32: f64,
    /// The int8 model.
    pub auc_int8: f64,
    /// Share of decisions on which the two agree.
    pub agreement: f64,
    /// Rarer tokens are more suspect: what counting words alone can tell.
    pub auc_frequency: f64,
}

/// Judges the first `examples` held-out examples with both forms of the discriminator.
///
/// # Errors
/// A run whose objective trains no discriminator, a model with other pieces or of shorter sequences, a corpus in which
/// nothing is held out, text in which nothing is replaced.
pub fn score<B: Kernels>(
    run: &Run,
    corpus: &Corpus,
    weights: &Weights<B>,
    model: &Model<'_>,
    replacement: Replacement,
    examples: usize,
    device: &B::Device,
) -> Result<Scores> {
    let kind = run.objective.kind;
    ensure!(kind.detects(), "objective {kind:?} trains no discriminator: there is nothing to judge");
    let vocabulary = vocabulary_archive(&corpus.pieces, &corpus.special, true);
    ensure!(
        pieces(&model.root().vocabulary) == pieces(access_vocabulary(vocabulary.as_slice())?),
        "--model: its vocabulary is not the run's; convert a model from what `electret export` makes of the run"
    );
    ensure!(
        !corpus.heldout.is_empty(),
        "the corpus has no held-out text; of {HELDOUT_EVERY} documents one is held out"
    );
    let shapes = run.shapes(corpus)?;
    let Pair { generator, discriminator } = Pair::new(weights, &shapes, 0.0, None);
    let frequency = corpus.log_frequencies();
    let sequence = corpus.manifest.sequence;
    let plan = Plan::inference(model.config(), sequence).for_model(model);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let mut session = Session::new(*model, arena.as_mut_slice(), plan.tokens)?;
    let mut rng = ChaCha8Rng::seed_from_u64(0x0e1e_c7e7);
    let mut judged = Judged::default();
    let examples: Vec<Example> =
        (0..corpus.heldout.len().min(examples)).map(|i| corpus.heldout.get(i)).collect();
    for examples in examples.chunks(BATCH) {
        let masked = Masked::draw(examples, sequence, &corpus.special, run.objective.mask_prob, &mut rng);
        let counts = Counts::of(std::slice::from_ref(&masked), kind);
        let placed = Placed::new(&masked, counts, device);
        let samples = match replacement {
            Replacement::Generator => sample_replacements(&generator, &placed),
            Replacement::RandomWord => {
                let mut words = random_words(corpus, masked.chosen().len(), &mut rng);
                words.resize(masked.slots(), 0);
                ids(words, device)
            }
        };
        let corrupted = placed.corrupt(samples);
        let logits = f32_logits(&discriminator, &placed, corrupted.clone())?;
        let corrupted: Vec<u32> = corrupted.into_data().iter::<i64>().map(|id| id as u32).collect();
        for (row, example) in examples.iter().enumerate() {
            let tokens: Vec<Token> = (0..example.ids.len())
                .map(|column| {
                    Token::of(corrupted[row * sequence + column], u8::from(column >= example.first_segment))
                })
                .collect();
            let quantised = session.token_logits_of(HeadKind::Detect, &tokens)?.logits;
            for (column, (token, &int8)) in tokens.iter().zip(quantised).enumerate() {
                let at = row * sequence + column;
                if token.id != corpus.special.cls && token.id != corpus.special.sep {
                    judged.replaced.push(token.id != masked.originals()[at] as u32);
                    judged.f32.push(logits[at]);
                    judged.int8.push(int8);
                    judged.frequency.push(-frequency[token.id as usize]);
                }
            }
        }
    }
    judged.scores(replacement)
}

#[derive(Default)]
struct Judged {
    replaced: Vec<bool>,
    f32: Vec<f32>,
    int8: Vec<f32>,
    frequency: Vec<f32>,
}

impl Judged {
    fn scores(&self, replacement: Replacement) -> Result<Scores> {
        let auc = |scores: &[f32]| roc_auc(scores, &self.replaced).context("no token was replaced");
        let tokens = self.replaced.len();
        let agree = self.f32.iter().zip(&self.int8).filter(|(a, b)| (**a > 0.0) == (**b > 0.0)).count();
        Ok(Scores {
            replacement,
            tokens,
            replaced: self.replaced.iter().filter(|&&r| r).count() as f64 / tokens as f64,
            auc_f32: auc(&self.f32)?,
            auc_int8: auc(&self.int8)?,
            agreement: agree as f64 / tokens as f64,
            auc_frequency: auc(&self.frequency)?,
        })
    }
}

fn f32_logits<B: Kernels>(
    discriminator: &Network<'_, B>,
    placed: &Placed<B>,
    ids: Tensor<B, 1, Int>,
) -> Result<Vec<f32>> {
    let hidden = discriminator.encode(&placed.batch(ids));
    host_values(discriminator.discriminator_head(hidden).into_data(), "logits")
}

fn random_words(corpus: &Corpus, count: usize, rng: &mut impl Rng) -> Vec<i32> {
    let special = &corpus.special;
    let special = [special.pad, special.unk, special.cls, special.sep, special.mask];
    let mut draw = || loop {
        let id = rng.random_range(0..corpus.pieces.len() as u32);
        if !special.contains(&id) {
            return id as i32;
        }
    };
    (0..count).map(|_| draw()).collect()
}
