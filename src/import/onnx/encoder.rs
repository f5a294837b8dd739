//! From the embeddings upwards: which part of the graph is which tensor of ELECTRA.

use ndarray::{Array2, Ix2};

use super::graph::{Graph, dequantized};
use super::parts::{Attention, Linear, Norm, attentions, base, gelu, linears, norms};
use crate::ElectraConfig;
use crate::import::{HeadTensors, Tensors};
use crate::weights::HeadKind;

/// What a graph holds.
pub struct Read {
    pub config: ElectraConfig,
    pub tensors: Tensors,
    pub heads: Vec<HeadTensors>,
    pub inputs: Inputs,
}

/// Which of the graph's inputs are which; all others are a mask of ones.
pub struct Inputs {
    pub ids: String,
    pub types: Option<String>,
}

/// Reads the whole graph; `labels` names the outputs of a classifier or tagger.
pub fn read(graph: &Graph, labels: Option<Vec<String>>) -> Result<Read, String> {
    let fused = graph
        .nodes
        .iter()
        .find(|node| !matches!(node.domain.as_str(), "" | "ai.onnx") && node.op_type != "Gelu");
    if let Some(node) = fused {
        return Err(format!(
            "{}.{}: fused for one runtime; export the graph without that",
            node.domain, node.op_type
        ));
    }
    let linears = linears(graph)?;
    let norms = norms(graph);
    let attentions = attentions(graph, &linears);
    if norms.is_empty() || attentions.is_empty() {
        return Err(format!(
            "{} LayerNorms and {} attentions over linear layers: no transformer encoder that can be read",
            norms.len(),
            attentions.len()
        ));
    }
    let mut reader = Reader { graph, linears, norms, attentions, tensors: Tensors::default() };
    let embedded = reader.embeddings()?;
    let (config, x) = reader.layers(&embedded)?;
    let heads = reader.heads(&config, &x, &embedded.words, labels)?;
    Ok(Read { config, tensors: reader.tensors, heads, inputs: embedded.inputs })
}

struct Reader<'g> {
    graph: &'g Graph,
    linears: Vec<Linear>,
    norms: Vec<Norm>,
    attentions: Vec<Attention>,
    tensors: Tensors,
}

/// The embeddings, and where their sum leaves LayerNorm.
struct Embedded {
    inputs: Inputs,
    output: String,
    epsilon: f32,
    width: usize,
    words: Array2<f32>,
    positions: usize,
    types: usize,
}

impl Reader<'_> {
    /// word + position + segment → LayerNorm: the norm whose input is a sum of looked-up rows.
    fn embeddings(&mut self) -> Result<Embedded, String> {
        let graph = self.graph;
        let mut found = None;
        for norm in &self.norms {
            let terms = terms(graph, &norm.input);
            let rows = terms.iter().filter_map(|term| lookup(graph, term).transpose());
            let rows = rows.collect::<Result<Vec<Rows>, String>>()?;
            if rows.iter().any(|rows| rows.fed_by.is_some()) {
                found = Some((norm, rows, terms.len()));
                break;
            }
        }
        let Some((norm, mut rows, terms)) = found else {
            return Err("no LayerNorm over looked-up embeddings: this is no BERT or ELECTRA".to_owned());
        };
        if rows.len() != terms || rows.len() != 3 {
            let message = "embeddings: a sum of words, positions and segments is needed, this one has";
            return Err(format!("{message} {} tables in {terms} terms", rows.len()));
        }
        // Ids and segments are fed in; of the two tables the vocabulary is the larger one, and so are the positions of
        // what is left.
        rows.sort_by_key(|rows| (rows.fed_by.is_none(), std::cmp::Reverse(rows.table.nrows())));
        let mut rows = rows.into_iter();
        let words = rows.next().ok_or("embeddings: none")?;
        let mut rest: Vec<Rows> = rows.collect();
        rest.sort_by_key(|rows| (rows.fed_by.is_some(), std::cmp::Reverse(rows.table.nrows())));
        let [positions, types] = &rest[..] else {
            return Err("embeddings: two more tables are needed".to_owned());
        };
        let ids = words.fed_by.clone().ok_or("embeddings: words are looked up by no input")?;
        let embedded = Embedded {
            inputs: Inputs { ids, types: types.fed_by.clone() },
            output: norm.output.clone(),
            epsilon: norm.epsilon,
            width: words.table.ncols(),
            positions: positions.table.nrows(),
            types: types.table.nrows(),
            words: words.table,
        };
        for (name, table) in
            [("word", &embedded.words), ("position", &positions.table), ("token_type", &types.table)]
        {
            put(&mut self.tensors, &format!("electra.embeddings.{name}_embeddings.weight"), table);
        }
        put_norm(&mut self.tensors, graph, "electra.embeddings.LayerNorm", norm)?;
        Ok(embedded)
    }

    /// The projection, if there is one, and layer upon layer; what comes out of the last.
    fn layers(&mut self, embedded: &Embedded) -> Result<(ElectraConfig, String), String> {
        let graph = self.graph;
        let mut x = embedded.output.clone();
        if let [projection] = self.from(&x)[..]
            && gelu(graph, &self.linears[projection].output).is_none()
        {
            x.clone_from(&self.linears[projection].output);
            self.put_linear("electra.embeddings_project", projection)?;
        }
        let (mut layer, mut head_size, mut hidden, mut inner) = (0, 0, 0, 0);
        while let Some(attention) =
            self.attentions.iter().find(|attention| self.linears[attention.query].input == x)
        {
            let Attention { query, key, value, .. } = *attention;
            let (context, size) = (attention.output.clone(), attention.head_size);
            if [key, value].iter().any(|&part| self.linears[part].input != x) {
                return Err(format!(
                    "layer {layer}: keys or values of something else, which is no encoder's attention"
                ));
            }
            let name = format!("electra.encoder.layer.{layer}");
            let of = |part: &str| format!("layer {layer}: no {part} after its attention");
            for (part, index) in [("query", query), ("key", key), ("value", value)] {
                hidden = self.put_linear(&format!("{name}.attention.self.{part}"), index)?;
            }
            let output = self.only(&context).ok_or_else(|| of("one output layer"))?;
            self.put_linear(&format!("{name}.attention.output.dense"), output)?;
            x = self
                .residual(&format!("{name}.attention.output.LayerNorm"), &x, output)
                .ok_or_else(|| of("LayerNorm"))??;

            let intermediate = self.only(&x).ok_or_else(|| of("one feed-forward layer"))?;
            inner = self.put_linear(&format!("{name}.intermediate.dense"), intermediate)?;
            let activated = gelu(graph, &self.linears[intermediate].output);
            let activated = activated.ok_or_else(|| {
                format!(
                    "layer {layer}: the feed-forward layer is not activated by GELU in the exact form (erf)"
                )
            })?;
            let output = self.only(activated).ok_or_else(|| of("one layer after GELU"))?;
            self.put_linear(&format!("{name}.output.dense"), output)?;
            x = self
                .residual(&format!("{name}.output.LayerNorm"), &x, output)
                .ok_or_else(|| of("last LayerNorm"))??;
            head_size = size;
            layer += 1;
        }
        if layer == 0 || layer != self.attentions.len() {
            let all = self.attentions.len();
            return Err(format!(
                "{layer} of {all} attentions stand above the embeddings in a row, as an encoder's do"
            ));
        }
        if head_size == 0 || hidden % head_size != 0 {
            return Err(format!("heads of {head_size} values do not divide the hidden size {hidden}"));
        }
        let config = ElectraConfig {
            vocab_size: embedded.words.nrows(),
            embedding_size: embedded.width,
            hidden_size: hidden,
            num_hidden_layers: layer,
            num_attention_heads: hidden / head_size,
            intermediate_size: inner,
            max_position_embeddings: embedded.positions,
            type_vocab_size: embedded.types,
            layer_norm_eps: embedded.epsilon,
        };
        Ok((config, x))
    }

    /// Whatever stands on the last hidden states `x`.
    fn heads(
        &mut self,
        config: &ElectraConfig,
        x: &str,
        words: &Array2<f32>,
        labels: Option<Vec<String>>,
    ) -> Result<Vec<HeadTensors>, String> {
        let graph = self.graph;
        let labels = |count: usize| {
            let numbered = || (0..count).map(|id| format!("LABEL_{id}")).collect();
            labels.clone().filter(|labels| labels.len() == count).unwrap_or_else(numbered)
        };
        let mut heads = Vec::new();
        for first in self.from(x) {
            let Some(activated) = gelu(graph, &self.linears[first].output) else {
                let count = self.linears[first].weight(graph)?.nrows();
                let split = count == 2 && graph.outputs.len() == 2;
                let (kind, name, labels) = match split {
                    true => (HeadKind::Answer, "qa_outputs", vec!["start".to_owned(), "end".to_owned()]),
                    false => (HeadKind::Tag, "classifier", labels(count)),
                };
                self.put_linear(name, first)?;
                heads.push(HeadTensors { kind, dense: None, norm: None, output: Some(name), labels });
                continue;
            };
            if let Some(output) = self.only(activated) {
                if self.put_linear("discriminator_predictions.dense_prediction", output)? != 1 {
                    return Err("a head of two layers on every token with more than one output".to_owned());
                }
                self.put_linear("discriminator_predictions.dense", first)?;
                heads.push(HeadTensors::discriminator(config.hidden_size));
            } else if let Some(norm) = self.norms.iter().find(|norm| base(graph, &norm.input) == activated) {
                put_norm(&mut self.tensors, graph, "generator_predictions.LayerNorm", norm)?;
                let output = self.only(&norm.output).ok_or("the fill-mask head ends in no linear layer")?;
                let output = &self.linears[output];
                if output.weight(graph)? != words {
                    return Err("the fill-mask head's output layer is not the word embeddings".to_owned());
                }
                let bias = output.bias(graph, words.nrows())?.to_vec();
                self.tensors.insert("generator_lm_head.bias", &[bias.len()], bias);
                self.put_linear("generator_predictions.dense", first)?;
                heads.push(HeadTensors::generator(config.embedding_size));
            }
        }
        // What is taken from the first token.
        let taken =
            graph.users(x).filter(|user| matches!(user.op_type.as_str(), "Gather" | "Slice" | "Split"));
        let taken: Vec<String> = taken.filter_map(|user| user.output.first().cloned()).collect();
        let on_first: Vec<usize> = taken.iter().flat_map(|taken| self.from(taken)).collect();
        for first in on_first {
            let output = &self.linears[first].output;
            let Some(activated) = gelu(graph, output) else {
                let tanh = graph.users(output).find(|user| user.op_type == "Tanh");
                let classified = tanh
                    .and_then(|tanh| tanh.output.first())
                    .is_some_and(|pooled| !self.from(pooled).is_empty());
                if classified {
                    return Err(
                        "the classifier stands on BERT's tanh pooler, which is no head of ELECTRA".to_owned()
                    );
                }
                continue;
            };
            let output = self.only(activated).ok_or("the classifier ends in no linear layer")?;
            self.put_linear("classifier.dense", first)?;
            let count = self.put_linear("classifier.out_proj", output)?;
            heads.push(HeadTensors {
                kind: if count == 1 { HeadKind::Regress } else { HeadKind::Classify },
                dense: Some(("classifier.dense", config.hidden_size)),
                norm: None,
                output: Some("classifier.out_proj"),
                labels: labels(count),
            });
        }
        Ok(heads)
    }

    /// The linear layers on a value.
    fn from(&self, value: &str) -> Vec<usize> {
        let value = base(self.graph, value);
        (0..self.linears.len()).filter(|&index| self.linears[index].input == value).collect()
    }

    /// The linear layer on a value, if there is just one.
    fn only(&self, value: &str) -> Option<usize> {
        if let [one] = self.from(value)[..] { Some(one) } else { None }
    }

    /// LayerNorm(x + what a linear layer gives): kept as `name`, and where it comes out.
    fn residual(&mut self, name: &str, x: &str, linear: usize) -> Option<Result<String, String>> {
        let graph = self.graph;
        let added = &self.linears[linear].output;
        let norm = self.norms.iter().find(|norm| {
            let sum = graph.maker(base(graph, &norm.input)).filter(|node| node.op_type == "Add");
            let terms = sum.map(|sum| sum.input.iter().map(|input| base(graph, input)).collect::<Vec<_>>());
            terms.is_some_and(|terms| terms.contains(&base(graph, x)) && terms.contains(&base(graph, added)))
        })?;
        Some(put_norm(&mut self.tensors, graph, name, norm).map(|()| norm.output.clone()))
    }

    /// Keeps a linear layer's weight and bias under a name: how many outputs it has.
    fn put_linear(&mut self, name: &str, index: usize) -> Result<usize, String> {
        let linear = &self.linears[index];
        let weight = linear.weight(self.graph).map_err(|error| format!("{name}: {error}"))?;
        let bias =
            linear.bias(self.graph, weight.nrows()).map_err(|error| format!("{name}: {error}"))?.to_vec();
        put(&mut self.tensors, &format!("{name}.weight"), &weight);
        self.tensors.insert(&format!("{name}.bias"), &[bias.len()], bias);
        Ok(weight.nrows())
    }
}

/// A table and what it is looked up by, if that is an input of the graph.
struct Rows {
    table: Array2<f32>,
    fed_by: Option<String>,
}

/// The terms of a sum.
fn terms<'g>(graph: &'g Graph, sum: &'g str) -> Vec<&'g str> {
    let (mut open, mut terms) = (vec![sum], Vec::new());
    while let Some(value) = open.pop() {
        match graph.maker(value).filter(|node| node.op_type == "Add") {
            Some(add) if terms.len() + open.len() < 8 => open.extend(add.input.iter().map(String::as_str)),
            _ => terms.push(value),
        }
    }
    terms
}

/// What is looked up in a table, or a constant that was looked up when the graph was made.
fn lookup(graph: &Graph, value: &str) -> Result<Option<Rows>, String> {
    if graph.is_constant(value) {
        let array = graph.constant(value)?;
        let width = array.shape().last().copied().unwrap_or_default().max(1);
        let rows = array.len() / width;
        let table = array.as_standard_layout().into_owned().into_shape_with_order((rows, width));
        return Ok(table.ok().map(|table| Rows { table, fed_by: None }));
    }
    let Some(mut node) = graph.maker(value) else { return Ok(None) };
    // A table of integers is scaled after it was looked up.
    let scaled = (node.op_type == "DequantizeLinear").then_some(node);
    if let Some(inner) = scaled.and_then(|node| node.input.first()).and_then(|input| graph.maker(input)) {
        node = inner;
    }
    let [table, index] = &node.input[..] else { return Ok(None) };
    if node.op_type != "Gather" || !graph.is_constant(table) {
        return Ok(None);
    }
    let mut rows = graph.constant(table)?;
    if let Some([scale, rest @ ..]) = scaled.map(|node| &node.input[1..]) {
        let zero = rest.first().map(|zero| graph.constant(zero)).transpose()?;
        let scaled = dequantized(rows, &graph.constant(scale)?, zero.as_ref(), 0);
        rows = scaled.ok_or_else(|| format!("{table}: scales of another shape"))?;
    }
    let Ok(rows) = rows.into_dimensionality::<Ix2>() else { return Ok(None) };
    let index = base(graph, index);
    let fed_by = graph.inputs.iter().find(|input| *input == index).cloned();
    Ok(Some(Rows { table: rows, fed_by }))
}

fn put(tensors: &mut Tensors, name: &str, matrix: &Array2<f32>) {
    tensors.insert(name, &[matrix.nrows(), matrix.ncols()], matrix.iter().copied().collect());
}

fn put_norm(tensors: &mut Tensors, graph: &Graph, name: &str, norm: &Norm) -> Result<(), String> {
    for (part, value) in [("weight", &norm.weight), ("bias", &norm.bias)] {
        let values: Vec<f32> = graph.constant(value)?.into_iter().collect();
        tensors.insert(&format!("{name}.{part}"), &[values.len()], values);
    }
    Ok(())
}
