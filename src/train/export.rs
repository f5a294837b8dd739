//! A run's newest weights as Hugging Face folders that `transformers` loads.

use std::path::Path;

use anyhow::Result;

use super::checkpoint::newest_weights;
use super::corpus::Corpus;
use super::objective::Kind;
use super::trainer::Run;
use crate::ElectraConfig;
use crate::import::{Checkpoint, HeadTensors, read_vocabulary};

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
    let head = match which {
        Which::Discriminator => HeadTensors::discriminator(config.hidden_size),
        Which::Generator => HeadTensors::generator(config.embedding_size),
    };
    let (pieces, special) = read_vocabulary(&corpus_folder.join("vocab.txt"))?;
    let checkpoint = Checkpoint {
        name: String::new(),
        config,
        heads: vec![head],
        pieces,
        special,
        uncased: true,
        tensors,
    };
    checkpoint.write(out)?;
    Ok(step)
}
