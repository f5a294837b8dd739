//! The backward pass through one layer, from its saved input alone: what the forward pass computed is
//! computed again, block by block of rows, by the same code.
//!
//! In comes dL/d(layer output) `[length, hidden]`, out goes dL/d(layer input) in the same place, and the
//! gradients of the layer's trained tensors are added up. Two passes:
//!
//! 1. Rows are independent from the output down to the heads' contexts: LayerNorm, feed-forward, LayerNorm,
//!    attention output. That leaves d(context) in the residual stream's place, and d(x + attention).
//! 2. Heads are independent from the contexts down to queries, keys and values; one at a time.

use core::ops::Range;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::attention::Attention;
use super::{
    AdaptedLayer, Block, Columns, DenseGradient, KeyValues, Transposing, Turning, Workspace, add_and_norm,
};
use crate::kernels::{Accumulate, KernelSet, LayerNorm, RowScale};
use crate::weights::strategy::{Layout, NormPart, Part};

/// What a backward pass needs beside the forward pass's arena.
pub(crate) struct BackwardSpace<'a> {
    /// `[tokens, hidden]`: the gradient that goes down.
    pub gradient: &'a mut [f32],
    /// Quantised queries of the layer at work, `[heads][tokens][head_size/8 · 8]`.
    pub queries: &'a mut [i8],
    /// Their scales, `[heads][tokens]`.
    pub query_scales: &'a mut [RowScale],
    /// What a product with transposed weights works in.
    pub turning: Turning<'a>,
}

/// The gradients of all trained tensors, where [`Layout`] puts them.
pub(crate) struct Gradients<'g> {
    pub layout: &'g Layout,
    pub values: &'g mut [f32],
}

impl Gradients<'_> {
    fn dense(&mut self, layer: usize, part: Part) -> DenseGradient<'_> {
        let (a, b) = self.layout.low_rank(layer, part).unwrap_or_default();
        let bias = self.layout.bias(layer, part).unwrap_or_default();
        match self.values.get_disjoint_mut([bias, a, b]) {
            Ok([bias, a, b]) => DenseGradient { bias, a, b },
            Err(_) => DenseGradient::default(),
        }
    }

    /// Of what the words learned, and of its directions; `None` where they learn nothing.
    pub fn words(&mut self) -> Option<(&mut [f32], &mut [f32])> {
        let (pieces, directions) = self.layout.words()?;
        let [pieces, directions] = self.values.get_disjoint_mut([pieces, directions]).ok()?;
        Some((pieces, directions))
    }

    fn norm(&mut self, layer: usize, norm: NormPart) -> (&mut [f32], &mut [f32]) {
        let (weight, bias) = self.layout.norm(layer, norm).unwrap_or_default();
        match self.values.get_disjoint_mut([weight, bias]) {
            Ok([weight, bias]) => (weight, bias),
            Err(_) => Default::default(),
        }
    }

    /// Whether anything of a dense layer is trained.
    fn trains(&self, layer: usize, part: Part) -> bool {
        self.layout.low_rank(layer, part).is_some() || self.layout.bias(layer, part).is_some()
    }
}

/// One layer's backward pass.
pub(crate) struct Backward<'a> {
    pub layer: AdaptedLayer<'a>,
    pub kernels: &'a KernelSet,
    pub length: usize,
    /// The layer's input `[length, hidden]`, f16.
    pub input: &'a [u16],
    /// Whether a layer below wants d(layer input).
    pub goes_on: bool,
}

/// What a pass works in.
struct Space<'w, 'a> {
    cache: &'w mut KeyValues<'a>,
    block: &'w mut Block<'a>,
    /// d(context) `[tokens, hidden]` between the passes, then d(query).
    contexts: &'w mut [f32],
    backward: &'w mut BackwardSpace<'a>,
}

impl Backward<'_> {
    /// Runs both passes over `backward.gradient`.
    pub fn run<'a>(
        &self,
        workspace: &mut Workspace<'a>,
        backward: &mut BackwardSpace<'a>,
        gradients: &mut Gradients<'_>,
    ) {
        let Workspace { residual, cache, block, .. } = workspace;
        // Two rows of int8 stand for one of gradients.
        let at_once = (block.scales.len() / 2).max(1);
        let attention = Attention::new(self.layer, self.kernels, self.length);
        let hidden = self.layer.config.hidden_size;
        // A text's class hangs on its first token alone: behind the last row with a gradient there is nothing to do.
        let gradient = backward.gradient.get(..self.length * hidden).unwrap_or_default();
        let active = gradient.iter().rposition(|&d| d != 0.0).map_or(0, |last| last / hidden + 1);
        let mut space = Space { cache, block, contexts: residual, backward };
        for first in (0..self.length).step_by(at_once) {
            let n = at_once.min(self.length - first);
            let Block { rows, scales, wide, narrow, strip } = space.block;
            let (x, wide) = wide.split_at_mut_checked(n * hidden).unwrap_or_default();
            self.input_rows(first, x);
            let mut block = Block { rows, scales, wide, narrow, strip };
            attention.keys_and_values(space.cache, &mut block, first, x);
        }
        for first in (0..active).step_by(at_once) {
            self.rows(&attention, first..active.min(first + at_once), &mut space, gradients);
        }
        for head in 0..self.layer.config.num_attention_heads {
            self.head(&attention, head, active, at_once, &mut space, gradients);
        }
        self.queries(active, at_once, &mut space, gradients);
    }

    /// The layer's input from row `first` on, as many rows as `x` `[n, hidden]` has.
    fn input_rows(&self, first: usize, x: &mut [f32]) {
        let input = self.input.get(first * self.layer.config.hidden_size..).unwrap_or_default();
        let input = input.get(..x.len()).unwrap_or_default();
        input.reinterpret_cast::<f16>().convert_to_f32_slice(x);
    }

    /// The first pass over a block of rows: forward from the input to the layer's output, and back to the
    /// contexts.
    fn rows(
        &self,
        attention: &Attention<'_>,
        rows: Range<usize>,
        space: &mut Space<'_, '_>,
        gradients: &mut Gradients<'_>,
    ) {
        let Self { layer, kernels, .. } = self;
        let (config, index, n) = (layer.config, layer.index, rows.len());
        let wide_rows = config.intermediate_size.max(self.length);
        let [attention_output, intermediate, output] =
            [Part::AttentionOutput, Part::Intermediate, Part::Output].map(|part| layer.dense(part));
        let norms = [NormPart::Attention, NormPart::Output].map(|part| layer.norm(part));

        let (mut scratch, wide, narrow) = space.block.split();
        let mut carver = Parts(wide);
        let [context, sum1, x1, sum2] = core::array::from_fn(|_| carver.take(n * config.hidden_size));
        let [h, g] = core::array::from_fn(|_| carver.take(n * wide_rows));

        self.input_rows(rows.start, sum1);
        layer.dense(Part::Query).forward(kernels, &mut scratch, sum1, sum2);
        let scores = h.get_mut(..n * self.length).unwrap_or_default();
        attention.contexts(space.cache, &mut scratch, narrow, sum2, scores, context);
        self.save_queries(attention, rows.start, sum2, space.backward);
        attention_output.forward(kernels, &mut scratch, context, x1);
        layer.drop(NormPart::Attention, rows.start, x1);
        kernels.add(x1, sum1);
        x1.copy_from_slice(sum1);
        add_and_norm(kernels, &norms[0], x1, &[]);
        let h = h.get_mut(..n * config.intermediate_size).unwrap_or_default();
        let g = g.get_mut(..n * config.intermediate_size).unwrap_or_default();
        intermediate.forward(kernels, &mut scratch, x1, h);
        g.copy_from_slice(h);
        (kernels.gelu)(g);
        output.forward(kernels, &mut scratch, g, sum2);
        layer.drop(NormPart::Output, rows.start, sum2);
        kernels.add(x1, sum2);

        let here = rows.start * config.hidden_size..rows.end * config.hidden_size;
        let d = space.backward.gradient.get_mut(here.clone()).unwrap_or_default();
        let mut turning = space.backward.turning.with(scratch);
        norm_backward(kernels, &norms[1], d, sum2, gradients.norm(index, NormPart::Output));
        let dy = Columns::all(output.linear, layer.dropped(NormPart::Output, rows.start, d, sum2));
        output.gradients(kernels, &mut gradients.dense(index, Part::Output), g, dy);
        g.fill(0.0);
        output.backward(kernels, &mut turning, dy, g);
        (kernels.gelu_backward)(g, h);
        let dy = Columns::all(intermediate.linear, g);
        intermediate.gradients(kernels, &mut gradients.dense(index, Part::Intermediate), x1, dy);
        intermediate.backward(kernels, &mut turning, dy, d);
        norm_backward(kernels, &norms[0], d, sum1, gradients.norm(index, NormPart::Attention));
        let dy = layer.dropped(NormPart::Attention, rows.start, d, sum1);
        let dy = Columns::all(attention_output.linear, dy);
        attention_output.gradients(kernels, &mut gradients.dense(index, Part::AttentionOutput), context, dy);
        let context_gradient = space.contexts.get_mut(here).unwrap_or_default();
        context_gradient.fill(0.0);
        attention_output.backward(kernels, &mut turning, dy, context_gradient);
    }

    /// Keeps a block's queries as the forward pass saw them.
    fn save_queries(
        &self,
        attention: &Attention<'_>,
        first: usize,
        queries: &[f32],
        backward: &mut BackwardSpace<'_>,
    ) {
        let (hidden, size) = (self.layer.config.hidden_size, self.layer.config.head_size());
        let depth = size.next_multiple_of(8);
        for (token, query) in (first..).zip(queries.chunks_exact(hidden)) {
            for (head, query) in query.chunks_exact(size).enumerate() {
                let place = head * self.length + token;
                let row = backward.queries.get_mut(place * depth..(place + 1) * depth).unwrap_or_default();
                let scale = attention.quantize_query(query, row);
                if let Some(place) = backward.query_scales.get_mut(place) {
                    *place = scale;
                }
            }
        }
    }

    /// The second pass over one head: d(context) becomes d(query) in its place, and keys and values are
    /// followed down.
    ///
    /// With S = q·kᵀ/√d, P = softmax(S), context = P·v: dv = Pᵀ·dc, dP = dc·vᵀ, dS = P∘(dP − Σ P∘dP),
    /// dq = dS·k/√d, dk = dSᵀ·q/√d.
    fn head(
        &self,
        attention: &Attention<'_>,
        head: usize,
        active: usize,
        at_once: usize,
        space: &mut Space<'_, '_>,
        gradients: &mut Gradients<'_>,
    ) {
        let Self { kernels, length, .. } = *self;
        let (hidden, size) = (self.layer.config.hidden_size, self.layer.config.head_size());
        let depth = size.next_multiple_of(8);
        let (mut scratch, wide, input) = space.block.split();
        let mut carver = Parts(wide);
        let [keys, values, dkeys, dvalues] = core::array::from_fn(|_| carver.take(length * size));
        let [probabilities, slopes] = core::array::from_fn(|_| carver.take(at_once * length));
        let rows = carver.take(at_once * size);
        attention.dequantize(space.cache, head, keys, values);
        dkeys.fill(0.0);
        dvalues.fill(0.0);
        let BackwardSpace { queries, query_scales, .. } = &*space.backward;
        for first in (0..active).step_by(at_once) {
            let n = at_once.min(active - first);
            let place = head * length + first;
            let queries = queries.get(place * depth..(place + n) * depth).unwrap_or_default();
            let scales = query_scales.get(place..place + n).unwrap_or_default();
            let p = probabilities.get_mut(..n * length).unwrap_or_default();
            attention.scores(space.cache, head, queries, scales, p);
            p.chunks_exact_mut(length).for_each(kernels.softmax);

            // d(context) of this head: n rows of `size`, `hidden` apart.
            let dcontext = space.contexts.get_mut(first * hidden + head * size..).unwrap_or_default();
            (kernels.accumulate)(Accumulate {
                rows: length,
                depth: n,
                width: size,
                factors: p,
                factor_steps: [1, length],
                x: dcontext,
                x_step: hidden,
                out: dvalues,
                out_step: size,
            });
            let slopes = slopes.get_mut(..n * length).unwrap_or_default();
            slopes.fill(0.0);
            (kernels.accumulate)(Accumulate {
                rows: n,
                depth: size,
                width: length,
                factors: dcontext,
                factor_steps: [hidden, 1],
                x: values,
                x_step: length,
                out: slopes,
                out_step: length,
            });
            for (d, p) in slopes.chunks_exact_mut(length).zip(p.chunks_exact(length)) {
                (kernels.softmax_backward)(d, p);
            }
            let queries = queries.chunks_exact(depth).zip(scales);
            for ((query, scale), row) in queries.zip(rows.chunks_exact_mut(size)) {
                for (x, &q) in row.iter_mut().zip(query) {
                    *x = (i32::from(q ^ kernels.flip as i8) - scale.zero_point) as f32 * scale.scale;
                }
            }
            (kernels.accumulate)(Accumulate {
                rows: length,
                depth: n,
                width: size,
                factors: slopes,
                factor_steps: [1, length],
                x: rows,
                x_step: size,
                out: dkeys,
                out_step: size,
            });
            for row in dcontext.chunks_mut(hidden).take(n) {
                row.get_mut(..size).unwrap_or_default().fill(0.0);
            }
            for slope in slopes.iter_mut() {
                *slope *= attention.attention_scale();
            }
            (kernels.accumulate)(Accumulate {
                rows: n,
                depth: length,
                width: size,
                factors: slopes,
                factor_steps: [length, 1],
                x: keys,
                x_step: size,
                out: dcontext,
                out_step: hidden,
            });
        }
        for (part, values) in [(Part::Key, &*dkeys), (Part::Value, &*dvalues)] {
            if !self.goes_on && !gradients.trains(self.layer.index, part) {
                continue;
            }
            for first in (0..length).step_by(at_once) {
                let n = at_once.min(length - first);
                let values = values.get(first * size..(first + n) * size).unwrap_or_default();
                let dy = Columns { first: head * size, width: size, values };
                let mut turning = space.backward.turning.with(scratch.again());
                let down = Down { part, first, turning: &mut turning, input: &mut *input };
                self.down(down, dy, space.backward.gradient, gradients);
            }
        }
    }

    /// d(query) of all heads, followed down.
    fn queries(
        &self,
        active: usize,
        at_once: usize,
        space: &mut Space<'_, '_>,
        gradients: &mut Gradients<'_>,
    ) {
        let hidden = self.layer.config.hidden_size;
        if !self.goes_on && !gradients.trains(self.layer.index, Part::Query) {
            return;
        }
        for first in (0..active).step_by(at_once) {
            let n = at_once.min(active - first);
            let values = space.contexts.get(first * hidden..(first + n) * hidden).unwrap_or_default();
            let (scratch, _, input) = space.block.split();
            let mut turning = space.backward.turning.with(scratch);
            let down = Down { part: Part::Query, first, turning: &mut turning, input };
            self.down(down, Columns { first: 0, width: hidden, values }, space.backward.gradient, gradients);
        }
    }

    /// From a block of gradients at the outputs of query, key or value to their tensors' and the layer's
    /// input's.
    fn down(&self, down: Down<'_, '_>, dy: Columns<'_>, gradient: &mut [f32], gradients: &mut Gradients<'_>) {
        let hidden = self.layer.config.hidden_size;
        let Down { part, first, turning, input } = down;
        let n = dy.values.len() / dy.width;
        let dense = self.layer.dense(part);
        if gradients.trains(self.layer.index, part) {
            let x = input.get_mut(..n * hidden).unwrap_or_default();
            self.input_rows(first, x);
            dense.gradients(self.kernels, &mut gradients.dense(self.layer.index, part), x, dy);
        }
        if self.goes_on {
            let dx = gradient.get_mut(first * hidden..(first + n) * hidden).unwrap_or_default();
            dense.backward(self.kernels, turning, dy, dx);
        }
    }
}

/// A block on its way down.
struct Down<'d, 's> {
    part: Part,
    /// Its first row.
    first: usize,
    turning: &'d mut Transposing<'s>,
    /// Room for the layer's input.
    input: &'d mut [f32],
}

/// [`KernelSet::norm_backward`] over a block of rows.
fn norm_backward(
    kernels: &KernelSet,
    norm: &LayerNorm<'_>,
    d: &mut [f32],
    z: &mut [f32],
    (dweight, dbias): (&mut [f32], &mut [f32]),
) {
    let width = norm.weight.len();
    for (d, z) in d.chunks_exact_mut(width).zip(z.chunks_exact_mut(width)) {
        (kernels.norm_backward)(d, z, norm, dweight, dbias);
    }
}

/// Parts of a scratch buffer, one after another; an empty one where there is no room.
struct Parts<'w>(&'w mut [f32]);

impl<'w> Parts<'w> {
    fn take(&mut self, count: usize) -> &'w mut [f32] {
        let whole = core::mem::take(&mut self.0);
        let (part, rest) = whole.split_at_mut_checked(count).unwrap_or_default();
        self.0 = rest;
        part
    }
}
