//! A run's newest weights as Hugging Face folders that `transformers` loads.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::checkpoint::newest_weights;
use super::corpus::Corpus;
use super::objective::Kind;
use super::trainer::Run;
use crate::ElectraConfig;
use crate::import::write_atomically;

/// Which network of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// `ElectraForPreTraining`.
    Discriminator,
    /// `ElectraForMaskedLM`: the generator, or the network of a masked-language-model run.
    Generator,
}

/// Writes `config.json`, `model.safetensors`, `vocab.txt` and `tokenizer_config.json` into `out`.
/// Returns the step of the checkpoint.
pub fn export(folder: &Path, corpus_folder: &Path, which: Which, out: &Path) -> Result<usize> {
    let corpus = Corpus::open(corpus_folder)?;
    let run = Run::open(folder)?;
    let discriminator = run.config(&corpus)?;
    let (step, tensors) = newest_weights(folder)?;
    let own_encoder = which == Which::Discriminator || run.objective.kind == Kind::Mlm;
    let shape = if own_encoder { discriminator } else { discriminator.generator() };
    // Positions beyond the longest example were never trained: they are left out.
    let config = ElectraConfig { max_position_embeddings: corpus.manifest.sequence, ..shape };
    let tensors = tensors.renamed(|name| {
        let head = match which {
            Which::Discriminator => "discriminator_predictions.",
            Which::Generator => "generator_",
        };
        if name.starts_with(head) || name.starts_with("electra.embeddings.") {
            Some(name.to_owned())
        } else if own_encoder {
            name.starts_with("electra.").then(|| name.to_owned())
        } else {
            name.strip_prefix("generator.").map(|rest| format!("electra.{rest}"))
        }
    });
    let positions = "electra.embeddings.position_embeddings.weight";
    let tensors = tensors.with_first_rows(positions, config.max_position_embeddings);
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    tensors.write(&out.join("model.safetensors"))?;
    let pretty = |value| serde_json::to_vec_pretty(&value);
    write_atomically(&out.join("config.json"), &pretty(hugging_face_config(&config, which))?)?;
    let tokenizer = json!({"do_lower_case": true, "tokenizer_class": "ElectraTokenizer",
                           "model_max_length": config.max_position_embeddings});
    write_atomically(&out.join("tokenizer_config.json"), &pretty(tokenizer)?)?;
    write_atomically(&out.join("vocab.txt"), (corpus.pieces.join("\n") + "\n").as_bytes())?;
    Ok(step)
}

fn hugging_face_config(config: &ElectraConfig, which: Which) -> serde_json::Value {
    let architecture = match which {
        Which::Discriminator => "ElectraForPreTraining",
        Which::Generator => "ElectraForMaskedLM",
    };
    json!({
        "architectures": [architecture],
        "model_type": "electra",
        "vocab_size": config.vocab_size,
        "embedding_size": config.embedding_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "type_vocab_size": config.type_vocab_size,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        "tie_word_embeddings": true,
    })
}
