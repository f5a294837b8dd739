//! The on-device learner on this computer, and the tasks' metrics.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use electret::evaluate::{Labelled, Metric, Truth, score};
use electret::tune::{Settings, Step, Task};
use electret::weights::AlignedBytes;
use electret::weights::strategy::Layout;
use electret::{
    Adapter, Document, Error, HeadKind, Model, Plan, Session, Strategy, Tuner, TuningPlan, kernels,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{AdapterFile, ModelFile, Output};

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
    /// head, bias[:LAYERS], lora:RANK:LAYERS[:qkvaio or all], or several joined by +.
    #[arg(long, default_value = "head+lora:8:4")]
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
    #[command(flatten)]
    output: Output,
}

/// A model's score on labelled examples, with the 95 % interval of a bootstrap.
///
/// Example: electret evaluate --model intents.electret --data test.tsv
#[derive(Args)]
pub struct Evaluate {
    #[command(flatten)]
    model: ModelFile,
    #[command(flatten)]
    adapter: AdapterFile,
    /// Examples: .tsv, .conll or SQuAD .json.
    #[arg(long)]
    data: PathBuf,
    /// Longest sequence in tokens; what is longer loses its end. Without it the model's longest.
    #[arg(long)]
    seq: Option<usize>,
    #[command(flatten)]
    output: Output,
}

/// Rows and strips of a computer's blocks: enough memory is there.
const BLOCK_ROWS: usize = 128;
const STRIPS: usize = 8;

impl Tune {
    pub fn run(&self) -> Result<()> {
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let strategy = parse_strategy(&self.strategy)?;
        ensure!(self.epochs > 0 && self.batch_size > 0, "--epochs and --batch-size must be at least 1");
        let train = Labelled::read(&self.train, known_labels(&model, None, strategy.head)?)?;
        let dev =
            self.dev.as_ref().map(|path| Labelled::read(path, Some(train.labels.clone()))).transpose()?;
        let names: Vec<&str> = train.labels.iter().map(String::as_str).collect();
        let weights = if self.balance { balanced(&train) } else { Vec::new() };
        let mut task = Task::classify(&names);
        (task.kind, task.class_weights, task.label_smoothing) = (train.kind, &weights, self.label_smoothing);

        let steps = self.epochs * train.examples.len().div_ceil(self.batch_size) as u32;
        let settings = Settings {
            learning_rate: self.learning_rate,
            warmup_steps: steps / 10,
            total_steps: steps,
            weight_decay: self.weight_decay,
            layer_decay: self.layer_decay,
            seed: self.seed,
            ..Settings::default()
        };
        let tokens = tokens(&model, self.seq, 128)?;
        let plan = tuning_plan(&model, task.kind, strategy, names.len(), tokens);
        let mut arena = AlignedBytes::zeroed(plan.bytes());
        let mut tuner = Tuner::with(model, arena.as_mut_slice(), plan, task, settings, kernels::best())?;
        log::info!(
            "{} examples of {}, {} labels; {strategy}: {} parameters; {steps} steps",
            train.examples.len(),
            task.kind.name(),
            names.len(),
            plan.layout.len()
        );
        let mut curve = Vec::new();
        for epoch in 1..=self.epochs {
            let (loss, left_out) = self.epoch(&mut tuner, &train, epoch)?;
            let scores =
                dev.as_ref().map(|dev| answer(model, Some(tuner.adapter()), dev, tokens)).transpose()?;
            let said =
                scores.iter().flatten().map(|m| format!(", {} {:.4}", m.metric, m.value)).collect::<String>();
            log::info!("epoch {epoch}: loss {loss:.4}{said}");
            if left_out > 0 {
                log::warn!("{left_out} examples taught nothing: no token, or an answer that was cut off");
            }
            curve.push(json!({"epoch": epoch, "loss": loss, "left_out": left_out, "dev": scores}));
        }
        let adapter = tuner.adapter();
        let mut file = vec![0; adapter.bytes()];
        write_whole(&self.out, adapter.write(&mut file)?)?;
        if self.output.json {
            let row = json!({"adapter": self.out.display().to_string(), "bytes": file.len(), "skipped": tuner.progress().skipped,
                             "curve": curve});
            say!("{row}");
        } else {
            say!("{}: {} bytes, {} steps", self.out.display(), file.len(), tuner.progress().steps);
        }
        Ok(())
    }

    /// Learns every example once, in an order of its own: the mean loss, and how many taught nothing.
    fn epoch(&self, tuner: &mut Tuner<'_, '_>, train: &Labelled, epoch: u32) -> Result<(f64, usize)> {
        let bar = ProgressBar::new(train.examples.len() as u64).with_style(
            ProgressStyle::with_template("{bar:30} {pos}/{len}, {per_sec}, {eta} left, {msg}")
                .context("the progress bar")?,
        );
        let (mut sum, mut learned, mut left_out) = (0.0, 0usize, 0);
        for batch in
            shuffled(train.examples.len(), self.seed ^ u64::from(epoch) << 32).chunks(self.batch_size)
        {
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
            bar.inc(batch.len() as u64);
            bar.set_message(format!("loss {:.4}", sum / learned.max(1) as f64));
        }
        bar.finish_and_clear();
        ensure!(learned > 0, "no example taught anything");
        Ok((sum / learned as f64, left_out))
    }
}

impl Evaluate {
    pub fn run(&self) -> Result<()> {
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let file = self.adapter.bytes()?;
        let adapter = file.as_ref().map(|file| Adapter::open(file.as_slice(), &model)).transpose()?;
        let data = Labelled::read(&self.data, known_labels(&model, adapter, false)?)?;
        let tokens = tokens(&model, self.seq, usize::MAX)?;
        let metrics = answer(model, adapter, &data, tokens)?;
        if self.output.json {
            say!("{}", json!({ "task": data.kind.name(), "metrics": metrics }));
            return Ok(());
        }
        for Metric { metric, value, low, high, n } in metrics {
            say!("{metric:12} {value:.4}  ({low:.4} to {high:.4}, {n} examples)");
        }
        Ok(())
    }
}

/// A strategy as the command line gives it.
pub fn parse_strategy(text: &str) -> Result<Strategy> {
    let wanted = "wanted are head, bias[:LAYERS], lora:RANK:LAYERS[:PARTS] or several joined by +";
    Strategy::parse(text).with_context(|| format!("strategy {text}: {wanted}"))
}

/// The plan of a computer, which has the memory for large blocks.
pub fn tuning_plan(
    model: &Model<'_>,
    kind: HeadKind,
    strategy: Strategy,
    labels: usize,
    tokens: usize,
) -> TuningPlan {
    let layout = Layout { config: *model.config(), strategy, width: model.head_width(kind), labels };
    TuningPlan::with_blocks(layout, tokens, BLOCK_ROWS, STRIPS)
}

fn answer(
    model: Model<'_>,
    adapter: Option<Adapter<'_>>,
    data: &Labelled,
    tokens: usize,
) -> Result<Vec<Metric>> {
    let plan = Plan::with_block_rows(model.config(), tokens, BLOCK_ROWS);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let session = Session::with(model, arena.as_mut_slice(), plan, kernels::best())?;
    Ok(score(&mut session.with_adapter(adapter)?, data)?)
}

/// The labels that an adapter has, or the model's one head that has names; none where a new head is learned.
fn known_labels(
    model: &Model<'_>,
    adapter: Option<Adapter<'_>>,
    new_head: bool,
) -> Result<Option<Vec<String>>> {
    if let Some(adapter) = adapter {
        return Ok(Some(adapter.labels.iter().map(str::to_owned).collect()));
    }
    let named =
        [HeadKind::Classify, HeadKind::Tag].into_iter().filter_map(|kind| model.head(kind).ok()).next();
    let names = named.map(|head| head.labels.iter().map(|label| label.as_str().to_owned()).collect());
    Ok(if new_head { None } else { names })
}

/// --seq, or what the model takes but no more than `most`.
fn tokens(model: &Model<'_>, asked: Option<usize>, most: usize) -> Result<usize> {
    let limit = model.config().max_position_embeddings;
    let tokens = asked.unwrap_or(limit.min(most));
    ensure!((4..=limit).contains(&tokens), "--seq {tokens}: this model takes 4 to {limit} tokens");
    Ok(tokens)
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

/// 0..n in an order that the seed decides.
fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut state = seed;
    for last in (1..n).rev() {
        // SplitMix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        order.swap(last, ((z ^ z >> 31) % (last as u64 + 1)) as usize);
    }
    order
}

/// Writes a file so that at any moment there is the old one or the new one, whole.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&part)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| path.display().to_string())
}
