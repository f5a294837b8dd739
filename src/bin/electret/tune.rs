//! The on-device learner on this computer, and the tasks' metrics.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use electret::evaluate::{LabelNames, Labelled, Metric, Truth};
use electret::import::write_atomically;
use electret::tune::store::{FolderStore, Place, Store};
use electret::tune::{Settings, Step, Task, computer_plan, epoch_order};
use electret::weights::{AlignedBytes, checksum};
use electret::{Adapter, Document, Error, Model, Strategy, Tuner, kernels};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::evaluate::{answers, known_labels, tokens};
use super::{ModelFile, Output, check_out};

/// Learns a task on top of a frozen model, as a device would.
///
/// Example: electret tune --train intents.tsv --dev dev.tsv --strategy head+lora:8:4 -o intents.adapter
#[derive(Args)]
pub struct Tune {
    #[command(flatten)]
    model: ModelFile,
    /// Examples: .tsv (label or score, text or text_a text_b), .conll (word, tag) or SQuAD .json.
    #[arg(long)]
    train: PathBuf,
    /// Examples that are not learned, to be scored after every epoch.
    #[arg(long)]
    dev: Option<PathBuf>,
    /// head, bias[:LAYERS], words:RANK, lora:RANK:LAYERS[:qkvaio or all], or several joined by +.
    #[arg(long, default_value = Strategy::DEFAULT)]
    strategy: String,
    /// The adapter to write.
    #[arg(short, long)]
    out: PathBuf,
    /// Times that every example is learned.
    #[arg(long, default_value_t = 3)]
    epochs: u32,
    /// Examples a step.
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    /// Largest learning rate, after a tenth of the steps; it falls to 0 at the end.
    #[arg(long, default_value_t = 1e-3)]
    learning_rate: f32,
    /// Decoupled weight decay of matrices.
    #[arg(long, default_value_t = 0.01)]
    weight_decay: f32,
    /// The learning rate's factor from a layer to the one below.
    #[arg(long, default_value_t = 1.0)]
    layer_decay: f32,
    /// How likely a value that a dense layer adds falls while it is learned from.
    #[arg(long, default_value_t = 0.0)]
    dropout: f32,
    /// How much of a label's probability is given to all labels alike.
    #[arg(long, default_value_t = 0.0)]
    label_smoothing: f32,
    /// Let every label count alike, however often it occurs.
    #[arg(long)]
    balance: bool,
    /// Longest sequence in tokens; what is longer loses its end. Without it 128, or the model's longest.
    #[arg(long)]
    seq: Option<usize>,
    /// Seed of the order and of what starts at random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A folder that keeps the learner's state; a run that was stopped goes on from there to the same bits.
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Steps after which the state is kept.
    #[arg(long, default_value_t = 100, value_name = "STEPS")]
    save_every: u32,
    #[command(flatten)]
    output: Output,
}

impl Tune {
    pub fn run(&self) -> Result<()> {
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let strategy = parse_strategy(&self.strategy)?;
        ensure!(
            self.epochs > 0 && self.batch_size > 0 && self.save_every > 0,
            "--epochs, --batch-size and --save-every must be at least 1"
        );
        check_out(&self.out)?;
        let plain = self.label_smoothing == 0.0 && !self.balance;
        let names = match strategy.head {
            true => LabelNames::OfFile,
            false => LabelNames::Only(known_labels(&model, None, Labelled::kind_of(&self.train)?)),
        };
        let train = Labelled::read(&self.train, names)?;
        ensure!(
            plain || train.kind.has_label_names(),
            "--balance, --label-smoothing: they are for classes and tags; {} has neither",
            self.train.display()
        );
        let names = || LabelNames::First(train.labels.clone());
        let dev = self.dev.as_ref().map(|path| Labelled::read(path, names())).transpose()?;
        if let Some(dev) = &dev {
            let (ours, theirs) = (train.kind.name(), dev.kind.name());
            ensure!(dev.kind == train.kind, "--dev: it is for {theirs}, and --train for {ours}");
        }
        let names: Vec<&str> = train.labels.iter().map(String::as_str).collect();
        let weights = if self.balance { balanced(&train) } else { Vec::new() };
        let mut task = Task::classify(&names);
        (task.kind, task.class_weights, task.label_smoothing) = (train.kind, &weights, self.label_smoothing);

        let steps = self.epochs.saturating_mul(train.examples.len().div_ceil(self.batch_size) as u32);
        let settings = Settings {
            learning_rate: self.learning_rate,
            warmup_steps: steps / 10,
            total_steps: steps,
            weight_decay: self.weight_decay,
            layer_decay: self.layer_decay,
            dropout: self.dropout,
            seed: self.seed,
            ..Settings::default()
        };
        let tokens = tokens(model.config(), self.seq, 128)?;
        let plan = computer_plan(&model, task.kind, strategy, names.len(), tokens);
        let mut arena = AlignedBytes::zeroed(plan.bytes());
        let mut tuner = Tuner::with(model, arena.as_mut_slice(), plan, task, settings, kernels::best())?;
        log::info!(
            "{} examples of {}, {} labels; {strategy}: {} parameters; {steps} steps",
            train.examples.len(),
            task.kind.name(),
            names.len(),
            plan.layout.len()
        );
        let claim = |folder| self.claim(folder, strategy, tokens);
        let mut store = self.state.as_deref().map(claim).transpose()?;
        if let Some(store) = &mut store
            && store.resume(&mut tuner).context("--state")?
        {
            log::info!("goes on after step {}", tuner.progress().steps);
        }
        let mut curve = Vec::new();
        for epoch in 1..=self.epochs {
            let Some((loss, left_out)) = self.epoch(&mut tuner, &train, epoch, &mut store)? else {
                continue;
            };
            let scores =
                dev.as_ref().map(|dev| examine(model, Some(tuner.adapter()), dev, tokens)).transpose()?;
            let said =
                scores.iter().flatten().map(|m| format!(", {} {:.4}", m.metric, m.value)).collect::<String>();
            log::info!("epoch {epoch}: loss {loss:.4}{said}");
            if left_out > 0 {
                log::warn!("{left_out} examples taught nothing: no token, or an answer that was cut off");
            }
            curve.push(json!({"epoch": epoch, "loss": loss, "left_out": left_out, "dev": scores}));
        }
        if curve.is_empty() {
            log::warn!("--state: all {} epochs were learned before, and nothing now", self.epochs);
        }
        let file = tuner.adapter().to_vec()?;
        write_atomically(&self.out, &file).with_context(|| self.out.display().to_string())?;
        if self.output.json {
            let row = json!({"adapter": self.out.display().to_string(), "bytes": file.len(), "skipped": tuner.progress().skipped,
                             "curve": curve});
            say!("{row}");
        } else {
            say!("{}: {} bytes, {} steps", self.out.display(), file.len(), tuner.progress().steps);
        }
        Ok(())
    }

    /// The store of --state. Its `tune.json` has what decides the bits that are learned; a run that goes on there
    /// must have the same.
    fn claim(&self, folder: &Path, strategy: Strategy, tokens: usize) -> Result<FolderStore> {
        let mut store = FolderStore::open(folder).context("--state")?;
        let path = folder.join("tune.json");
        let ours = self.terms(strategy, tokens)?;
        if !path.exists() {
            let begun = store.get(Place::Tuner, &mut |_| Ok(())).context("--state")?;
            ensure!(
                !begun,
                "--state {}: what it keeps is not a run of `tune`; use another",
                folder.display()
            );
            write_atomically(&path, format!("{:#}\n", json!(ours)).as_bytes()).context("--state")?;
            return Ok(store);
        }
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let theirs: BTreeMap<String, String> = serde_json::from_slice(&text)
            .with_context(|| format!("--state: {} cannot be used; use another folder", path.display()))?;
        let different: Vec<_> = ours
            .iter()
            .filter(|(option, now)| theirs.get(**option) != Some(now))
            .map(|(option, now)| format!("{option} {}, now {now}", theirs.get(*option).map_or("?", |it| it)))
            .collect();
        ensure!(
            different.is_empty(),
            "--state {}: its run was begun with {}; go on with that, or use another folder",
            folder.display(),
            different.join("; ")
        );
        Ok(store)
    }

    /// What decides the bits that are learned, but for the model and its labels, which the state itself knows.
    fn terms(&self, strategy: Strategy, tokens: usize) -> Result<BTreeMap<&'static str, String>> {
        let train = std::fs::read(&self.train).with_context(|| self.train.display().to_string())?;
        Ok(BTreeMap::from([
            ("--train", format!("(a file with checksum {:08x})", checksum(&train))),
            ("--strategy", strategy.to_string()),
            ("--epochs", self.epochs.to_string()),
            ("--batch-size", self.batch_size.to_string()),
            ("--learning-rate", self.learning_rate.to_string()),
            ("--weight-decay", self.weight_decay.to_string()),
            ("--layer-decay", self.layer_decay.to_string()),
            ("--dropout", self.dropout.to_string()),
            ("--label-smoothing", self.label_smoothing.to_string()),
            ("--balance", self.balance.to_string()),
            ("--seq", tokens.to_string()),
            ("--seed", self.seed.to_string()),
        ]))
    }

    /// Learns every example once, in an order of its own: the mean loss, and how many taught nothing. `None` if
    /// an earlier run got through this epoch.
    fn epoch(
        &self,
        tuner: &mut Tuner<'_, '_>,
        train: &Labelled,
        epoch: u32,
        store: &mut Option<FolderStore>,
    ) -> Result<Option<(f64, usize)>> {
        let count = train.examples.len();
        let done = tuner.progress().seen.saturating_sub(u64::from(epoch - 1) * count as u64) as usize;
        if done >= count {
            return Ok(None);
        }
        let bar = ProgressBar::new(count as u64).with_style(
            ProgressStyle::with_template("{bar:30} {pos}/{len}, {per_sec}, {eta} left, {msg}")
                .context("the progress bar")?,
        );
        bar.set_position(done as u64);
        let (mut sum, mut learned, mut left_out) = (0.0, 0usize, 0);
        let order = epoch_order(count, self.seed ^ u64::from(epoch) << 32);
        for batch in order[done..].chunks(self.batch_size) {
            for &index in batch {
                let example = &train.examples[index];
                match tuner.learn(example.input(), example.target()) {
                    Ok(loss) => {
                        sum += f64::from(loss);
                        learned += 1;
                    }
                    Err(Error::EmptyText | Error::SpanOutsideContext | Error::NotFinite) => left_out += 1,
                    Err(error) => return Err(error).with_context(|| format!("example {}", index + 1)),
                }
            }
            if tuner.step() == Step::Skipped {
                log::warn!("a step whose gradient is not finite was left out");
            }
            let at_end = tuner.progress().seen == u64::from(epoch) * count as u64;
            if let Some(store) = store
                && (tuner.progress().steps.is_multiple_of(self.save_every) || at_end)
            {
                store.checkpoint(tuner).context("--state")?;
            }
            bar.inc(batch.len() as u64);
            bar.set_message(format!("loss {:.4}", sum / learned.max(1) as f64));
        }
        bar.finish_and_clear();
        ensure!(learned > 0, "no example taught anything");
        Ok(Some((sum / learned as f64, left_out)))
    }
}

/// A strategy as the command line gives it.
pub fn parse_strategy(text: &str) -> Result<Strategy> {
    Strategy::parse(text).with_context(|| format!("strategy {text}: {}", Strategy::WANTED))
}

fn examine(
    model: Model<'_>,
    adapter: Option<Adapter<'_>>,
    data: &Labelled,
    tokens: usize,
) -> Result<Vec<Metric>> {
    Ok(answers(model, adapter, data, tokens)?.metrics())
}

/// One over each label's share.
fn balanced(train: &Labelled) -> Vec<f32> {
    let mut counts = vec![0usize; train.labels.len()];
    for example in &train.examples {
        match &example.truth {
            Truth::Class(label) => counts[*label] += 1,
            Truth::Tags(tags) => tags.iter().for_each(|&tag| counts[usize::from(tag)] += 1),
            _ => {}
        }
    }
    let all: usize = counts.iter().sum();
    counts.iter().map(|&count| all as f32 / (counts.len() * count.max(1)) as f32).collect()
}
