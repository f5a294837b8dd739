//! What is in a model, and what this machine can run it with.

use anyhow::Result;
use clap::Args;
use electret::kernels;
use electret::quantize::self_test;
use electret::weights::format::{Layer, Linear};
use electret::{Model, text::SpecialTokens};
use serde_json::{Value, json};

use super::{ModelFile, Output};

/// Config, heads, bytes by part, provenance, self-test.
///
/// Example: electret inspect --model small.electret
#[derive(Args)]
pub struct Inspect {
    #[command(flatten)]
    model: ModelFile,
    #[command(flatten)]
    output: Output,
}

/// The kernel sets of this machine, which is chosen, and whether they agree bit for bit.
///
/// Sentences are those that the model carries with their results; shapes and values of the primitives are
/// random and extreme ones.
///
/// Example: electret kernels
#[derive(Args)]
pub struct Kernels {
    #[command(flatten)]
    model: ModelFile,
    /// Shapes on which every primitive is compared with the scalar one.
    #[arg(long, default_value_t = 10_000)]
    cases: usize,
    #[command(flatten)]
    output: Output,
}

fn linear_bytes(linear: &Linear) -> usize {
    size_of_val(linear.tiles.as_slice()) + size_of_val(linear.channels.as_slice())
}

fn layer_bytes(layer: &Layer) -> usize {
    let Layer { query, key, value, attention_output, intermediate, output, .. } = layer;
    [query, key, value, attention_output, intermediate, output].into_iter().map(linear_bytes).sum()
}

impl Inspect {
    pub fn run(&self) -> Result<()> {
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let (root, config) = (model.root(), model.config());
        let (checks, agree) = self_test(model, kernels::best())?;
        let embeddings = &root.embeddings;
        let small = (embeddings.positions.len() + embeddings.token_types.len()) * 4;
        let embedding_bytes = linear_bytes(&embeddings.words) + small;
        let layers: usize = root.layers.iter().map(layer_bytes).sum();
        let vocabulary = &root.vocabulary;
        let vocabulary_bytes = vocabulary.labels.len() * 2
            + size_of_val(vocabulary.blocks.as_slice())
            + size_of_val(vocabulary.ids.as_slice());
        let heads: Vec<Value> = root
            .heads
            .iter()
            .map(|head| {
                let labels: Vec<&str> = head.labels.iter().map(|label| label.as_str()).collect();
                json!({"kind": head.kind.name(), "labels": labels})
            })
            .collect();
        let (int4, all) =
            (model.linears().filter(|linear| linear.is_int4()).count(), model.linears().count());
        let special = vocabulary.special.map(|id| id.to_native());
        let special: Vec<String> =
            SpecialTokens::NAMES.iter().zip(special).map(|(name, id)| format!("{name} {id}")).collect();
        let provenance = &root.provenance;
        let all = json!({
            "name": provenance.name.as_str(),
            "source": provenance.source.as_str(),
            "licence": provenance.licence.as_str(),
            "tool": provenance.tool.as_str(),
            "quantisation": provenance.quantisation.as_str(),
            "config": {
                "vocab_size": config.vocab_size,
                "embedding_size": config.embedding_size,
                "hidden_size": config.hidden_size,
                "num_hidden_layers": config.num_hidden_layers,
                "num_attention_heads": config.num_attention_heads,
                "intermediate_size": config.intermediate_size,
                "max_position_embeddings": config.max_position_embeddings,
                "type_vocab_size": config.type_vocab_size,
            },
            "uncased": vocabulary.uncased,
            "special": special,
            "heads": heads,
            "bytes": {
                "file": model.bytes(),
                "embeddings": embedding_bytes,
                "layers": layers,
                "vocabulary": vocabulary_bytes,
            },
            "int4": format!("{int4} of {all} weight matrices"),
            "self_test": {"sentences": checks, "agree": agree},
        });
        if self.output.json {
            say!("{all}");
        } else {
            print_tree(&all, 0)?;
        }
        anyhow::ensure!(
            agree,
            "the self-test failed: this build computes other bits than the one that wrote the file"
        );
        Ok(())
    }
}

/// One field a line, nested ones indented.
fn print_tree(value: &Value, depth: usize) -> Result<()> {
    let Some(fields) = value.as_object() else { return Ok(()) };
    for (name, value) in fields {
        let indent = depth * 2;
        match value {
            Value::Object(_) => {
                say!("{:indent$}{name}", "");
                print_tree(value, depth + 1)?;
            }
            Value::String(text) => say!("{:indent$}{name}: {text}", ""),
            other => say!("{:indent$}{name}: {other}", ""),
        }
    }
    Ok(())
}

impl Kernels {
    pub fn run(&self) -> Result<()> {
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let chosen = kernels::best();
        let specification = kernels::available().next().unwrap_or(chosen);
        let mut rows = Vec::new();
        let mut all_agree = true;
        for set in kernels::available() {
            let (sentences, same) = self_test(model, set)?;
            let difference = kernels::first_difference(set, specification, self.cases);
            all_agree &= same && difference.is_none();
            let is_chosen = core::ptr::eq(set, chosen);
            rows.push(json!({"kernels": set.name, "chosen": is_chosen, "sentences": sentences,
                             "sentences_agree": same, "cases": self.cases, "first_difference": difference}));
            if !self.output.json {
                let mark = if is_chosen { "*" } else { " " };
                let of_sentences = if same { "same bits" } else { "OTHER BITS" };
                let of_primitives = match difference {
                    None => format!("same bits on {} shapes of every primitive", self.cases),
                    Some(what) => format!("OTHER BITS in {what}"),
                };
                say!("{mark} {:12} {of_sentences} on {sentences} sentences, {of_primitives}", set.name);
            }
        }
        if self.output.json {
            say!("{}", json!({ "kernels": rows }));
        }
        anyhow::ensure!(all_agree, "not all kernel sets agree");
        Ok(())
    }
}
