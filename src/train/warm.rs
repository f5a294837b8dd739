//! A run that starts from an encoder which has learnt before (`init_from`): another run's newest, or that of a Hugging
//! Face folder, such as `electret merge --folder` makes of a model.
//!
//! What comes in is the encoder `electra.…`, what a discriminator learnt on top of shared words where both runs keep
//! that apart, and its head where this run detects too. Generators begin anew. Vocabulary and shape must be the run's own.

use std::path::Path;

use anyhow::{Result, ensure};

use super::checkpoint::newest_weights;
use super::corpus::{Corpus, Manifest};
use super::export::with_delta;
use super::model::WORD_DELTA;
use super::run::{Run, Sharing};
use crate::ElectraConfig;
use crate::import::{Checkpoint, POSITIONS, Tensors, WORDS};

/// What the names of the discriminator's head begin with.
const DETECTOR: &str = "discriminator_predictions.";

impl Run {
    /// `fresh` weights of a network of that shape with the encoder in them that `from` has.
    ///
    /// # Errors
    /// What is neither a run nor a model's folder; other pieces than the corpus has; another shape; positions for fewer
    /// tokens than the corpus's examples have.
    pub(super) fn warmed(
        &self,
        mut fresh: Tensors,
        from: &Path,
        config: &ElectraConfig,
        corpus: &Corpus,
    ) -> Result<Tensors> {
        let (shape, learnt) =
            if from.join("run.toml").exists() { of_run(from, corpus)? } else { of_folder(from, corpus)? };
        same_shape(config, &shape)?;
        let apart = self.generator.sharing == Sharing::Gdes;
        let learnt = if apart { learnt } else { with_delta(learnt)? };
        let detector = |name: &str| self.objective.kind.detects() && name.starts_with(DETECTOR);
        let adopted = |name: &str| {
            name.starts_with("electra.") || learnt.contains(name) && (name == WORD_DELTA || detector(name))
        };
        let (rows, needed) = (learnt.array(POSITIONS)?.shape()[0], corpus.manifest.sequence);
        ensure!(
            rows >= needed,
            "it has positions for {rows} tokens, and the corpus examples of {needed}; build that with --seq {rows}"
        );
        let names: Vec<String> = fresh.names().filter(|name| adopted(name)).cloned().collect();
        for name in names {
            let (theirs, ours) = (learnt.array(&name)?, fresh.array(&name)?);
            let shape = ours.shape().to_owned();
            if name != POSITIONS {
                learnt.check(&name, &shape)?;
            }
            // A table of positions that is longer than theirs keeps what it has beyond them.
            let taken = theirs.len().min(ours.len());
            let values = theirs.iter().take(taken).chain(ours.iter().skip(taken)).copied().collect();
            fresh.insert(&name, &shape, values);
        }
        Ok(fresh)
    }
}

/// Shape and weights of another run, without the positions that its examples were too short for.
fn of_run(folder: &Path, corpus: &Corpus) -> Result<(ElectraConfig, Tensors)> {
    let run = Run::open(folder)?;
    Run::shares_vocabulary(folder, &corpus.manifest)?;
    let (step, tensors) = newest_weights(folder)?;
    log::info!("starting from the encoder of {} at step {step}", folder.display());
    let trained = Manifest::read(&folder.join("corpus.json"))?.sequence;
    Ok((run.config(corpus)?, tensors.with_first_rows(POSITIONS, trained)))
}

/// Shape and weights of a Hugging Face folder.
fn of_folder(folder: &Path, corpus: &Corpus) -> Result<(ElectraConfig, Tensors)> {
    ensure!(
        folder.join("config.json").exists(),
        "neither a run (run.toml) nor a model's folder (config.json)"
    );
    let Checkpoint { config, tensors, pieces, uncased, .. } = Checkpoint::open(folder)?;
    ensure!(uncased, "tokenizer_config.json: do_lower_case is false, and a corpus's text is lower-cased");
    ensure!(
        pieces == corpus.pieces,
        "vocab.txt: another vocabulary than the corpus has; build the corpus with this one (--vocab)"
    );
    log::info!("starting from the encoder of {}", folder.display());
    // Rows beyond the vocabulary, of which some folders have a few, stand for nothing.
    Ok((config, tensors.with_first_rows(WORDS, pieces.len())))
}

/// That the two encoders are one network, which tensors of one size do not tell of heads.
fn same_shape(ours: &ElectraConfig, theirs: &ElectraConfig) -> Result<()> {
    for (name, own, other) in [
        ("embedding_size", ours.embedding_size, theirs.embedding_size),
        ("hidden_size", ours.hidden_size, theirs.hidden_size),
        ("num_hidden_layers", ours.num_hidden_layers, theirs.num_hidden_layers),
        ("num_attention_heads", ours.num_attention_heads, theirs.num_attention_heads),
        ("intermediate_size", ours.intermediate_size, theirs.intermediate_size),
    ] {
        ensure!(
            own == other,
            "its {name} is {other}, this run's {own}; take its --preset, or --set shape.{name}={other}"
        );
    }
    let (own, other) = (ours.layer_norm_eps, theirs.layer_norm_eps);
    ensure!(own == other, "its layer_norm_eps is {other}; what is trained here has {own}");
    Ok(())
}
