//! Weights that are being learnt: as the networks read them, and as the optimiser sees them.
//!
//! The optimiser takes all tensors of one kind as one long vector, since an update of a few hundred small tensors, one
//! by one, costs a GPU more than the step that it belongs to. Its values and moments are f32; what networks multiply
//! by may be a bf16 copy, made anew after each update. Names and shapes come back when a checkpoint is made.

use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor, backend::AutodiffBackend, backend::Backend};

use super::checkpoint::Checkpoint;
use super::kernels::Inputs;
use super::optimizer::{Adam, Moments};
use super::placed::Placed;
use super::tape::{Piece, Tape};
use super::weights::Weights;

/// In what a run multiplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats of 8 bits' precision, which GPUs multiply many times faster: products, their biases and what goes
    /// from one straight into the next. Residuals, LayerNorm, GELU, losses, the optimiser and its weights stay f32.
    Bf16,
}

impl Precision {
    /// Whether networks read the tensor of that name in bf16: the weight or bias of a product. Embedding tables are
    /// not, so that the gradients of a frequent word add up in f32.
    fn lowers(self, name: &str) -> bool {
        let table = name.contains("embeddings") && !name.contains("embeddings_project");
        self == Self::Bf16 && !table && !name.contains("LayerNorm") && !name.contains("lm_head")
    }
}

/// All that is learnt, after `step` updates.
pub struct Learner<B: AutodiffBackend> {
    step: usize,
    /// The leaves of the networks' graph.
    leaves: Weights<B>,
    precision: Precision,
    /// What no gradient was seen of: everything, before the first update.
    idle: Weights<B::InnerBackend>,
    idle_moments: Moments<B::InnerBackend>,
    groups: Vec<Group<B::InnerBackend>>,
    rate: Option<RateOf>,
}

/// What a tensor's learning rate is multiplied by, from its name.
pub type RateOf = Box<dyn Fn(&str) -> f64>;

/// The gradients of the groups, in their order.
pub type Gradients<B> = Vec<Tensor<B, 1>>;

impl<B: AutodiffBackend> Learner<B> {
    /// Goes on from a checkpoint; without `rate` all tensors have the same learning rate.
    pub fn new(checkpoint: Checkpoint<B::InnerBackend>, precision: Precision, rate: Option<RateOf>) -> Self {
        let Checkpoint { step, weights: idle, moments: idle_moments } = checkpoint;
        let matrices = idle.matrices.iter().map(|(n, t)| (n.clone(), lowered(n, t, precision))).collect();
        let vectors = idle.vectors.iter().map(|(n, t)| (n.clone(), lowered(n, t, precision))).collect();
        let leaves = Weights::leaves(Weights { matrices, vectors });
        Self { step, leaves, precision, idle, idle_moments, groups: Vec::new(), rate }
    }

    /// Updates done.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Whether there were gradients before, so that the next ones come piece by piece.
    pub fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// What networks read, and gradients are taken of.
    pub fn weights(&self) -> &Weights<B> {
        &self.leaves
    }

    /// What networks compute from: a part of a batch, and the weights that are learnt, of which the leaves are parts.
    /// These are known after the first gradients.
    pub fn inputs(&self, part: &Placed<B>) -> Inputs<B::InnerBackend> {
        let (ids, numbers) = part.sent();
        let mut vectors = vec![numbers.clone().inner()];
        vectors.extend(self.groups.iter().map(|group| group.read.clone()));
        Inputs { ids: ids.clone().inner(), vectors }
    }

    /// The gradients of a loss of these weights, each piece of the tape's when it is asked for; all of them are to be, and
    /// all calls are to have the same cuts. The first call decides which weights are learnt, all that the loss depends
    /// on, and in which piece the gradient of each is complete, and returns nothing before its last piece.
    pub fn gradients(
        &mut self,
        loss: Tensor<B, 1>,
        tape: Option<Tape<B>>,
    ) -> impl Iterator<Item = Gradients<B::InnerBackend>> {
        let first = self.groups.is_empty();
        let pieces = tape.unwrap_or_else(|| Tape::uncut(&self.leaves)).pieces(loss);
        let count = pieces.len();
        let mut sums = Sums::default();
        pieces.enumerate().map(move |(piece, gradients)| {
            sums.add(gradients, piece);
            let last = piece + 1 == count;
            if first && last {
                self.group(&sums);
            }
            let complete = self.groups.iter().filter(|group| first || group.piece == piece);
            let gradients = complete.map(|group| group.gradient(&mut sums)).collect();
            if first && last {
                // From here on the leaves are parts of what `inputs` returns.
                self.groups.iter().for_each(|group| group.spread(&mut self.leaves));
            }
            gradients
        })
    }

    /// An update by `adam` at that learning rate. Returns the global norm of the gradients before clipping, `[1]`, and
    /// waits for no device: where the norm is not finite, neither are the weights after it.
    pub fn update(
        &mut self,
        adam: &Adam,
        gradients: Gradients<B::InnerBackend>,
        rate: f64,
    ) -> Tensor<B::InnerBackend, 1> {
        assert_eq!(gradients.len(), self.groups.len(), "an update takes all gradients");
        self.step += 1;
        let squares = gradients.iter().map(|gradient| (gradient.clone() * gradient.clone()).sum());
        let norm = squares.reduce(|a, b| a + b).expect("a loss has gradients").sqrt();
        let clip = norm.clone().clamp_min(adam.clip_norm).recip() * adam.clip_norm;
        for (group, gradient) in self.groups.iter_mut().zip(gradients) {
            group.update(adam, self.step, gradient * clip.clone(), rate);
            group.read = lowered(&group.tensors[0].0, &group.values, self.precision);
            group.spread(&mut self.leaves);
        }
        norm
    }

    /// Everything by name, in f32.
    pub fn checkpoint(&self) -> Checkpoint<B::InnerBackend> {
        let mut weights = self.idle.clone();
        let mut moments = self.idle_moments.clone();
        for group in &self.groups {
            group.split(&group.values, &mut weights);
            group.split(&group.first, &mut moments.first);
            group.split(&group.second, &mut moments.second);
        }
        Checkpoint { step: self.step, weights, moments }
    }

    /// Takes the tensors of which there are gradients into groups, those first that are complete in the first piece.
    fn group(&mut self, sums: &Sums<B::InnerBackend>) {
        let matrices = self.leaves.matrices.iter().map(|(name, leaf)| (name, leaf.dims().to_vec()));
        let vectors = self.leaves.vectors.iter().map(|(name, leaf)| (name, leaf.dims().to_vec()));
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        for (name, shape) in matrices.chain(vectors) {
            if let Some(&(_, piece)) = sums.0.get(name) {
                let group = (piece, shape.len() == 1, !self.precision.lowers(name));
                groups.entry(group).or_default().push((name.clone(), shape));
            }
        }
        for ((piece, ..), tensors) in groups {
            let (idle, moments, rate) = (&mut self.idle, &mut self.idle_moments, self.rate.as_ref());
            self.groups.push(Group::take(tensors, piece, idle, moments, self.precision, rate));
        }
    }
}

/// What the pieces so far add up to: each tensor's gradient, `[values]`, and the last piece that had a part of it.
struct Sums<B: Backend>(BTreeMap<String, (Tensor<B, 1>, usize)>);

impl<B: Backend> Default for Sums<B> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<B: Backend> Sums<B> {
    fn add(&mut self, gradients: Piece<B>, piece: usize) {
        for (name, gradient) in gradients {
            let sum = match self.0.remove(&name) {
                Some((sum, _)) => sum + gradient,
                None => gradient,
            };
            self.0.insert(name, (sum, piece));
        }
    }
}

/// A tensor of a multiple of so many values leaves the next one in its group aligned: GPUs' fast products read whole
/// vectors of values, and slow ones take their place where an operand does not begin at such a one.
const ALIGNED: usize = 64;

/// Tensors of one rank and one precision whose gradients are complete in the same piece, those that are no multiple of
/// [`ALIGNED`] last: values, first and second moments, `[values]` each.
struct Group<B: Backend> {
    tensors: Vec<(String, Vec<usize>)>,
    piece: usize,
    values: Tensor<B, 1>,
    /// The values in the precision in which networks read them: the leaves of their graph are parts of this.
    read: Tensor<B, 1>,
    first: Tensor<B, 1>,
    second: Tensor<B, 1>,
    /// Of the learning rate, where it is not the same for all.
    factors: Option<Tensor<B, 1>>,
}

impl<B: Backend> Group<B> {
    /// Moves tensors of those names and shapes here, of which there is one at least.
    fn take(
        mut tensors: Vec<(String, Vec<usize>)>,
        piece: usize,
        weights: &mut Weights<B>,
        moments: &mut Moments<B>,
        precision: Precision,
        rate: Option<&RateOf>,
    ) -> Self {
        tensors.sort_by_key(|(_, shape)| !shape.iter().product::<usize>().is_multiple_of(ALIGNED));
        let each = tensors.iter().map(|(name, _)| weights.take_flat(name).expect("a leaf is a weight"));
        let each: Vec<_> = each.collect();
        let moment = |moments: &mut Weights<B>| {
            let known = tensors
                .iter()
                .zip(&each)
                .map(|((name, _), values)| moments.take_flat(name).unwrap_or_else(|| values.zeros_like()));
            Tensor::cat(known.collect(), 0)
        };
        let (first, second) = (moment(&mut moments.first), moment(&mut moments.second));
        let values = Tensor::cat(each, 0);
        let device = values.device();
        let factors = rate.map(|rate| {
            let each = tensors
                .iter()
                .map(|(name, shape)| Tensor::full([shape.iter().product::<usize>()], rate(name), &device));
            Tensor::cat(each.collect(), 0)
        });
        let read = lowered(&tensors[0].0, &values, precision);
        Self { tensors, piece, values, read, first, second, factors }
    }

    /// Takes its tensors' gradients.
    fn gradient(&self, sums: &mut Sums<B>) -> Tensor<B, 1> {
        let gradients = self.tensors.iter().map(|(name, _)| sums.0.remove(name).map(|(sum, _)| sum));
        let gradients: Option<Vec<_>> = gradients.collect();
        Tensor::cat(gradients.expect("the loss depends on the same weights as before"), 0).cast(DType::F32)
    }

    fn update(&mut self, adam: &Adam, step: usize, gradient: Tensor<B, 1>, rate: f64) {
        let direction = adam.direction(step, gradient, &mut self.first, &mut self.second);
        let direction = match self.tensors[0].1.len() {
            1 => direction,
            _ => direction + self.values.clone() * adam.weight_decay,
        };
        let direction = match &self.factors {
            Some(factors) => direction * factors.clone(),
            None => direction,
        };
        self.values = self.values.clone() - direction * rate;
    }

    /// The values as new leaves of the networks' graph.
    fn spread<A: AutodiffBackend<InnerBackend = B>>(&self, leaves: &mut Weights<A>) {
        let mut parts = Weights::default();
        self.split(&self.read, &mut parts);
        let parts = Weights::leaves(parts);
        leaves.matrices.extend(parts.matrices);
        leaves.vectors.extend(parts.vectors);
    }

    /// Puts each tensor's part of `values` under its name.
    fn split(&self, values: &Tensor<B, 1>, into: &mut Weights<B>) {
        let mut start = 0;
        for (name, shape) in &self.tensors {
            let length = shape.iter().product();
            let part = values.clone().narrow(0, start, length);
            match shape[..] {
                [rows, columns] => drop(into.matrices.insert(name.clone(), part.reshape([rows, columns]))),
                _ => drop(into.vectors.insert(name.clone(), part)),
            }
            start += length;
        }
    }
}

/// A tensor as networks read it.
fn lowered<B: Backend, const D: usize>(
    name: &str,
    tensor: &Tensor<B, D>,
    precision: Precision,
) -> Tensor<B, D> {
    if precision.lowers(name) { tensor.clone().cast(DType::BF16) } else { tensor.clone() }
}
