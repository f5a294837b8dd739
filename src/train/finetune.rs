//! Full fine-tuning: every weight learns a task (paper §3.1, appendix B; `run_finetuning.py`).
//!
//! A checkpoint of any source gets a fresh head of `transformers`' layout, learns a labelled file and becomes a
//! checkpoint again, which `convert` takes as any other. Text is read by the core's own tokeniser, so that what was
//! learned is what a device will see. Of several seeds the one that is best on the dev file is kept.

use anyhow::{Context, Result, ensure};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::checkpoint::Checkpoint as State;
use super::kernels::{Differentiable, Kernels};
use super::learner::{Learner, Precision};
use super::model::{Batch, Embeddings, Network};
use super::objective::cross_entropy;
use super::optimizer::{Adam, scalar};
use super::start::fresh_head;
use super::weights::{Weights, ids, vector};
use crate::evaluate::{Example, Labelled, Metric, Reader, TextReader, score};
use crate::import::{Checkpoint, HeadTensors};
use crate::tasks::{TokenLogits, Windows};
use crate::text::{Input, Token};
use crate::tune::{IGNORED, Target, Task, epoch_order, label_tokens};
use crate::{ElectraConfig, Error, HeadKind};

/// How a task is learned. Defaults are the paper's for a model of that width.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// Times that every example is learned.
    pub epochs: usize,
    /// Examples a step.
    pub batch_size: usize,
    /// Longest sequence in tokens; what is longer loses its end, or is learned in windows if it is the context of a question.
    pub sequence: usize,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// The learning rate's factor from a layer to the one below it.
    pub layer_decay: f64,
    /// Probability of dropping an activation.
    pub dropout: f64,
    /// Optimiser; its warm-up steps are counted from `warmup`.
    pub adam: Adam,
}

impl Recipe {
    /// The paper's values (table 7) for a model of that shape.
    pub fn of(config: &ElectraConfig) -> Self {
        let (learning_rate, layer_decay) = match config.hidden_size {
            1024.. => (5e-5, 0.9),
            768.. => (1e-4, 0.8),
            _ => (3e-4, 0.8),
        };
        Self {
            epochs: 3,
            batch_size: 32,
            sequence: config.max_position_embeddings.min(128),
            warmup: 0.1,
            layer_decay,
            dropout: 0.1,
            adam: Adam { learning_rate, weight_decay: 0.0, ..Adam::default() },
        }
    }

    fn check(&self, config: &ElectraConfig) -> Result<()> {
        ensure!(self.epochs > 0 && self.batch_size > 0, "epochs and batch size: at least 1");
        let most = config.max_position_embeddings;
        ensure!(
            (4..=most).contains(&self.sequence),
            "{} tokens: this model takes 4 to {most}",
            self.sequence
        );
        ensure!((0.0..1.0).contains(&self.dropout), "dropout {}: 0 or more, and below 1", self.dropout);
        ensure!((0.0..=1.0).contains(&self.warmup), "warm-up {}: a share of the steps", self.warmup);
        let Adam { learning_rate: rate, weight_decay, .. } = self.adam;
        ensure!(rate > 0.0 && rate.is_finite(), "learning rate {rate}: more than 0, and finite");
        ensure!(
            (0.0..f64::INFINITY).contains(&weight_decay),
            "weight decay {weight_decay}: 0 or more, and finite"
        );
        let decay = self.layer_decay;
        ensure!((0.0..=1.0).contains(&decay), "layer decay {decay}: 0 to 1");
        Ok(())
    }
}

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct Finetuned {
    /// The seed.
    pub seed: u64,
    /// Mean loss of each epoch, nats (squared error where a value is learned).
    pub losses: Vec<f64>,
    /// Scores on the dev file after each epoch.
    pub dev: Vec<Vec<Metric>>,
    /// Examples that taught nothing: without a token, or with an answer that no window has as whole tokens.
    pub left_out: usize,
    /// The network with its new head.
    pub checkpoint: Checkpoint,
}

/// Learns `train` from the encoder of `start` and scores `dev` after every epoch.
///
/// # Errors
/// Settings out of range, a file without a usable example, of a single class or of another task than the dev file's, a
/// model of one segment, a loss that is no longer finite.
pub fn finetune<B: Differentiable>(
    start: &Checkpoint,
    train: &Labelled,
    dev: Option<&Labelled>,
    recipe: &Recipe,
    seed: u64,
    device: &B::Device,
) -> Result<Finetuned> {
    recipe.check(&start.config)?;
    let classes = train.kind != HeadKind::Classify || train.labels.len() > 1;
    ensure!(classes, "all examples have the label {}: there is nothing to tell apart", train.labels.join(""));
    if let Some(dev) = dev {
        let (ours, theirs) = (train.kind.name(), dev.kind.name());
        ensure!(train.kind == dev.kind, "what is learned is for {ours}, what it is scored on for {theirs}");
    }
    ensure!(
        start.config.type_vocab_size > 1,
        "config.type_vocab_size = 1: models of two segments are trained"
    );
    let (lessons, left_out) = lessons(start, train, recipe.sequence)?;
    let steps = recipe.epochs * lessons.len().div_ceil(recipe.batch_size);
    let adam = Adam { warmup_steps: (steps as f64 * recipe.warmup) as usize, ..recipe.adam };
    let mut found = Finetuned {
        seed,
        losses: Vec::new(),
        dev: Vec::new(),
        left_out,
        checkpoint: with_fresh_head(start, train, seed),
    };
    let begun = State::fresh(Weights::from_tensors(&found.checkpoint.tensors, device)?);
    let (decay, layers) = (recipe.layer_decay, start.config.num_hidden_layers);
    let rate = Box::new(move |name: &str| decay.powi(below_head(name, layers)));
    let mut learner = Learner::<B>::new(begun, Precision::F32, Some(rate));
    for epoch in 1..=recipe.epochs {
        let bar = ProgressBar::new(lessons.len() as u64);
        bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}, {per_sec}, {eta} left")?);
        let mut losses: Option<Tensor<B::InnerBackend, 1>> = None;
        let order = epoch_order(lessons.len(), seed ^ (epoch as u64) << 32);
        for chosen in order.chunks(recipe.batch_size) {
            B::seed(device, seed ^ (learner.step() as u64) << 20);
            let batch: Vec<&Lesson> = chosen.iter().map(|&index| &lessons[index]).collect();
            let network = network(learner.weights(), &start.config, recipe.dropout);
            let loss = loss(&network, train.kind, &batch, device);
            let own = learner.gradients(loss.clone(), None).flatten().collect();
            let rate = adam.rate(learner.step() + 1, steps);
            learner.update(&adam, own, rate);
            let weighted = loss.inner() * chosen.len() as f64;
            losses = Some(losses.map_or_else(|| weighted.clone(), |sum| sum + weighted.clone()));
            bar.inc(chosen.len() as u64);
        }
        bar.finish_and_clear();
        let loss = losses.map_or(f64::NAN, |sum| f64::from(scalar(sum))) / lessons.len() as f64;
        ensure!(loss.is_finite(), "epoch {epoch}: the loss is no longer finite; lower the learning rate");
        found.losses.push(loss);
        let mut said = String::new();
        if let Some(dev) = dev {
            let scores = examine(learner.weights(), &found.checkpoint, dev, recipe.sequence, device)?;
            said = scores.iter().map(|score| format!(", {} {:.4}", score.metric, score.value)).collect();
            found.dev.push(scores);
        }
        log::info!("seed {seed}, epoch {epoch}: loss {loss:.4}{said}");
    }
    found.checkpoint.tensors = learner.checkpoint().weights.to_tensors()?;
    Ok(found)
}

/// The encoder of a checkpoint under a new head for the task of a file.
fn with_fresh_head(start: &Checkpoint, train: &Labelled, seed: u64) -> Checkpoint {
    let hidden = start.config.hidden_size;
    let head = match train.kind {
        HeadKind::Tag => HeadTensors::tagger(train.labels.clone()),
        HeadKind::Answer => HeadTensors::answerer(),
        _ => HeadTensors::classifier(hidden, train.labels.clone()),
    };
    let encoder = |name: &str| name.starts_with("electra.").then(|| name.to_owned());
    let mut tensors = start.tensors.clone().renamed(encoder);
    for (name, tensor) in fresh_head(&head, hidden, seed).iter() {
        tensors.insert(name, tensor.shape(), tensor.iter().copied().collect());
    }
    Checkpoint { heads: vec![head], tensors, ..start.clone() }
}

fn network<'a, B: Backend>(
    weights: &'a Weights<B>,
    config: &'a ElectraConfig,
    dropout: f64,
) -> Network<'a, B> {
    Network { weights, prefix: "electra", embeddings: Embeddings::Shared, config, dropout, tape: None }
}

/// How many times the layer decay counts for a tensor, as `optimization.py` has it: none for the head, two for the last
/// layer, one more for each below, and the embeddings below them all.
fn below_head(name: &str, layers: usize) -> i32 {
    let Some(name) = name.strip_prefix("electra.") else { return 0 };
    let layer =
        name.strip_prefix("encoder.layer.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    let depth = layer.map_or(0, |layer| layer + 1);
    (layers + 2 - depth) as i32
}

/// An example as the network learns it.
struct Lesson {
    ids: Vec<i32>,
    types: Vec<i32>,
    /// As [`label_tokens`] writes them.
    labels: Vec<u16>,
    value: f32,
}

/// What the examples of a file teach, and how many of them teach nothing ([`Finetuned::left_out`]).
fn lessons(start: &Checkpoint, data: &Labelled, sequence: usize) -> Result<(Vec<Lesson>, usize)> {
    let names: Vec<&str> = data.labels.iter().map(String::as_str).collect();
    let task = Task::of(data.kind, &names);
    let mut text = TextReader::new(start, sequence);
    let (mut lessons, mut left_out) = (Vec::new(), 0);
    for (index, example) in data.examples.iter().enumerate() {
        let taught = lessons.len();
        match Lesson::all(&mut text, &task, example, &mut lessons) {
            Ok(()) | Err(Error::EmptyText) => {}
            Err(error) => return Err(error).with_context(|| format!("example {}", index + 1)),
        }
        left_out += usize::from(lessons.len() == taught);
    }
    ensure!(
        !lessons.is_empty(),
        "no example teaches anything: each is empty, or its answer no whole tokens of its context"
    );
    Ok((lessons, left_out))
}

impl Lesson {
    /// Those of an example: one, or one for each window of a context that holds the answer.
    fn all(
        text: &mut TextReader,
        task: &Task<'_>,
        example: &Example,
        lessons: &mut Vec<Self>,
    ) -> Result<(), Error> {
        let (Target::Span(first, last), Some(context)) = (example.target(), &example.pair) else {
            let input = example.input();
            lessons.push(Self::of(text.tokens(input)?, task, input, example.target())?);
            return Ok(());
        };
        let mut windows = Windows::new(context);
        while let Some(part) = windows.part() {
            let input = Input { pair: Some(part), ..example.input() };
            let Some(before) = first.checked_sub(windows.start()) else { break };
            let tokens = text.tokens(input)?;
            match Self::of(tokens, task, input, Target::Span(before, before + last - first)) {
                Ok(lesson) => lessons.push(lesson),
                Err(Error::SpanOutsideContext) => {}
                Err(error) => return Err(error),
            }
            windows.advance(tokens);
        }
        Ok(())
    }

    /// What an input with those tokens teaches.
    fn of(tokens: &[Token], task: &Task<'_>, input: Input<'_>, target: Target<'_>) -> Result<Self, Error> {
        let mut labels = vec![IGNORED; tokens.len()];
        label_tokens(task, input, target, tokens, &mut labels)?;
        let value = if let Target::Value(value) = target { value } else { 0.0 };
        Ok(Self {
            ids: tokens.iter().map(|token| token.id as i32).collect(),
            types: tokens.iter().map(|token| token.type_id.into()).collect(),
            labels,
            value,
        })
    }
}

/// The mean loss of a batch, as `transformers` has it for that head.
fn loss<B: Kernels>(
    network: &Network<'_, B>,
    kind: HeadKind,
    lessons: &[&Lesson],
    device: &B::Device,
) -> Tensor<B, 1> {
    let batch = padded(lessons, device);
    let [size, sequence] = batch.input_ids.dims();
    let logits = network.task_head(kind, network.encode(&batch), &batch);
    let first =
        |place: usize| ids(lessons.iter().map(|lesson| lesson.labels[place].into()).collect(), device);
    match kind {
        HeadKind::Regress => {
            let values = vector(lessons.iter().map(|lesson| lesson.value).collect(), device);
            let error = logits.squeeze_dim::<1>(1) - values;
            (error.clone() * error).mean()
        }
        HeadKind::Tag => {
            let labelled = lessons.iter().enumerate().flat_map(|(row, lesson)| {
                let labels = lesson.labels.iter().enumerate().filter(|&(_, &label)| label != IGNORED);
                labels.map(move |(column, &label)| ((row * sequence + column) as i32, i32::from(label)))
            });
            let (rows, labels): (Vec<i32>, Vec<i32>) = labelled.unzip();
            cross_entropy(logits.select(0, ids(rows, device)), ids(labels, device))
        }
        HeadKind::Answer => {
            let padding = batch.mask().reshape([size, sequence]);
            let end = |column: usize| {
                let logits = logits.clone().narrow(1, column, 1).reshape([size, sequence]);
                cross_entropy(logits + padding.clone(), first(column))
            };
            (end(0) + end(1)) / 2.0
        }
        _ => cross_entropy(logits, first(0)),
    }
}

fn padded<B: Backend>(lessons: &[&Lesson], device: &B::Device) -> Batch<B> {
    let sequence = lessons.iter().map(|lesson| lesson.ids.len()).max().unwrap_or(1);
    let shape = [lessons.len(), sequence];
    let ints = |of: fn(&Lesson) -> &[i32]| {
        let rows = lessons
            .iter()
            .flat_map(|lesson| of(lesson).iter().copied().chain(std::iter::repeat(0)).take(sequence));
        Tensor::<B, 2, Int>::from_data(TensorData::new(rows.collect(), shape), device)
    };
    let padding = lessons.iter().flat_map(|lesson| (0..sequence).map(|column| column >= lesson.ids.len()));
    Batch {
        input_ids: ints(|lesson| &lesson.ids),
        token_type_ids: ints(|lesson| &lesson.types),
        padding: Tensor::from_data(TensorData::new(padding.collect::<Vec<bool>>(), shape), device),
    }
}

fn examine<B: Differentiable>(
    weights: &Weights<B>,
    checkpoint: &Checkpoint,
    dev: &Labelled,
    sequence: usize,
    device: &B::Device,
) -> Result<Vec<Metric>> {
    let weights = weights.inner();
    let mut reader = Examined {
        network: network(&weights, &checkpoint.config, 0.0),
        head: &checkpoint.heads[0],
        text: TextReader::new(checkpoint, sequence),
        tokens: Vec::new(),
        logits: Vec::new(),
        device,
    };
    Ok(score(&mut reader, dev)?)
}

/// The network that learns, asked between two epochs.
struct Examined<'a, B: Kernels> {
    network: Network<'a, B>,
    head: &'a HeadTensors,
    text: TextReader,
    tokens: Vec<Token>,
    logits: Vec<f32>,
    device: &'a B::Device,
}

impl<B: Kernels> Reader for Examined<'_, B> {
    fn label_count(&self, head: HeadKind) -> Result<usize, Error> {
        if head == self.head.kind { Ok(self.head.labels.len()) } else { Err(Error::NoSuchHead(head.name())) }
    }

    fn read(&mut self, head: HeadKind, input: Input<'_>) -> Result<TokenLogits<'_>, Error> {
        self.label_count(head)?;
        self.tokens = self.text.tokens(input)?.to_vec();
        let ints = |of: fn(&Token) -> i32| self.tokens.iter().map(of).collect();
        let lesson = Lesson {
            ids: ints(|token| token.id as i32),
            types: ints(|token| token.type_id.into()),
            labels: Vec::new(),
            value: 0.0,
        };
        let batch = padded(&[&lesson], self.device);
        let logits = self.network.task_head(head, self.network.encode(&batch), &batch);
        self.logits = logits.into_data().iter::<f32>().collect();
        Ok(TokenLogits { tokens: &self.tokens, logits: &self.logits })
    }
}
