//! `verify`: the quantised model beside the f32 reference, on the user's own sentences.

use std::ops::Range;

use ndarray::{Array2, ArrayView1, ArrayView2};
use serde::Serialize;

use super::QuantizeError;
use crate::encoder::{Network, Workspace};
use crate::import::{Checkpoint, HeadTensors};
use crate::kernels;
use crate::reference::{Reference, Sequence};
use crate::text::{Input, Token, Tokenizer};
use crate::weights::owned::AlignedBytes;
use crate::{HeadKind, Model, Plan, Session};

/// What was lost.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Sentences compared.
    pub sentences: usize,
    /// Tokens compared.
    pub tokens: usize,
    /// Smallest cosine between mean-pooled sentence embeddings.
    pub min_cosine: f64,
    /// Their mean.
    pub mean_cosine: f64,
    /// Largest difference of a last hidden state.
    pub max_abs_error: f64,
    /// Share of decisions that agree, over all heads; 1 where there is no head.
    pub agreement: f64,
    /// Each layer's hidden states; the first are the embeddings.
    pub layers: Vec<LayerReport>,
    /// Each head's decisions.
    pub heads: Vec<HeadReport>,
    /// The first [`SHOWN`] decisions that changed.
    pub changed: Vec<Change>,
}

/// How many changed decisions a report names.
pub const SHOWN: usize = 100;

/// A decision that changed.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// `detect`, `classify`, ….
    pub head: &'static str,
    /// The sentence.
    pub text: String,
    /// Bytes of the sentence that it is about; empty where it is about all.
    pub token: Range<usize>,
    /// What the reference answers.
    pub reference: String,
    /// What the model answers.
    pub model: String,
}

/// Hidden states after one layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Smallest cosine of a token's hidden state to the reference's.
    pub min_cosine: f64,
    /// Largest difference of one value.
    pub max_abs_error: f64,
    /// Root of the mean squared difference over that of the reference.
    pub relative_error: f64,
}

/// Decisions of one head.
#[derive(Clone, Debug, Serialize)]
pub struct HeadReport {
    /// `detect`, `classify`, ….
    pub head: &'static str,
    /// Decisions compared.
    pub decisions: usize,
    /// Share that agree.
    pub agreement: f64,
    /// Largest difference of a logit; of a fill-mask head, of the largest logit.
    pub max_abs_error: f64,
}

/// Compares `model` with `checkpoint` on `texts`; texts that do not fit are truncated, empty ones
/// passed over.
///
/// # Errors
/// [`QuantizeError::OtherSource`] if the checkpoint has another shape, a head more or other labels.
pub fn verify(model: Model<'_>, checkpoint: &Checkpoint, texts: &[String]) -> Result<Report, QuantizeError> {
    check_source(&model, checkpoint).map_err(QuantizeError::OtherSource)?;
    let mut comparison = Comparison::new(model, checkpoint);
    for text in texts {
        comparison.add(text)?;
    }
    Ok(comparison.report())
}

/// Whether the model may have been made of that checkpoint: what speaks against it.
fn check_source(model: &Model<'_>, checkpoint: &Checkpoint) -> Result<(), String> {
    if checkpoint.config != *model.config() {
        return Err("another shape than the model's".to_owned());
    }
    for HeadTensors { kind, labels, .. } in &checkpoint.heads {
        let name = kind.name();
        let own = model.head(*kind).map_err(|_| format!("a head for {name}, which the model has not"))?;
        let own: Vec<&str> = own.labels.iter().map(|label| label.as_str()).collect();
        if own != *labels {
            let (theirs, own) = (labels.join(", "), own.join(", "));
            return Err(format!("the labels {theirs} for {name}, where the model has {own}"));
        }
    }
    Ok(())
}

#[derive(Clone, Default)]
struct LayerSums {
    min_cosine: Option<f64>,
    max_error: f64,
    squared_error: f64,
    squared: f64,
}

#[derive(Clone, Default)]
struct HeadSums {
    decisions: usize,
    agree: usize,
    max_error: f64,
}

struct Comparison<'a> {
    model: Model<'a>,
    checkpoint: &'a Checkpoint,
    plan: Plan,
    arena: AlignedBytes,
    cosines: Vec<f64>,
    tokens: usize,
    layers: Vec<LayerSums>,
    heads: Vec<HeadSums>,
    changed: Vec<Change>,
}

impl<'a> Comparison<'a> {
    fn new(model: Model<'a>, checkpoint: &'a Checkpoint) -> Self {
        let plan = Plan::inference(model.config(), model.config().max_position_embeddings).for_model(&model);
        Self {
            model,
            checkpoint,
            plan,
            arena: AlignedBytes::zeroed(plan.bytes()),
            cosines: Vec::new(),
            tokens: 0,
            layers: vec![LayerSums::default(); checkpoint.config.num_hidden_layers + 1],
            heads: vec![HeadSums::default(); checkpoint.heads.len()],
            changed: Vec::new(),
        }
    }

    fn add(&mut self, text: &str) -> Result<(), QuantizeError> {
        let mut workspace = Workspace::carve(self.arena.as_mut_slice(), &self.plan)?;
        let input = Input { text, pair: None, truncate: true };
        let length = Tokenizer::new(&self.model.root().vocabulary).encode(input, workspace.tokens)?;
        if length == 2 {
            return Ok(());
        }
        let expected =
            Reference(self.checkpoint).hidden_states(&Sequence::of(&workspace.tokens[..length]))?;
        let network = Network::new(self.model, kernels::best());
        network.encode_observed(&mut workspace, length, |layer, states| {
            self.layers[layer].add(&expected[layer], states);
        })?;
        let tokens = workspace.tokens[..length].to_vec();
        let last = &expected[self.checkpoint.config.num_hidden_layers];
        let hidden = self.checkpoint.config.hidden_size;
        let ours = Array2::from_shape_vec((length, hidden), workspace.residual[..length * hidden].to_vec())
            .expect("length · hidden values");
        self.cosines
            .push(cosine(ours.sum_axis(ndarray::Axis(0)).view(), last.sum_axis(ndarray::Axis(0)).view()));
        self.tokens += length;
        for index in 0..self.checkpoint.heads.len() {
            self.compare_head(index, text, &tokens, last)?;
        }
        Ok(())
    }

    fn compare_head(
        &mut self,
        index: usize,
        text: &str,
        tokens: &[Token],
        hidden: &Array2<f32>,
    ) -> Result<(), QuantizeError> {
        let (checkpoint, head) = (self.checkpoint, &self.checkpoint.heads[index]);
        let mut session = Session::with(self.model, self.arena.as_mut_slice(), self.plan, kernels::best())?;
        let both = Both { checkpoint, head, text, tokens, hidden };
        let (max_error, decisions) = match head.kind {
            HeadKind::FillMask => both.words(&mut session)?,
            HeadKind::Answer => both.ends(&mut session)?,
            _ => both.labels(&mut session)?,
        };
        let sums = &mut self.heads[index];
        sums.max_error = sums.max_error.max(max_error);
        let whole = head.kind.answers_from_first_token();
        for Decision { token, changed } in decisions {
            sums.decisions += 1;
            let Some((reference, model)) = changed else {
                sums.agree += 1;
                continue;
            };
            if self.changed.len() < SHOWN && (whole || token.special == 0) {
                let token = if whole { 0..0 } else { token.start as usize..token.end as usize };
                let (head, text) = (head.kind.name(), text.to_owned());
                self.changed.push(Change { head, text, token, reference, model });
            }
        }
        Ok(())
    }

    fn report(self) -> Report {
        let decisions: usize = self.heads.iter().map(|head| head.decisions).sum();
        let agree: usize = self.heads.iter().map(|head| head.agree).sum();
        let share = |agree: usize, all: usize| if all == 0 { 1.0 } else { agree as f64 / all as f64 };
        Report {
            sentences: self.cosines.len(),
            tokens: self.tokens,
            min_cosine: self.cosines.iter().copied().fold(1.0, f64::min),
            mean_cosine: self.cosines.iter().sum::<f64>() / self.cosines.len().max(1) as f64,
            max_abs_error: self.layers.last().map_or(0.0, |layer| layer.max_error),
            agreement: share(agree, decisions),
            layers: self.layers.iter().map(LayerSums::report).collect(),
            heads: self
                .checkpoint
                .heads
                .iter()
                .zip(&self.heads)
                .map(|(head, sums)| HeadReport {
                    head: head.kind.name(),
                    decisions: sums.decisions,
                    agreement: share(sums.agree, sums.decisions),
                    max_abs_error: sums.max_error,
                })
                .collect(),
            changed: self.changed,
        }
    }
}

impl LayerSums {
    fn add(&mut self, expected: &Array2<f32>, states: &[f32]) {
        for (expected, ours) in expected.rows().into_iter().zip(states.chunks_exact(expected.ncols())) {
            let cosine = cosine(expected, ArrayView1::from(ours));
            self.min_cosine = Some(self.min_cosine.map_or(cosine, |min| min.min(cosine)));
            for (&a, &b) in expected.iter().zip(ours) {
                let error = f64::from((a - b).abs());
                self.max_error = self.max_error.max(error);
                self.squared_error += error * error;
                self.squared += f64::from(a) * f64::from(a);
            }
        }
    }

    fn report(&self) -> LayerReport {
        LayerReport {
            min_cosine: self.min_cosine.unwrap_or(1.0),
            max_abs_error: self.max_error,
            relative_error: (self.squared_error / self.squared.max(f64::MIN_POSITIVE)).sqrt(),
        }
    }
}

/// What one head of the reference and of the model make of one sentence.
struct Both<'a> {
    checkpoint: &'a Checkpoint,
    head: &'a HeadTensors,
    text: &'a str,
    tokens: &'a [Token],
    /// The reference's last hidden states, `[tokens, hidden]`.
    hidden: &'a Array2<f32>,
}

/// Something that a head decides about a token, and what the two say where they differ.
struct Decision<'a> {
    token: &'a Token,
    changed: Option<(String, String)>,
}

/// The largest difference of a logit, and all decisions.
type Compared<'a> = Result<(f64, Vec<Decision<'a>>), QuantizeError>;

impl<'a> Both<'a> {
    /// The likeliest word at every place.
    fn words(&self, session: &mut Session<'_, '_>) -> Compared<'a> {
        let expected = Reference(self.checkpoint).logits(self.head, self.hidden.view())?;
        let piece = |id: usize| self.checkpoint.pieces.get(id).cloned().unwrap_or_default();
        let mut max_error = 0.0;
        let predictions = session.predictions_of(self.tokens)?;
        let rows = expected.rows().into_iter().zip(predictions).zip(self.tokens);
        let decisions = rows.map(|((row, prediction), token)| {
            let (best, found) = (argmax(row), prediction.id as usize);
            max_error = f64::max(max_error, (row[best] - prediction.logit).abs().into());
            Decision { token, changed: (best != found).then(|| (piece(best), piece(found))) }
        });
        let decisions = decisions.collect();
        Ok((max_error, decisions))
    }

    /// Where an answer starts, and where it ends.
    fn ends(&self, session: &mut Session<'_, '_>) -> Compared<'a> {
        let (max_error, expected, logits) = self.logits(session)?;
        let found = ArrayView2::from_shape(expected.dim(), logits).expect("two logits a token");
        let word = |place: usize| {
            let token = &self.tokens[place];
            self.text.get(token.start as usize..token.end as usize).unwrap_or_default().to_owned()
        };
        let columns = expected.columns().into_iter().zip(found.columns());
        let decisions = columns.map(|(expected, found)| {
            let (best, found) = (argmax(expected), argmax(found));
            let changed = (best != found).then(|| (word(best), word(found)));
            Decision { token: &self.tokens[best], changed }
        });
        Ok((max_error, decisions.collect()))
    }

    /// A label, or yes or no; a value is no decision that could change.
    fn labels(&self, session: &mut Session<'_, '_>) -> Compared<'a> {
        let (max_error, expected, logits) = self.logits(session)?;
        let decision = |row: ArrayView1<'_, f32>| match self.head.kind {
            HeadKind::Detect => usize::from(row[0] > 0.0),
            HeadKind::Regress => 0,
            _ => argmax(row),
        };
        let named = |choice: usize, logit: f32| match self.head.kind {
            HeadKind::Detect => format!("replaced: {:.3}", 1.0 / (1.0 + (-logit).exp())),
            _ => self.head.labels.get(choice).cloned().unwrap_or_default(),
        };
        let rows = expected.rows().into_iter().zip(logits.chunks_exact(self.head.labels.len()));
        let decisions = rows.zip(self.tokens).map(|((row, logits), token)| {
            let (best, found) = (decision(row), decision(ArrayView1::from(logits)));
            let changed = (best != found).then(|| (named(best, row[0]), named(found, logits[0])));
            Decision { token, changed }
        });
        Ok((max_error, decisions.collect()))
    }

    /// The largest difference, the reference's logits `[rows, labels]`, and the model's one after another.
    fn logits<'s>(
        &self,
        session: &'s mut Session<'_, '_>,
    ) -> Result<(f64, Array2<f32>, &'s [f32]), QuantizeError> {
        let rows = self.head.kind.answering_rows(self.tokens.len());
        let expected =
            Reference(self.checkpoint).logits(self.head, self.hidden.slice(ndarray::s![..rows, ..]))?;
        let logits = session.token_logits_of(self.head.kind, self.tokens)?.logits;
        let errors = expected.iter().zip(logits).map(|(a, b)| f64::from((a - b).abs()));
        Ok((errors.fold(0.0, f64::max), expected, logits))
    }
}

/// Index of the largest value, the first of equals.
fn argmax(row: ArrayView1<'_, f32>) -> usize {
    (0..row.len()).fold(0, |best, index| if row[index] > row[best] { index } else { best })
}

/// Cosine of the angle between two vectors.
pub fn cosine(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
    let dot = |a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
