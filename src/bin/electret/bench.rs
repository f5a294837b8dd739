//! How fast this machine runs a model, and how near that is to what its instructions allow.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use electret::import::Checkpoint;
use electret::kernels::{self, KernelSet, LayerNorm, Matmul, RowScale};
use electret::quantize::quantize_by;
use electret::tasks::Batch;
use electret::text::Token;
use electret::tune::{Settings, Target, Task, computer_plan};
use electret::weights::{AlignedBytes, Channels, Tile};
use electret::{HeadKind, Model, Plan, Session, Tuner};
use serde_json::{Value, json};

use super::convert::WeightsOptions;
use super::tune::parse_strategy;
use super::{ModelFile, Output, preset};

/// Milliseconds a sequence, tokens a second, GOP/s, and the share of this machine's measured peak.
///
/// A multiply-accumulate counts as two operations. The peak is that of the kernel set's own
/// multiply-accumulate instruction, timed without memory in the same run.
///
/// Example: electret bench --preset small --seq 8,32,128
#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    model: ModelFile,
    /// nano, tiny, small, base or large with random weights, instead of a model.
    #[arg(long, conflicts_with = "model")]
    preset: Option<String>,
    #[command(flatten)]
    weights: WeightsOptions,
    /// Sequence lengths in tokens.
    #[arg(long, value_delimiter = ',', value_name = "TOKENS")]
    seq: Vec<usize>,
    /// One kernel set instead of the fastest; `all` for each in turn.
    #[arg(long, value_name = "SET")]
    kernels: Option<String>,
    /// Rows worked together; a larger block is faster and takes a larger arena.
    #[arg(long, value_name = "ROWS")]
    rows: Option<usize>,
    /// Also a batch of 64 sequences of mixed lengths on one thread and on this many.
    #[arg(long, value_name = "THREADS")]
    threads: Option<usize>,
    /// Time the primitives too.
    #[arg(long)]
    primitives: bool,
    /// Steps of learning instead of answers: a strategy as `tune` takes it.
    #[arg(long, value_name = "STRATEGY", conflicts_with_all = ["rows", "threads", "primitives"])]
    tune: Option<String>,
    /// Sequences a step of learning.
    #[arg(long, default_value_t = 8, value_name = "SEQUENCES")]
    batch: usize,
    /// Seconds spent on each line.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    seconds: f64,
    #[command(flatten)]
    output: Output,
}

impl Bench {
    pub fn run(&self) -> Result<()> {
        let bytes = self.subject()?;
        let model = Model::open(bytes.as_slice())?;
        let limit = model.config().max_position_embeddings;
        let lengths = if self.seq.is_empty() { vec![8, 32, 128, 512] } else { self.seq.clone() };
        let lengths: Vec<usize> = match self.seq.iter().find(|&&tokens| tokens > limit || tokens == 0) {
            Some(tokens) => anyhow::bail!("--seq {tokens}: this model takes 1 to {limit} tokens"),
            None => lengths.into_iter().filter(|&tokens| tokens <= limit).collect(),
        };
        ensure!(self.rows != Some(0), "--rows 0: at least one row is worked at a time");
        ensure!((0.0..=3600.0).contains(&self.seconds), "--seconds {}: 0 to 3600", self.seconds);
        if let Some(strategy) = &self.tune {
            return self.learning(model, strategy, &lengths);
        }
        let mut sets = Vec::new();
        for set in self.sets()? {
            let peak = peak(set);
            if !self.output.json {
                say!("{}: peak {:.1} GOP/s on one core", set.name, peak * 2e-9);
                say!("tokens      min ms   median ms    tokens/s     GOP/s   of peak");
            }
            let mut rows = Vec::new();
            for &tokens in &lengths {
                rows.push(self.sentence(model, set, tokens, peak)?);
            }
            let primitives = self.primitives.then(|| self.primitives(set, peak)).transpose()?;
            let batch = self.threads.map(|threads| self.batch(model, set, threads)).transpose()?;
            sets.push(json!({"kernels": set.name, "peak_gops": peak * 2e-9, "rows": rows,
                             "primitives": primitives, "batch": batch}));
        }
        if self.output.json {
            say!("{}", json!({"model": model.root().provenance.name.as_str(), "sets": sets}));
        }
        Ok(())
    }

    /// The model's bytes: a file's, the built-in one's, or random ones.
    fn subject(&self) -> Result<AlignedBytes> {
        let Some(name) = &self.preset else { return self.model.bytes() };
        let checkpoint = Checkpoint::random(name, preset(name)?, 1);
        let recipe = self.weights.weights.recipe(&checkpoint, Vec::new());
        Ok(AlignedBytes::copy_of(&quantize_by(&checkpoint, "random weights", "none", &recipe)?))
    }

    fn sets(&self) -> Result<Vec<&'static KernelSet>> {
        match self.kernels.as_deref() {
            None => Ok(vec![kernels::best()]),
            Some("all") => Ok(kernels::available().collect()),
            Some(name) => {
                let set = kernels::available().find(|set| set.name == name);
                let names: Vec<&str> = kernels::available().map(|set| set.name).collect();
                let message = || format!("--kernels {name}: this machine has {}", names.join(", "));
                Ok(vec![set.with_context(message)?])
            }
        }
    }

    /// Times the encoder, and the model's RTD head if it has one, on one sequence; prints the line.
    fn sentence(&self, model: Model<'_>, set: &'static KernelSet, tokens: usize, peak: f64) -> Result<Value> {
        let config = model.config();
        let rows = self.rows.unwrap_or(tokens.min(32));
        let plan = Plan::with_block_rows(config, tokens, rows).for_model(&model);
        let mut arena = AlignedBytes::zeroed(plan.bytes());
        let mut session = Session::with(model, arena.as_mut_slice(), plan, set)?;
        let sequence = sequence(tokens, config.vocab_size);
        answer(&mut session, &sequence)?;
        let times = repeat(Duration::from_secs_f64(self.seconds), || {
            black_box(answer(&mut session, black_box(&sequence)).is_ok());
        });
        let (min, median) = (times[0], times[times.len() / 2]);
        let rate = config.multiply_accumulates(tokens) as f64 / min;
        let row = json!({
            "tokens": tokens, "min_ms": min * 1e3, "median_ms": median * 1e3, "tokens_per_second": tokens as f64 / median,
            "gops": rate * 2e-9, "share_of_peak": rate / peak, "runs": times.len(), "block_rows": rows,
        });
        if !self.output.json {
            say!(
                "{tokens:6} {:11.3} {:11.3} {:11.0} {:9.1} {:8.1} %",
                min * 1e3,
                median * 1e3,
                tokens as f64 / median,
                rate * 2e-9,
                rate / peak * 100.0
            );
        }
        Ok(row)
    }
}

impl Bench {
    /// Times steps of learning two classes: forward, backward and AdamW over `--batch` sequences.
    fn learning(&self, model: Model<'_>, strategy: &str, lengths: &[usize]) -> Result<()> {
        let mut rows = Vec::new();
        if !self.output.json {
            say!("{:16} tokens  sequences      min ms   median ms    tokens/s", "strategy");
        }
        for (set, &tokens) in self.sets()?.into_iter().flat_map(|set| lengths.iter().map(move |n| (set, n))) {
            ensure!(tokens >= 3, "--seq {tokens}: a sequence to learn from has at least 3 tokens");
            let plan = computer_plan(&model, HeadKind::Classify, parse_strategy(strategy)?, 2, tokens);
            let mut arena = AlignedBytes::zeroed(plan.bytes());
            let task = Task::classify(&["no", "yes"]);
            let mut tuner = Tuner::with(model, arena.as_mut_slice(), plan, task, Settings::default(), set)?;
            let text = "the ".repeat(tokens - 2);
            let mut refused = None;
            let times = repeat(Duration::from_secs_f64(self.seconds), || {
                for index in 0..self.batch {
                    refused = tuner.learn(text.as_str().into(), Target::Class(index % 2)).err().or(refused);
                }
                black_box(tuner.step());
            });
            if let Some(error) = refused {
                return Err(error.into());
            }
            let (min, median) = (times[0] * 1e3, times[times.len() / 2] * 1e3);
            let rate = (tokens * self.batch) as f64 / median * 1e3;
            if !self.output.json {
                say!("{strategy:16} {tokens:6} {:10} {min:11.2} {median:11.2} {rate:11.0}", self.batch);
            }
            rows.push(json!({"strategy": strategy, "kernels": set.name, "seq": tokens, "batch": self.batch, "ms": min,
                             "median_ms": median, "tokens_per_second": rate, "arena_bytes": plan.bytes(),
                             "steps": times.len()}));
        }
        if self.output.json {
            say!("{}", Value::from(rows));
        }
        Ok(())
    }

    /// Times 64 sequences, the longest sixteen times the shortest, on one thread and on `threads`.
    fn batch(&self, model: Model<'_>, set: &'static KernelSet, threads: usize) -> Result<Value> {
        let config = model.config();
        let longest = config.max_position_embeddings.min(128);
        let lengths = (0..64).map(|index| longest * (1 + index * 7 % 16) / 16);
        let sequences: Vec<Vec<Token>> = lengths.map(|n| sequence(n, config.vocab_size)).collect();
        let plan = Plan::with_block_rows(config, longest, self.rows.unwrap_or(32)).for_model(&model);
        let one = Batch::with(model, plan, 1, set)?;
        let many = Batch::with(model, plan, threads, set)?;
        let run = |batch: &Batch<'_>| {
            let answers = batch.answers(&sequences, |session, tokens| answer(session, tokens));
            black_box(answers.iter().all(Result::is_ok))
        };
        // In turn, so that whatever else the machine does falls on both.
        let (mut single, mut several) = (Vec::new(), Vec::new());
        let begin = Instant::now();
        while single.len() < 3 || begin.elapsed().as_secs_f64() < 2.0 * self.seconds {
            for (batch, times) in [(&one, &mut single), (&many, &mut several)] {
                let start = Instant::now();
                ensure!(run(batch), "a sequence of the batch was refused");
                times.push(start.elapsed().as_secs_f64());
            }
        }
        let min = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
        let (single, several) = (min(&single), min(&several));
        let ratio = single / several;
        if !self.output.json {
            say!(
                "64 sequences of {} to {longest} tokens: {:.1} ms on one thread, {:.1} ms on {}: {ratio:.2} ×",
                longest / 16,
                single * 1e3,
                several * 1e3,
                many.threads()
            );
        }
        Ok(json!({"sequences": 64, "one_thread_ms": single * 1e3, "threads": many.threads(),
                  "threads_ms": several * 1e3, "ratio": ratio}))
    }

    /// Times each primitive on ELECTRA-small's shapes.
    fn primitives(&self, set: &KernelSet, peak: f64) -> Result<Vec<Value>> {
        let mut rows = Vec::new();
        let budget = Duration::from_secs_f64(self.seconds / 4.0);
        for (n, inputs, outputs) in [
            (128, 256, 1024),
            (128, 1024, 256),
            (128, 256, 256),
            (8, 256, 1024),
            (1, 256, 1024),
            (128, 64, 128),
        ] {
            let activations: Vec<i8> = (0..n * inputs).map(|i| (i * 37 % 251) as i8).collect();
            let scales = vec![RowScale { scale: 0.01, zero_point: 3 }; n];
            let tiles = vec![Tile([[3; 8]; 16]); outputs / 16 * inputs / 8];
            let channels =
                vec![Channels { scale: [0.1; 16], bias: [1.0; 16], column_sum: [9; 16] }; outputs / 16];
            let mut out = vec![0.0; n * outputs];
            let times = repeat(budget, || {
                set.matmul(black_box(Matmul {
                    rows: &activations,
                    row_scales: &scales,
                    tiles: &tiles,
                    channels: &channels,
                    out: &mut out,
                    width: outputs,
                }));
            });
            let rate = (n * inputs * outputs) as f64 / times[0];
            if !self.output.json {
                say!(
                    "matmul {n:4} × {inputs:4} → {outputs:4} {:9.2} µs {:8.1} GOP/s {:6.1} %",
                    times[0] * 1e6,
                    rate * 2e-9,
                    rate / peak * 100.0
                );
            }
            rows.push(json!({"primitive": "matmul", "rows": n, "inputs": inputs, "outputs": outputs,
                             "microseconds": times[0] * 1e6, "share_of_peak": rate / peak}));
        }
        let x: Vec<f32> = (0..1024).map(|i| ((i * 37 % 251) as f32 - 125.0) * 0.02).collect();
        let (weight, bias) = (vec![1.0; 256], vec![0.0; 256]);
        let norm = LayerNorm { weight: &weight, bias: &bias, epsilon: 1e-12 };
        let mut y = x.clone();
        let mut q = vec![0i8; 1024];
        let mut line =
            |name: &str, elements: usize, run: &mut dyn FnMut(&mut [f32], &mut [i8])| -> Result<()> {
                let times = repeat(budget / 4, || {
                    y.copy_from_slice(&x);
                    for _ in 0..20 {
                        run(black_box(&mut y[..elements]), black_box(&mut q[..elements]));
                    }
                });
                let nanoseconds = times[0] / 20.0 / elements as f64 * 1e9;
                if !self.output.json {
                    say!("{name:20} {elements:5} elements {nanoseconds:8.3} ns each");
                }
                rows.push(json!({"primitive": name, "elements": elements, "nanoseconds_each": nanoseconds}));
                Ok(())
            };
        line("gelu", 1024, &mut |y, _| (set.gelu)(y))?;
        line("attention_weights", 128, &mut |y, q| {
            black_box((set.attention_weights)(y, &weight[..128], q));
        })?;
        line("add_and_norm", 256, &mut |y, _| (set.add_and_norm)(y, &bias, &norm))?;
        line("quantize", 256, &mut |y, q| {
            black_box((set.quantize)(y, &weight, q));
        })?;
        line("quantize", 1024, &mut |y, q| {
            black_box((set.quantize)(y, &[], q));
        })?;
        line("quantize_symmetric", 64, &mut |y, q| {
            black_box((set.quantize_symmetric)(y, q));
        })?;
        Ok(rows)
    }
}

/// One number of the RTD head's answer, or of the hidden states of a model without that head.
fn answer(session: &mut Session<'_, '_>, tokens: &[Token]) -> Result<f32, electret::Error> {
    let values = match session.model().head(HeadKind::Detect) {
        Ok(_) => session.token_logits_of(HeadKind::Detect, tokens)?.logits,
        Err(_) => session.hidden_states_of(tokens)?,
    };
    Ok(values[0])
}

/// Tokens that are spread over the vocabulary.
fn sequence(tokens: usize, vocab_size: usize) -> Vec<Token> {
    let mut tokens = vec![Token::default(); tokens];
    for (index, token) in tokens.iter_mut().enumerate() {
        token.id = (index * 7919 % vocab_size) as u32;
    }
    tokens
}

/// Multiply-accumulates a second of a set's own instruction: the best of many short spans.
fn peak(set: &KernelSet) -> f64 {
    let times = repeat(Duration::from_millis(300), || {
        black_box((set.peak)(black_box(20_000)));
    });
    (set.peak)(20_000) as f64 / times[0]
}

/// Seconds of each run, sorted; at least three runs.
fn repeat(budget: Duration, mut run: impl FnMut()) -> Vec<f64> {
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || begin.elapsed() < budget {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times
}
