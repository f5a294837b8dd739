//! A pre-training run, begun or gone on with.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use electret::train::checkpoint::has_checkpoint;
use electret::train::corpus::Corpus;
use electret::train::learner::Precision;
#[cfg(not(feature = "mpi"))]
use electret::train::ranks::Alone;
#[cfg(feature = "mpi")]
use electret::train::ranks::Mpi;
use electret::train::ranks::Ranks;
use electret::train::run::Run;
use electret::train::trainer::Pace;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use toml::{Table, Value};

use super::device::{Device, on_device};

/// Pre-train an ELECTRA; a run that is there already goes on where it stopped. Ctrl-C and SIGTERM save and leave.
///
/// A preset's values stand under those of --config, and these under the other options; what came of it is kept in
/// the run's folder as run.toml, beside checkpoints, curve.tsv, TensorBoard's events and report.html.
///
/// Example: electret pretrain corpus/ -o run/ --preset tiny --steps 20000 --set generator.sharing=gdes
#[derive(Args)]
pub struct Pretrain {
    /// A folder that `corpus build` wrote.
    corpus: PathBuf,
    /// The run's folder.
    #[arg(short, long)]
    out: PathBuf,
    /// Settings as a run.toml has them; those that are missing are the preset's.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// nano, tiny, small, base or large.
    #[arg(long)]
    preset: Option<String>,
    /// What is learnt: electra, or one that the paper compares it with.
    #[arg(long, value_enum)]
    objective: Option<Objectives>,
    /// A run, or a model's Hugging Face folder, whose encoder this run starts from.
    #[arg(long, value_name = "FOLDER")]
    init_from: Option<PathBuf>,
    /// Steps of the whole schedule.
    #[arg(long)]
    steps: Option<i64>,
    /// Examples a step.
    #[arg(long)]
    batch_size: Option<i64>,
    /// Examples that go through the networks together, where the whole batch does not fit.
    #[arg(long)]
    micro_batch: Option<i64>,
    /// Peak learning rate.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Steps of linear warm-up.
    #[arg(long)]
    warmup_steps: Option<i64>,
    /// What networks multiply in: f32, or bf16 where the device has it.
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Probability of dropping an activation.
    #[arg(long)]
    dropout: Option<f64>,
    /// Seed of weights, order, masks and samples.
    #[arg(long)]
    seed: Option<i64>,
    /// Any other setting by its name in run.toml, such as objective.mask_prob=0.25 or adam.schedule=linear.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where the arithmetic is done.
    #[arg(long, value_enum, default_value = "cpu")]
    device: Device,
    /// Stop for now at this step.
    #[arg(long)]
    stop_at: Option<usize>,
    /// Steps between two lines of the curve.
    #[arg(long, default_value_t = 50)]
    report_every: usize,
    /// Steps between two checkpoints.
    #[arg(long, default_value_t = 500)]
    checkpoint_every: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Objectives {
    /// The generator fills masks, the discriminator judges every token.
    Electra,
    /// The same, judging the chosen tokens alone.
    #[value(name = "electra-15")]
    Electra15,
    /// Predicting the words that the generator replaced.
    ReplaceMlm,
    /// Predicting every word of such a text.
    AllTokensMlm,
    /// BERT's objective on the same encoder.
    Mlm,
}

impl Pretrain {
    pub fn run(&self) -> Result<()> {
        // A run that is there says itself what it is; whatever else is asked for is compared with that. One that never came
        // to a checkpoint says nothing.
        let begun = has_checkpoint(&self.out).unwrap_or(false);
        let own = Some(self.out.join("run.toml")).filter(|path| begun && path.exists());
        let run =
            Run::assemble(self.config.as_ref().or(own.as_ref()).map(PathBuf::as_path), self.overrides()?)?;
        let corpus = Corpus::open(&self.corpus)?;
        #[cfg(feature = "mpi")]
        let ranks = Mpi::join()?;
        #[cfg(feature = "mpi")]
        if ranks.size() > 1 {
            // The launcher ends the other ranks with a process that was aborted; they would wait for one that unwinds.
            let say = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                say(panic);
                std::process::abort();
            }));
        }
        #[cfg(not(feature = "mpi"))]
        let ranks = Alone;
        let interrupted = interruption()?;
        let pace = Pace {
            report_every: self.report_every.max(1),
            checkpoint_every: self.checkpoint_every.max(1),
            stop_at: self.stop_at,
            interrupted: &interrupted,
            ranks: &ranks,
        };
        let (corpus, out) = (&corpus, self.out.as_path());
        let step = on_device!(self.device, B, at => run.train::<B>(corpus, out, pace, at));
        #[cfg(feature = "mpi")]
        if let Err(error) = &step
            && ranks.size() > 1
        {
            // The other ranks wait for this one and would wait for ever.
            eprintln!("electret: rank {}: {error:#}", ranks.rank());
            ranks.abort();
        }
        let step = step?;
        if ranks.rank() == 0 {
            let kept = if interrupted.load(Ordering::Relaxed) { "; the same command goes on" } else { "" };
            say!("{}: step {step} of {}{kept}", out.display(), run.steps);
        }
        Ok(())
    }

    /// What the command line says, as a run.toml would.
    fn overrides(&self) -> Result<Table> {
        let mut table = Table::new();
        let (kind, precision) = (self.objective.and_then(spelled), self.precision.and_then(spelled));
        let init_from = self.init_from.as_ref().map(|path| path.display().to_string());
        for (key, value) in [
            ("preset", self.preset.clone().map(Value::String)),
            ("objective.kind", kind.map(Value::String)),
            ("init_from", init_from.map(Value::String)),
            ("steps", self.steps.map(Value::Integer)),
            ("batch_size", self.batch_size.map(Value::Integer)),
            ("micro_batch", self.micro_batch.map(Value::Integer)),
            ("adam.learning_rate", self.learning_rate.map(Value::Float)),
            ("adam.warmup_steps", self.warmup_steps.map(Value::Integer)),
            ("precision", precision.map(Value::String)),
            ("dropout", self.dropout.map(Value::Float)),
            ("seed", self.seed.map(Value::Integer)),
        ] {
            if let Some(value) = value {
                put(&mut table, key, value);
            }
        }
        for setting in &self.set {
            let (key, value) =
                setting.split_once('=').with_context(|| format!("--set {setting}: KEY=VALUE"))?;
            // A bare word is a string, as in generator.sharing=gdes.
            let value = value.parse().unwrap_or_else(|_| Value::String(value.to_owned()));
            put(&mut table, key, value);
        }
        Ok(table)
    }
}

/// True once the process was asked to stop: by Ctrl-C or as a scheduler asks. A terminal's launcher may pass on what its
/// own group of processes gets too, so that one Ctrl-C is two signals; only one that comes later leaves at once.
fn interruption() -> Result<Arc<AtomicBool>> {
    const LATER: Duration = Duration::from_secs(1);
    let interrupted = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let seen = Arc::clone(&interrupted);
    std::thread::spawn(move || {
        let mut first = None;
        for signal in signals.forever() {
            let first = *first.get_or_insert_with(Instant::now);
            if signal == SIGINT && first.elapsed() > LATER {
                signal_hook::low_level::exit(130);
            }
            seen.store(true, Ordering::Relaxed);
        }
    });
    Ok(interrupted)
}

/// A choice as the command line and run.toml spell it.
pub(super) fn spelled(choice: impl ValueEnum) -> Option<String> {
    Some(choice.to_possible_value()?.get_name().to_owned())
}

/// Puts a value under a dotted key.
fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((group, rest)) => {
            let group = table.entry(group).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(group) = group {
                put(group, rest, value);
            }
        }
    }
}
