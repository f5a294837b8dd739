//! Everything that decides a run, in one TOML file that is kept beside it.
//!
//! A preset gives every value, a file changes some, the command line has the last word. What a folder's
//! `run.toml` says is what its weights were trained with: going on with anything else is refused.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::checkpoint::has_checkpoint;
use super::corpus::{Corpus, Manifest};
use super::learner::Precision;
use super::objective::{Kind, Objective};
use super::optimizer::Adam;
use crate::ElectraConfig;
use crate::encoder::MAX_HEAD;
use crate::import::write_atomically;

/// The settings of a run. Defaults are the recipe's (google-research/electra, `configure_pretraining.py`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// `nano`, `tiny`, `small`, `base` or `large`: the discriminator's shape.
    pub preset: String,
    /// Steps of the whole schedule.
    pub steps: usize,
    /// Examples a step.
    pub batch_size: usize,
    /// Examples that go through the networks together; gradients of the batch's parts are summed. Without it the
    /// whole batch. It decides dropout's draws, so it belongs to the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// What networks multiply in.
    #[serde(default)]
    pub precision: Precision,
    /// Probability of dropping an activation.
    pub dropout: f64,
    /// Seed of initial weights, order, masks, samples and dropout.
    pub seed: u64,
    /// A run, or a model's Hugging Face folder, whose encoder this run starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// What the tables of positions start as; those of a run that is started from stay as they are.
    #[serde(default)]
    pub positions: Positions,
    /// Where the discriminator's shape is not the preset's.
    #[serde(default, skip_serializing_if = "Shape::is_the_presets")]
    pub shape: Shape,
    /// What is learnt, loss weights and mask share.
    pub objective: Objective,
    /// The network that fills the masks.
    pub generator: Generator,
    /// Optimiser and schedule.
    pub adam: Adam,
}

/// What a table of positions is before it is learnt as everything else is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// Drawn as words are: the recipe.
    #[default]
    Random,
    /// Sine and cosine waves: attention learns to look at a word's neighbours sooner, which a short run gains by.
    Sinusoids,
}

/// Numbers of the discriminator's shape, under their names in `config.json`, that stand in the place of the preset's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Width of the embedding tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_size: Option<usize>,
    /// Width of the residual stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<usize>,
    /// Transformer layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_hidden_layers: Option<usize>,
    /// Attention heads a layer; divides the width of the residual stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<usize>,
    /// Width of the feed-forward layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
}

impl Shape {
    fn is_the_presets(&self) -> bool {
        *self == Self::default()
    }

    /// That shape instead of `preset`'s, where it says so.
    fn of(&self, preset: ElectraConfig) -> ElectraConfig {
        ElectraConfig {
            embedding_size: self.embedding_size.unwrap_or(preset.embedding_size),
            hidden_size: self.hidden_size.unwrap_or(preset.hidden_size),
            num_hidden_layers: self.num_hidden_layers.unwrap_or(preset.num_hidden_layers),
            num_attention_heads: self.num_attention_heads.unwrap_or(preset.num_attention_heads),
            intermediate_size: self.intermediate_size.unwrap_or(preset.intermediate_size),
            ..preset
        }
    }
}

/// The generator, which objective `mlm` has none of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Its hidden size as a share of the discriminator's: 1/4, for BASE 1/3 (paper §3.2: 1/4 to 1/2 is best).
    pub size: f64,
    /// What it has in common with the discriminator.
    pub sharing: Sharing,
}

/// What generator and discriminator have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Word, position and segment embeddings and their LayerNorm: the recipe.
    Embeddings,
    /// The same, but the discriminator's gradient does not reach the word embeddings: it learns a difference of
    /// its own on top (gradient-disentangled embedding sharing, DeBERTaV3 §3.2).
    Gdes,
    /// The whole encoder, for a generator of size 1.
    All,
    /// Nothing.
    None,
}

impl Run {
    /// The recipe of a preset for one of the objectives.
    pub fn preset(name: &str, kind: Kind) -> Result<Self> {
        let (steps, batch_size, learning_rate, warmup_steps, mask_prob) = match name {
            "nano" => (48_000, 64, 2e-3, 500, 0.15),
            "tiny" => (20_000, 16, 5e-4, 1_000, 0.15),
            "small" => (1_000_000, 128, 5e-4, 10_000, 0.15),
            "base" => (766_000, 256, 2e-4, 10_000, 0.15),
            "large" => (400_000, 2048, 2e-4, 10_000, 0.25),
            _ => bail!("preset {name:?}: {}", ElectraConfig::PRESETS),
        };
        Ok(Self {
            preset: name.to_owned(),
            steps,
            batch_size,
            micro_batch: None,
            precision: Precision::F32,
            dropout: 0.1,
            seed: 1,
            init_from: None,
            positions: Positions::default(),
            shape: Shape::default(),
            objective: Objective { mask_prob, ..Objective::of(kind) },
            generator: Generator {
                size: if name == "base" { 1.0 / 3.0 } else { 0.25 },
                sharing: Sharing::Embeddings,
            },
            adam: Adam { learning_rate, warmup_steps, ..Adam::default() },
        })
    }

    /// A preset's values under those of a TOML file under `overrides`, in which `preset` and `objective.kind` may
    /// stand too.
    ///
    /// # Errors
    /// An unknown key or a value out of range, by name.
    pub fn assemble(file: Option<&Path>, overrides: Table) -> Result<Self> {
        let given = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                text.parse::<Table>().with_context(|| path.display().to_string())?
            }
            None => Table::new(),
        };
        let mut asked = given;
        overlay(&mut asked, overrides);
        let preset = asked.get("preset").and_then(Value::as_str).unwrap_or("tiny");
        let kind = match asked.get("objective").and_then(|objective| objective.get("kind")) {
            Some(kind) => kind.clone().try_into().context("objective.kind")?,
            None => Kind::Electra,
        };
        let mut table = Table::try_from(Self::preset(preset, kind)?)?;
        overlay(&mut table, asked);
        let run: Self = table.try_into().context("the run's settings")?;
        run.check()?;
        Ok(run)
    }

    /// Reads a run's `run.toml`.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("run.toml");
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("{}: no run here; start one with `electret pretrain`", path.display())
        })?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Writes `run.toml` and a copy of the corpus's `corpus.json`, or, where the folder has a checkpoint already, checks
    /// that its own say the same. The folder is this process's until what is returned is dropped.
    ///
    /// # Errors
    /// Another process that trains there; other settings, setting by setting; another corpus.
    pub fn claim(&self, folder: &Path, corpus: &Manifest) -> Result<File> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let lock = lock(folder)?;
        let (path, manifest) = (folder.join("run.toml"), folder.join("corpus.json"));
        if !has_checkpoint(folder)? {
            let write = |path: &Path, text: String| {
                write_atomically(path, text.as_bytes()).with_context(|| path.display().to_string())
            };
            write(&manifest, serde_json::to_string_pretty(corpus)?)?;
            write(&path, toml::to_string(self)?)?;
            return Ok(lock);
        }
        ensure!(
            Manifest::read(&manifest)? == *corpus,
            "{}: this run was started on another corpus; use that or another folder",
            manifest.display()
        );
        let theirs = Table::try_from(Self::open(folder)?)?;
        let differences = differences("", &theirs, &Table::try_from(self)?);
        ensure!(
            differences.is_empty(),
            "{}: this run was started with other settings ({}); use those or another folder",
            path.display(),
            differences.join("; ")
        );
        Ok(lock)
    }

    /// Checks that in a run's folder ids stand for the pieces that they stand for in this corpus.
    ///
    /// # Errors
    /// Another vocabulary.
    pub fn shares_vocabulary(folder: &Path, corpus: &Manifest) -> Result<()> {
        ensure!(
            Manifest::read(&folder.join("corpus.json"))?.vocabulary_crc == corpus.vocabulary_crc,
            "{}: this run was trained with another vocabulary than the corpus has; take the run's own corpus, or \
             build one with the vocab.txt of that (--vocab)",
            folder.display()
        );
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let share = |name: &str, value: f64, most: f64| {
            ensure!((0.0..most).contains(&value), "{name} = {value}: 0 or more, and below {most}");
            Ok(())
        };
        ensure!(
            self.steps > 1,
            "steps = {}: at least 2, of which the last has a learning rate of 0",
            self.steps
        );
        ensure!(self.batch_size > 0, "batch_size = 0: at least 1");
        ensure!(
            self.batch_size.is_multiple_of(self.micro()) && self.micro() > 0,
            "micro_batch = {}: it must divide batch_size = {}",
            self.micro(),
            self.batch_size
        );
        share("dropout", self.dropout, 1.0)?;
        share("objective.mask_prob", self.objective.mask_prob, 1.0)?;
        share("objective.stray_prob", self.objective.stray_prob, 1.0)?;
        share("adam.beta_1", self.adam.beta_1, 1.0)?;
        share("adam.beta_2", self.adam.beta_2, 1.0)?;
        for (name, value) in [
            ("adam.learning_rate", self.adam.learning_rate),
            ("adam.clip_norm", self.adam.clip_norm),
            ("adam.epsilon", self.adam.epsilon),
            ("generator.size", self.generator.size),
        ] {
            ensure!(value > 0.0 && value.is_finite(), "{name} = {value}: more than 0, and finite");
        }
        let shape = self.network()?;
        for (name, value, most) in shape.sizes() {
            let name = name.trim_start_matches("config.");
            ensure!((1..=most).contains(&value), "shape.{name} = {value}: 1 to {most}");
        }
        ensure!(
            shape.has_usable_heads(),
            "shape.num_attention_heads = {}: it must divide shape.hidden_size = {} into heads at most {MAX_HEAD} wide",
            shape.num_attention_heads,
            shape.hidden_size
        );
        let generator = self.generator_config(&shape);
        ensure!(
            generator.has_usable_heads(),
            "generator.size = {}: its width of {} has no heads at most {MAX_HEAD} wide; take one of a multiple of 64",
            self.generator.size,
            generator.hidden_size
        );
        ensure!(
            self.has_generator() || self.generator.sharing == Sharing::Embeddings,
            "generator.sharing: objective mlm has no generator to share with"
        );
        ensure!(
            self.generator.sharing != Sharing::All || self.generator.size == 1.0,
            "generator.size = {}: to share all weights (generator.sharing = \"all\") it must be 1.0",
            self.generator.size
        );
        Ok(())
    }

    /// Whether a second network fills the masks.
    pub fn has_generator(&self) -> bool {
        self.objective.kind != Kind::Mlm
    }

    /// Examples that go through the networks together.
    pub fn micro(&self) -> usize {
        self.micro_batch.unwrap_or(self.batch_size)
    }

    /// The discriminator's shape with the preset's vocabulary.
    fn network(&self) -> Result<ElectraConfig> {
        let preset = ElectraConfig::preset(&self.preset)
            .with_context(|| format!("preset {:?}: {}", self.preset, ElectraConfig::PRESETS))?;
        Ok(self.shape.of(preset))
    }

    /// The discriminator's shape with the corpus's vocabulary.
    pub fn config(&self, corpus: &Corpus) -> Result<ElectraConfig> {
        let config = ElectraConfig { vocab_size: corpus.manifest.vocab_size, ..self.network()? };
        ensure!(
            corpus.manifest.sequence <= config.max_position_embeddings,
            "the corpus has examples of {} tokens, the preset {} takes {}",
            corpus.manifest.sequence,
            self.preset,
            config.max_position_embeddings
        );
        Ok(config)
    }

    /// The generator's shape beside that discriminator: as deep, heads 64 wide or the next wider ones that divide
    /// its width, a feed-forward layer of four times its width (`run_pretraining.get_generator_config`). Where all
    /// weights are shared, it is the discriminator's.
    pub fn generator_config(&self, discriminator: &ElectraConfig) -> ElectraConfig {
        if self.generator.sharing == Sharing::All {
            return *discriminator;
        }
        let hidden_size = ((discriminator.hidden_size as f64 * self.generator.size).round() as usize).max(1);
        let heads = (1..=(hidden_size / 64).max(1)).rev().find(|&heads| hidden_size.is_multiple_of(heads));
        ElectraConfig {
            hidden_size,
            num_attention_heads: heads.unwrap_or(1),
            intermediate_size: hidden_size * 4,
            ..*discriminator
        }
    }
}

/// Keeps other processes from training in a folder. A process that ends, however it ends, lets go.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("run.lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!(
            "{}: another process is training this run; wait until it has ended, or use another folder",
            folder.display()
        ),
        // Not every network's file system has locks.
        Err(TryLockError::Error(error)) => log::warn!(
            "{}: {error}; see to it yourself that no other process trains this run",
            path.display()
        ),
    }
    Ok(file)
}

/// Puts the values of `over` in the place of those of `under`, table by table.
fn overlay(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => overlay(under, over),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

/// The keys at which two tables differ, with both values.
fn differences(prefix: &str, theirs: &Table, ours: &Table) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let mut found = Vec::new();
    for key in keys {
        let say = |value: Option<&Value>| value.map_or_else(|| "not set".to_owned(), Value::to_string);
        match (theirs.get(key), ours.get(key)) {
            (Some(Value::Table(theirs)), Some(Value::Table(ours))) => {
                found.extend(differences(&format!("{key}."), theirs, ours));
            }
            (theirs, ours) if theirs != ours => {
                found.push(format!("{prefix}{key}: {} there, {} now", say(theirs), say(ours)));
            }
            _ => {}
        }
    }
    found
}
