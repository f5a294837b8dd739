//! Differentiation piece by piece: the last layers' gradients are known while those of the first are still to be
//! computed, so that ranks can sum some while they compute others.
//!
//! The graph of a loss is cut where [`encode`](super::model::Network::encode) enters a layer. A piece goes from one cut
//! to the next, and the gradient at its lower end is where the piece below it begins: the same products as of the whole
//! graph at once. Every reading of a weight is a leaf of its own, since Burn, once it has differentiated one of two
//! graphs that share a node, may have forgotten a part of the other (burn-autodiff 0.21).

use std::cell::RefCell;

use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};

use super::weights::Weights;

/// What differentiation needs to know of a forward pass.
#[derive(Debug)]
pub struct Tape<B: Backend> {
    /// In the order of the forward pass.
    cuts: RefCell<Vec<Cut<B>>>,
    matrices: RefCell<Vec<(String, Tensor<B, 2>)>>,
    vectors: RefCell<Vec<(String, Tensor<B, 1>)>>,
}

/// Hidden states `[rows, hidden]` on both sides of a cut: as the graph below made them, and as a leaf of the one above.
#[derive(Debug)]
struct Cut<B: Backend> {
    below: Tensor<B, 2>,
    above: Tensor<B, 2>,
}

impl<B: Backend> Default for Tape<B> {
    fn default() -> Self {
        Self { cuts: RefCell::default(), matrices: RefCell::default(), vectors: RefCell::default() }
    }
}

impl<B: Backend> Tape<B> {
    /// A tape of one piece, in which the weights themselves are read.
    pub(super) fn uncut(weights: &Weights<B>) -> Self {
        Self {
            matrices: RefCell::new(weights.matrices.clone().into_iter().collect()),
            vectors: RefCell::new(weights.vectors.clone().into_iter().collect()),
            ..Self::default()
        }
    }

    /// Hidden states for the layer above a cut.
    pub fn cut(&self, below: Tensor<B, 2>) -> Tensor<B, 2> {
        let above = leaf(below.clone());
        self.cuts.borrow_mut().push(Cut { below, above: above.clone() });
        above
    }

    /// A matrix as one operation reads it.
    pub fn matrix(&self, name: &str, matrix: Tensor<B, 2>) -> Tensor<B, 2> {
        let read = leaf(matrix);
        self.matrices.borrow_mut().push((name.to_owned(), read.clone()));
        read
    }

    /// A vector as one operation reads it.
    pub fn vector(&self, name: &str, vector: Tensor<B, 1>) -> Tensor<B, 1> {
        let read = leaf(vector);
        self.vectors.borrow_mut().push((name.to_owned(), read.clone()));
        read
    }
}

fn leaf<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    tensor.detach().require_grad()
}

/// Gradients of weights, `[values]` each, by their names; one name may come more than once.
pub type Piece<B> = Vec<(String, Tensor<B, 1>)>;

impl<B: AutodiffBackend> Tape<B> {
    /// The gradients of a loss, a piece of its graph at a time, the last piece of the forward pass first. There is one
    /// piece more than there are cuts.
    pub fn pieces(self, loss: Tensor<B, 1>) -> impl ExactSizeIterator<Item = Piece<B::InnerBackend>> {
        let (mut cuts, mut matrices, mut vectors) =
            (self.cuts.into_inner(), self.matrices.into_inner(), self.vectors.into_inner());
        // The two networks of a step end in one piece, so that the first piece finds the gradients at two cuts.
        let mut at_cuts: Vec<Option<Tensor<B::InnerBackend, 2>>> = vec![None; cuts.len()];
        let mut next = Some(loss);
        (0..cuts.len() + 1).map(move |_| {
            let found = next.take().expect("each piece leaves the next one").backward();
            for (gradient, cut) in at_cuts.iter_mut().zip(&cuts) {
                *gradient = gradient.take().or_else(|| cut.above.grad(&found));
            }
            next = cuts.pop().zip(at_cuts.pop()).map(|(cut, gradient)| {
                let gradient = gradient.expect("the loss depends on every layer");
                (cut.below * Tensor::from_inner(gradient)).sum()
            });
            let mut piece = Piece::new();
            take(&mut matrices, &found, |name, gradient| piece.push((name, gradient.flatten(0, 1))));
            take(&mut vectors, &found, |name, gradient| piece.push((name, gradient)));
            piece
        })
    }
}

/// Takes those out of what was read of which there are gradients.
fn take<B: AutodiffBackend, const D: usize>(
    read: &mut Vec<(String, Tensor<B, D>)>,
    found: &B::Gradients,
    mut each: impl FnMut(String, Tensor<B::InnerBackend, D>),
) {
    read.retain_mut(|(name, leaf)| match leaf.grad(found) {
        Some(gradient) => {
            each(std::mem::take(name), gradient);
            false
        }
        None => true,
    });
}
