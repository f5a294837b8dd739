//! A run's newest weights as Hugging Face folders that `transformers` loads.

use std::path::Path;

use anyhow::{Result, bail};

use super::checkpoint::newest_weights;
use super::corpus::{Corpus, Manifest};
use super::model::WORD_DELTA;
use super::objective::Kind;
use super::run::{Run, Sharing};
use crate::ElectraConfig;
use crate::import::{Checkpoint, HeadTensors, POSITIONS, Tensors, WORDS, read_vocabulary};

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
///
/// # Errors
/// A network that the run's objective does not train; a corpus with another vocabulary than the run's.
pub fn export(folder: &Path, corpus_folder: &Path, which: Which, out: &Path) -> Result<usize> {
    let corpus = Corpus::open(corpus_folder)?;
    let run = Run::open(folder)?;
    Run::shares_vocabulary(folder, &corpus.manifest)?;
    let shapes = run.shapes(&corpus)?;
    let (step, tensors) = newest_weights(folder)?;
    let kind = run.objective.kind;
    // Where the network's encoder, its tables and its head lie among the run's weights.
    let (shape, encoder, tables, head) = match which {
        Which::Discriminator if kind.detects() => {
            (shapes.discriminator, "electra", "electra", "discriminator_predictions")
        }
        Which::Discriminator => bail!(
            "{}: objective {kind:?} trains no discriminator; --generator exports the network that predicts words",
            folder.display()
        ),
        Which::Generator if kind == Kind::Mlm => (shapes.discriminator, "electra", "electra", "generator"),
        Which::Generator if !kind.detects() => (shapes.discriminator, "electra", "electra", "electra"),
        Which::Generator => match run.generator.sharing {
            Sharing::All => (shapes.generator, "electra", "electra", "generator"),
            Sharing::None => (shapes.generator, "generator", "generator", "generator"),
            Sharing::Embeddings | Sharing::Gdes => (shapes.generator, "generator", "electra", "generator"),
        },
    };
    // Positions beyond the longest example that the run had were never trained: they are left out.
    let trained = Manifest::read(&folder.join("corpus.json"))?.sequence;
    let config = ElectraConfig { max_position_embeddings: trained, ..shape };
    let tensors = if encoder == "electra" { with_delta(tensors)? } else { tensors };
    let tensors = tensors.renamed(|name| {
        let renamed = |rest: &str| Some(format!("electra.{rest}"));
        if let Some(rest) = name.strip_prefix(tables).and_then(|rest| rest.strip_prefix(".embeddings.")) {
            renamed(&format!("embeddings.{rest}"))
        } else if let Some(rest) = name.strip_prefix(encoder).and_then(|rest| rest.strip_prefix('.')) {
            (!rest.starts_with("embeddings.")).then(|| renamed(rest)).flatten()
        } else {
            let rest = name.strip_prefix(head)?;
            match which {
                Which::Discriminator => Some(name.to_owned()),
                Which::Generator => rest.starts_with('_').then(|| format!("generator{rest}")),
            }
        }
    });
    let tensors = tensors.with_first_rows(POSITIONS, config.max_position_embeddings);
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

/// The word embeddings with what the discriminator learnt on top of them, if that was kept apart.
pub(super) fn with_delta(mut tensors: Tensors) -> Result<Tensors> {
    if !tensors.contains(WORD_DELTA) {
        return Ok(tensors);
    }
    let sum = tensors.array(WORDS)?.to_owned() + tensors.array(WORD_DELTA)?;
    tensors.insert(WORDS, sum.shape(), sum.iter().copied().collect());
    Ok(tensors)
}
