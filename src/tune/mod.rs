//! Learning where the model runs: adapters through the frozen weights, in a fixed buffer, the same bits
//! on every machine.
//!
//! A [`Tuner`] takes examples one by one. Each goes through the encoder's own forward pass, which keeps only
//! the inputs of the layers that are trained, in f16; then backward through the same tiles. [`Tuner::step`]
//! applies what has gathered. What was learned is an [`Adapter`]: a view of the arena, to answer with at once
//! ([`Session::with_adapter`](crate::Session::with_adapter)) or to write down.
//!
//! ```
//! use electret::tune::{Settings, Target, Task};
//! use electret::{Aligned, Arena, Model, Session, Strategy, TINY, Tuner, TuningPlan};
//!
//! static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../../models/electret-tiny.electret"));
//! const STRATEGY: Strategy = Strategy::lora(4, 2).with_head();
//! const BYTES: usize = TuningPlan::new(&TINY, 32, STRATEGY, 2).bytes();
//!
//! fn main() -> Result<(), electret::Error> {
//!     let model = Model::open(&MODEL.0)?;
//!     let mut arena: Box<Arena<BYTES>> = Box::default();
//!     let task = Task::classify(&["question", "statement"]);
//!     let mut tuner = Tuner::new(model, arena.as_mut_slice(), 32, task, STRATEGY, Settings::default())?;
//!     for _ in 0..20 {
//!         tuner.learn("where is the house?".into(), Target::Class(0))?;
//!         tuner.learn("the house is here.".into(), Target::Class(1))?;
//!         tuner.step();
//!     }
//!     let mut memory: Box<Arena<{ electret::Plan::inference(&TINY, 32).bytes() }>> = Box::default();
//!     let adapter = tuner.adapter();
//!     let mut session = Session::new(model, memory.as_mut_slice(), 32)?.with_adapter(Some(adapter))?;
//!     assert!(session.classify("where is the dog?".into())?[0] > 0.5);
//!     Ok(())
//! }
//! ```

mod guard;
mod loss;
mod optimizer;
mod slot;
mod state;
pub mod store;
mod task;

pub use guard::{Guard, GuardPlan, Rounds, Tolerance, Verdict};
pub use optimizer::Settings;
pub use state::{Progress, State};
#[cfg(feature = "train")]
pub(crate) use task::{IGNORED, label_tokens};
pub use task::{Target, Task, word_spans};

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::arena::Carver;
use crate::encoder::{
    Backward, BackwardSpace, Columns, Dense, Dropout, Gradients, Network, Turning, Workspace,
};
use crate::kernels::lanes::sqrt;
use crate::kernels::{self, Accumulate, KernelSet};
use crate::plan::BLOCK_ROWS;
use crate::random::Random;
use crate::tasks::head;
use crate::text::{Input, Tokenizer};
use crate::weights::strategy::{Layout, MAX_RANK, NormPart, Part, Strategy};
use crate::weights::{Adapter, Model, check_labels, native};
use crate::{Error, TuningPlan};
use optimizer::Moments;

/// Rows of a computer's blocks, which has the memory for large ones.
#[cfg(feature = "std")]
pub const COMPUTER_BLOCK_ROWS: usize = 128;

/// The plan of a computer for a head of `labels` outputs; sequences of up to `tokens` tokens.
#[cfg(feature = "std")]
pub fn computer_plan(
    model: &Model<'_>,
    kind: crate::HeadKind,
    strategy: Strategy,
    labels: usize,
    tokens: usize,
) -> TuningPlan {
    const STRIPS: usize = 8;
    let layout = Layout { config: *model.config(), strategy, width: model.head_width(kind), labels };
    TuningPlan::with_blocks(layout, tokens, COMPUTER_BLOCK_ROWS, STRIPS).for_model(model)
}

/// 0..`count` in the order of one epoch, which the seed decides.
#[cfg(feature = "std")]
pub fn epoch_order(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = seed;
    for last in (1..count).rev() {
        // SplitMix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        order.swap(last, ((z ^ z >> 31) % (last as u64 + 1)) as usize);
    }
    order
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// The parameters moved.
    Taken {
        /// Norm of the gradient before clipping.
        gradient_norm: f32,
    },
    /// There was nothing to learn from.
    Empty,
    /// The gradient was not finite and was thrown away; the parameters are as they were.
    Skipped,
}

/// A model that learns in a caller's arena.
pub struct Tuner<'m, 'a> {
    model: Model<'m>,
    kernels: &'static KernelSet,
    plan: TuningPlan,
    task: Task<'m>,
    settings: Settings,
    workspace: Workspace<'a>,
    space: BackwardSpace<'a>,
    moments: Moments<'a>,
    /// Inputs of the layers from the lowest trained one up, f16 `[layers, tokens, hidden]`.
    saved: &'a mut [u16],
    /// `[tokens, labels]`.
    logits: &'a mut [f32],
    /// What each token teaches.
    labels: &'a mut [u16],
    /// Examples whose gradients no step has applied.
    pending: u32,
    /// Examples since the last step, those that were refused too.
    shown: u32,
    progress: Progress,
    /// Called before each block of rows forward, and before each layer backward.
    pulse: fn(),
}

impl core::fmt::Debug for Tuner<'_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Tuner({}, {} steps)", self.plan.layout.strategy, self.progress.steps)
    }
}

impl<'m, 'a> Tuner<'m, 'a> {
    /// A tuner for sequences of up to `tokens` tokens, with this machine's fastest kernels.
    ///
    /// # Errors
    /// [`Error::ArenaTooSmall`] with the bytes that [`TuningPlan`] asks for, [`Error::ArenaMisaligned`],
    /// [`Error::SequenceTooLong`] beyond the model's positions, [`Error::SequenceTooShort`] below 3,
    /// [`Error::InvalidStrategy`],
    /// [`Error::InvalidSetting`], [`Error::NoSuchHead`] if the head is neither the model's nor trained.
    pub fn new(
        model: Model<'m>,
        arena: &'a mut [u8],
        tokens: usize,
        task: Task<'m>,
        strategy: Strategy,
        settings: Settings,
    ) -> Result<Self, Error> {
        let layout = layout(&model, &task, strategy)?;
        let plan = TuningPlan::with_blocks(layout, tokens, BLOCK_ROWS, 1);
        Self::with(model, arena, plan, task, settings, kernels::best())
    }

    /// The same by a plan, made [for the model](TuningPlan::for_model) if it was not, and with kernels of the caller's
    /// choice; what is learned is the same bits.
    pub fn with(
        model: Model<'m>,
        arena: &'a mut [u8],
        plan: TuningPlan,
        task: Task<'m>,
        settings: Settings,
        kernels: &'static KernelSet,
    ) -> Result<Self, Error> {
        task.check()?;
        settings.check()?;
        let layout = layout(&model, &task, plan.layout.strategy)?;
        if !layout.has_shape_of(&plan.layout) {
            return Err(Error::InvalidStrategy("the plan is for another model or another task"));
        }
        let plan = TuningPlan { layout, ..plan }.for_model(&model);
        let (tokens, limit) = (plan.inference.tokens, model.config().max_position_embeddings);
        if tokens > limit {
            return Err(Error::SequenceTooLong { tokens, limit });
        }
        if tokens < 3 {
            return Err(Error::SequenceTooShort);
        }
        let (needed, found) = (plan.bytes(), arena.len());
        let arena = arena.get_mut(..needed).ok_or(Error::ArenaTooSmall { needed, found })?;
        let (forward, rest) = arena.split_at_mut(plan.inference.bytes().min(needed));
        let workspace = Workspace::carve(forward, &plan.inference)?;
        let mut carver = Carver(rest);
        let parameters = plan.layout.len();
        let mut tuner = Self {
            model,
            kernels,
            plan,
            task,
            settings,
            workspace,
            moments: Moments {
                parameters: carver.take(parameters)?,
                gradients: carver.take(parameters)?,
                first: carver.take(parameters)?,
                second: carver.take(parameters)?,
            },
            logits: carver.take(tokens * plan.layout.labels)?,
            labels: carver.take(tokens)?,
            saved: carver.take(plan.saved)?,
            space: BackwardSpace {
                gradient: carver.take(plan.gradient)?,
                queries: carver.take(plan.queries)?,
                query_scales: carver.take(plan.query_scales)?,
                turning: Turning {
                    tiles: carver.take(plan.tiles)?,
                    row: carver.take(plan.row)?,
                    out: carver.take(plan.out)?,
                },
            },
            pending: 0,
            shown: 0,
            progress: Progress::default(),
            pulse: || (),
        };
        tuner.start();
        Ok(tuner)
    }

    /// Calls `pulse` before each block of rows forward and each layer backward, so that a long example starves no
    /// watchdog.
    pub fn with_pulse(mut self, pulse: fn()) -> Self {
        self.pulse = pulse;
        self
    }

    /// The parameters before the first step: the model's own head and LayerNorms where it has them, a new
    /// head small and random, low-rank updates that change nothing (B is zero).
    fn start(&mut self) {
        let Moments { parameters, gradients, first, second } = &mut self.moments;
        for values in [&mut **parameters, gradients, first, second] {
            values.fill(0.0);
        }
        let layout = &self.plan.layout;
        let mut random = Random::new(self.settings.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        if let Some((weight, bias)) = layout.head() {
            let weight = parameters.get_mut(weight).unwrap_or_default();
            let own = self.model.head(self.task.kind).ok().and_then(|head| head.output.as_ref());
            match own.filter(|output| output.outputs() == layout.labels) {
                Some(output) => {
                    for (label, row) in weight.chunks_exact_mut(layout.width).enumerate() {
                        output.add_row(label, row);
                    }
                    let biases = output.channels.iter().flat_map(|channels| &channels.bias);
                    for (bias, own) in parameters.get_mut(bias).unwrap_or_default().iter_mut().zip(biases) {
                        *bias = *own;
                    }
                    unsmooth(native(&output.smoothing), parameters, layout);
                }
                None => weight.fill_with(|| (random.unit() - 0.5) * 0.04),
            }
        }
        if let Some((_, directions)) = layout.words() {
            let bound = 1.0 / sqrt(layout.config.embedding_size as f32);
            let directions = parameters.get_mut(directions).unwrap_or_default();
            directions.fill_with(|| (random.unit() * 2.0 - 1.0) * bound);
        }
        for (index, layer) in self.model.root().layers.iter().enumerate() {
            for part in Part::ALL {
                if let Some((a, _)) = layout.low_rank(index, part) {
                    let bound = 1.0 / sqrt(part.shape(&layout.config).0 as f32);
                    let a = parameters.get_mut(a).unwrap_or_default();
                    a.fill_with(|| (random.unit() * 2.0 - 1.0) * bound);
                }
            }
            for (part, norm) in
                [(NormPart::Attention, &layer.attention_norm), (NormPart::Output, &layer.output_norm)]
            {
                let Some((weight, bias)) = layout.norm(index, part) else { continue };
                for (range, own) in [(weight, native(&norm.weight)), (bias, native(&norm.bias))] {
                    parameters.get_mut(range).unwrap_or_default().copy_from_slice(own);
                }
            }
        }
    }

    /// Learns from one example and returns its loss in nats; the parameters move at the next [`Tuner::step`].
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`]; [`Error::EmptyText`]; [`Error::LabelOutOfRange`],
    /// [`Error::WrongTarget`], [`Error::LabelCount`], [`Error::SpanOutsideContext`];
    /// [`Error::NotFinite`] for a loss that is no number. None of them leaves a trace in what was learned.
    pub fn learn(&mut self, input: Input<'_>, target: Target<'_>) -> Result<f32, Error> {
        self.shown += 1;
        let dropout = self.dropout();
        let (length, loss) = self.forward(input, target, dropout)?;
        self.backward(length, dropout);
        self.pending += 1;
        Ok(loss)
    }

    /// The loss of an example, without learning from it.
    ///
    /// # Errors
    /// As [`Tuner::learn`].
    pub fn loss(&mut self, input: Input<'_>, target: Target<'_>) -> Result<f32, Error> {
        Ok(self.forward(input, target, None)?.1)
    }

    /// Moves the parameters by the mean gradient of the examples since the last step.
    pub fn step(&mut self) -> Step {
        let examples = core::mem::take(&mut self.pending);
        self.progress.seen += u64::from(core::mem::take(&mut self.shown));
        if examples == 0 {
            return Step::Empty;
        }
        let gradient_norm = self.moments.gradient_norm(self.kernels, examples);
        if !gradient_norm.is_finite() {
            self.moments.gradients.fill(0.0);
            self.progress.skipped += 1;
            return Step::Skipped;
        }
        self.progress.steps = self.progress.steps.saturating_add(1);
        let (layout, step) = (&self.plan.layout, self.progress.steps);
        self.moments.step(layout, &self.settings, step, examples, gradient_norm);
        Step::Taken { gradient_norm }
    }

    /// What was learned so far.
    pub fn adapter(&self) -> Adapter<'_> {
        Adapter {
            base: self.model.fingerprint(),
            kind: self.task.kind,
            labels: self.task.names(),
            layout: self.plan.layout,
            parameters: self.moments.parameters,
        }
    }

    /// The gradients of the examples since the last step, summed, where [`Layout`] puts them.
    pub fn gradients(&self) -> &[f32] {
        self.moments.gradients
    }

    /// The trained tensors, to be set to something else.
    pub fn parameters_mut(&mut self) -> &mut [f32] {
        self.moments.parameters
    }

    /// Steps taken, what was thrown away, and examples seen.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The plan of the arena.
    pub fn plan(&self) -> &TuningPlan {
        &self.plan
    }

    /// What falls in the example at hand: other values in each, the same whether or not the tuner was stopped in
    /// between.
    fn dropout(&self) -> Option<Dropout> {
        let seen = self.progress.seen + u64::from(self.shown);
        let seed = self.settings.seed.wrapping_add(seen.wrapping_mul(0xd134_2543_de82_ef95));
        Some(Dropout { seed, rate: self.settings.dropout }).filter(|dropout| dropout.rate > 0.0)
    }

    /// Tokenises, runs the encoder and the head, and leaves the logits' gradient in `self.logits`: the number
    /// of tokens and the loss.
    fn forward(
        &mut self,
        input: Input<'_>,
        target: Target<'_>,
        dropout: Option<Dropout>,
    ) -> Result<(usize, f32), Error> {
        let Self { model, kernels, plan, task, workspace, moments, saved, logits, labels, pulse, .. } = self;
        let tokenizer = Tokenizer::new(&model.root().vocabulary);
        let length = tokenizer.encode(input, workspace.tokens)?;
        let tokens = workspace.tokens.get(..length).unwrap_or_default();
        if tokens.iter().all(|token| token.special == 1) {
            return Err(Error::EmptyText);
        }
        let rows = task.kind.answering_rows(length);
        let labels = labels.get_mut(..rows.max(2).min(plan.inference.tokens)).unwrap_or_default();
        task::label_tokens(task, input, target, tokens, labels)?;
        let value = if let Target::Value(value) = target { value } else { 0.0 };

        let network = network(*model, kernels, task, &plan.layout, moments.parameters);
        let network = Network { dropout, pulse: *pulse, ..network };
        let (first, hidden) = (plan.layout.first_layer(), model.config().hidden_size);
        let layers = model.config().num_hidden_layers;
        let encoded = network.encode_observed(workspace, length, |layer, states| {
            if layer < first || layer >= layers {
                return;
            }
            let start = (layer - first) * plan.inference.tokens * hidden;
            let place = saved.get_mut(start..start + states.len()).unwrap_or_default();
            let place = place.reinterpret_cast_mut::<f16>();
            place.convert_from_f32_slice(states);
            place.convert_to_f32_slice(states);
        });
        let head = network.head(task.kind)?;
        let logits = logits.get_mut(..rows * head.labels).unwrap_or_default();
        let at_once = workspace.block.scales.len();
        let states = workspace.residual.get(..rows * hidden).unwrap_or_default();
        for (x, logits) in states.chunks(at_once * hidden).zip(logits.chunks_mut(at_once * head.labels)) {
            let (mut scratch, wide, _) = workspace.block.split();
            let features = head::features(&network, &head, x, &mut scratch, wide);
            head::output(&network, &head, features, &mut scratch, logits);
        }
        if encoded.is_err() || !logits.iter().all(|x| x.is_finite()) {
            self.progress.skipped += 1;
            return Err(Error::NotFinite);
        }
        let loss = loss::loss(kernels, task, logits, labels, value);
        if loss.is_finite() {
            return Ok((length, loss));
        }
        self.progress.skipped += 1;
        Err(Error::NotFinite)
    }

    /// Adds the gradients of what [`Tuner::forward`] left.
    fn backward(&mut self, length: usize, dropout: Option<Dropout>) {
        let Self { model, kernels, plan, task, workspace, space, moments, saved, logits, .. } = self;
        let hidden = model.config().hidden_size;
        let (layout, layers) = (&plan.layout, model.config().num_hidden_layers);
        let network = Network { dropout, ..network(*model, kernels, task, layout, moments.parameters) };
        let rows = task.kind.answering_rows(length);
        let first_layer = layout.first_layer();
        if first_layer < layers {
            space.gradient.get_mut(..length * hidden).unwrap_or_default().fill(0.0);
        }
        let at_once = (workspace.block.scales.len() / 2).max(1);
        for first in (0..rows).step_by(at_once) {
            let block = first..rows.min(first + at_once);
            head_backward(&network, layout, workspace, space, moments.gradients, logits, block);
        }
        for (index, layer) in network.layers().enumerate().skip(first_layer).rev() {
            let start = (index - first_layer) * plan.inference.tokens * hidden;
            let input = saved.get(start..start + length * hidden).unwrap_or_default();
            let goes_on = index > first_layer || layout.words().is_some();
            (self.pulse)();
            let backward = Backward { layer, kernels, length, input, goes_on };
            backward.run(workspace, space, &mut Gradients { layout, values: moments.gradients });
        }
        let tokens = workspace.tokens.get(..length).unwrap_or_default();
        let gradients = &mut Gradients { layout, values: moments.gradients };
        network.embeddings().backward(&mut workspace.block, space, tokens, gradients);
    }
}

/// The tokens of a lesson's longest sequence; 0 asks for 128, or the model's longest.
#[cfg(any(feature = "app", feature = "ffi"))]
pub(crate) fn lesson_tokens(model: &Model<'_>, asked: u32) -> Result<usize, Error> {
    let limit = model.config().max_position_embeddings;
    let tokens = if asked == 0 { limit.min(128) } else { asked as usize };
    if tokens > limit { Err(Error::SequenceTooLong { tokens, limit }) } else { Ok(tokens) }
}

/// What is trained of a model for a task.
fn layout(model: &Model<'_>, task: &Task<'_>, strategy: Strategy) -> Result<Layout, Error> {
    check_labels(model, task.kind, task.labels.len(), strategy.head)?;
    task.check_names(model, strategy.head)?;
    if strategy.words > MAX_RANK || strategy.lora.is_some_and(|lora| !(1..=MAX_RANK).contains(&lora.rank)) {
        return Err(Error::InvalidStrategy("a rank is a number from 1 to 64"));
    }
    if model.head(task.kind).is_ok_and(|head| head.norm.is_some()) {
        return Err(Error::InvalidStrategy("the model's head has a LayerNorm, which is not learned through"));
    }
    let layout = Layout {
        config: *model.config(),
        strategy,
        width: model.head_width(task.kind),
        labels: task.labels.len(),
    };
    if layout.is_empty() {
        return Err(Error::InvalidStrategy("nothing is trained; name head, bias or lora"));
    }
    Ok(layout)
}

fn network<'n>(
    model: Model<'n>,
    kernels: &'static KernelSet,
    task: &Task<'n>,
    layout: &Layout,
    parameters: &'n [f32],
) -> Network<'n> {
    let adapter = Adapter {
        base: model.fingerprint(),
        kind: task.kind,
        labels: task.names(),
        layout: *layout,
        parameters,
    };
    Network { adapter: Some(adapter), ..Network::new(model, kernels) }
}

/// Back through the head for a block of rows: adds to the gradients of its output layer, and leaves the
/// hidden states' gradient where layers are trained.
fn head_backward(
    network: &Network<'_>,
    layout: &Layout,
    workspace: &mut Workspace<'_>,
    space: &mut BackwardSpace<'_>,
    gradients: &mut [f32],
    logits: &[f32],
    rows: core::ops::Range<usize>,
) {
    let Network { model, kernels, adapter, .. } = network;
    let (hidden, width, labels, n) = (model.config().hidden_size, layout.width, layout.labels, rows.len());
    let Some(Ok(head)) = adapter.map(|adapter| network.head(adapter.kind)) else { return };
    let x = workspace.residual.get(rows.start * hidden..rows.end * hidden).unwrap_or_default();
    let d = logits.get(rows.start * labels..rows.end * labels).unwrap_or_default();
    let (mut scratch, wide, _) = workspace.block.split();
    let (before, rest) = wide.split_at_mut_checked(n * width).unwrap_or_default();
    let dense = head.own.and_then(|head| head.dense.as_ref()).map(Dense::from);

    if let Some(Ok([weight, bias])) =
        layout.head().map(|(weight, bias)| gradients.get_disjoint_mut([weight, bias]))
    {
        let features = head::features(network, &head, x, &mut scratch, before);
        (kernels.accumulate)(Accumulate {
            rows: labels,
            depth: n,
            width,
            factors: d,
            factor_steps: [1, labels],
            x: features,
            x_step: width,
            out: weight,
            out_step: width,
        });
        kernels.add_rows(d, bias);
    }
    let place = space.gradient.get_mut(rows.start * hidden..rows.end * hidden).unwrap_or_default();
    if place.is_empty() {
        return;
    }
    let through = rest.get_mut(..n * width).unwrap_or_default();
    // Without a dense layer the output layer's inputs are the hidden states themselves.
    let (features, below) = if dense.is_some() { (through, place) } else { (place, &mut [][..]) };
    features.fill(0.0);
    if let Some((weight, _)) = head.trained {
        (kernels.accumulate)(Accumulate {
            rows: n,
            depth: labels,
            width,
            factors: d,
            factor_steps: [labels, 1],
            x: weight,
            x_step: width,
            out: features,
            out_step: width,
        });
    } else if let Some(output) = head.own.and_then(|head| head.output.as_ref()) {
        let mut turning = space.turning.with(scratch.again());
        Dense::from(output).backward(kernels, &mut turning, Columns::all(output, d), features);
    }
    if let Some(dense) = dense {
        dense.forward(kernels, &mut scratch, x, before);
        (kernels.gelu_backward)(features, before);
        let features = &*features;
        let mut turning = space.turning.with(scratch);
        dense.backward(kernels, &mut turning, Columns::all(dense.linear, features), below);
    }
}

/// A head's own weights were divided by its input's smoothing, which a trained head does not have.
fn unsmooth(smoothing: &[f32], parameters: &mut [f32], layout: &Layout) {
    let Some((weight, _)) = layout.head() else { return };
    for row in parameters.get_mut(weight).unwrap_or_default().chunks_exact_mut(layout.width) {
        for (weight, factor) in row.iter_mut().zip(smoothing) {
            *weight *= factor;
        }
    }
}
