//! What a run has reached so far: `curve.tsv`, one line of means every few steps, and what TensorBoard and the
//! report show of it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Tensor, backend::Backend};

use super::masked::Masked;
use super::objective::{Judged, Shown};
use super::optimizer::scalar;
use super::ranks::Ranks;
use super::tensorboard::Events;
use super::weights::host_values;
use crate::evaluate::roc_auc;
use crate::import::write_atomically;

/// Tokens whose judgement is remembered for the curve's areas and shares, and for the report's sentences.
const REMEMBERED: usize = 1 << 16;

/// The columns of `curve.tsv`, in the order of [`Row`]'s fields.
pub const COLUMNS: [&str; 10] = [
    "step",
    "mlm_loss",
    "disc_loss",
    "generator_accuracy",
    "rtd_auc",
    "rtd_precision",
    "rtd_recall",
    "gradient_norm",
    "learning_rate",
    "tokens_per_second",
];

/// One line of the curve: means since the line before. What an objective has not is NaN.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Steps done.
    pub step: usize,
    /// The values under [`COLUMNS`] after the first.
    pub values: [f64; 9],
}

/// The curve of a run, being drawn.
pub struct Curve<B: Backend> {
    files: Option<(File, PathBuf, Events)>,
    since: Instant,
    steps: usize,
    tokens: usize,
    sums: [Option<Tensor<B, 1>>; 3],
    norm: Option<Tensor<B, 1>>,
    remembered: VecDeque<(Masked, Judged<B>)>,
}

/// One judged token on the host.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// What stood there.
    pub original: u32,
    /// What the discriminator read.
    pub read: u32,
    /// Its logit that the token was replaced.
    pub logit: f32,
}

impl<B: Backend> Curve<B> {
    /// A curve that is summed up and not written, as ranks other than the first do.
    pub fn unwritten() -> Self {
        Self {
            files: None,
            since: Instant::now(),
            steps: 0,
            tokens: 0,
            sums: [None, None, None],
            norm: None,
            remembered: VecDeque::new(),
        }
    }

    /// Opens the curve of a folder, without the lines after `step`, which a resumed run writes again.
    pub fn open(folder: &Path, step: usize) -> Result<Self> {
        let path = folder.join("curve.tsv");
        let old = if path.exists() { read(&path)? } else { Vec::new() };
        // A curve that was damaged does not keep whole weights from being trained further.
        let readable = old.into_iter().map_while(|row| {
            row.inspect_err(|error| log::warn!("{error:#}; the curve goes on at step {step}")).ok()
        });
        let kept = readable.filter(|row| row.step <= step).map(|row| line(&row));
        let text: String = std::iter::once(COLUMNS.join("\t") + "\n").chain(kept).collect();
        write_atomically(&path, text.as_bytes()).with_context(|| path.display().to_string())?;
        let file = OpenOptions::new().append(true).open(&path).with_context(|| path.display().to_string())?;
        Ok(Self { files: Some((file, path, Events::create(folder, step)?)), ..Self::unwritten() })
    }

    /// Takes in a step: its parts with what they showed, and its gradient's norm.
    pub fn add(&mut self, parts: Vec<(Masked, Shown<B>)>, norm: Tensor<B, 1>) {
        if self.steps == 0 {
            self.remembered.clear();
        }
        self.steps += 1;
        self.norm = Some(norm);
        for (part, Shown { mlm_loss, generator_accuracy, discriminator }) in parts {
            self.tokens += part.tokens();
            let disc_loss = discriminator.as_ref().map(|judged| judged.loss.clone());
            for (sum, value) in
                self.sums.iter_mut().zip([Some(mlm_loss), disc_loss, Some(generator_accuracy)])
            {
                *sum = match (sum.take(), value) {
                    (Some(sum), Some(value)) => Some(sum + value),
                    (sum, value) => sum.or(value),
                };
            }
            if let Some(judged) = discriminator.filter(|judged| judged.logits.is_some()) {
                self.remembered.push_back((part, judged));
            }
        }
        let held = |parts: &VecDeque<(Masked, Judged<B>)>| {
            parts.iter().map(|(part, _)| part.tokens()).sum::<usize>()
        };
        while self.remembered.len() > 1 && held(&self.remembered) > REMEMBERED {
            self.remembered.pop_front();
        }
    }

    /// Writes a line of means over the steps since the last one: of all ranks' parts, but for what is remembered, which
    /// is the first rank's.
    ///
    /// # Errors
    /// A gradient that is no longer finite, with what to do; what a disk says.
    pub fn report(&mut self, step: usize, learning_rate: f64, ranks: &dyn Ranks) -> Result<Row> {
        let mut summed = [self.tokens as f32, 0.0, 0.0, 0.0];
        for (value, sum) in summed[1..].iter_mut().zip(&mut self.sums) {
            *value = sum.take().map_or(f32::NAN, scalar) / self.steps as f32;
        }
        ranks.sum(&mut summed);
        let [tokens, mlm, disc, accuracy] = summed.map(f64::from);
        let norm = self.norm.take().map_or(f64::NAN, |norm| f64::from(scalar(norm)));
        ensure!(
            norm.is_finite(),
            "step {step}: the gradient is no longer finite; the last checkpoint is from before. Lower \
             adam.learning_rate, or warm up longer, and start again in another folder with --init-from"
        );
        let verdicts = self.verdicts(usize::MAX)?.concat();
        let logits: Vec<f32> = verdicts.iter().map(|verdict| verdict.logit).collect();
        let replaced: Vec<bool> = verdicts.iter().map(|verdict| verdict.original != verdict.read).collect();
        let suspected = logits.iter().filter(|&&logit| logit > 0.0).count() as f64;
        let found =
            logits.iter().zip(&replaced).filter(|(logit, replaced)| **logit > 0.0 && **replaced).count();
        let all = replaced.iter().filter(|&&replaced| replaced).count() as f64;
        let row = Row {
            step,
            values: [
                mlm,
                disc,
                accuracy,
                roc_auc(&logits, &replaced).unwrap_or(f64::NAN),
                found as f64 / suspected,
                found as f64 / all,
                norm,
                learning_rate,
                tokens / self.since.elapsed().as_secs_f64(),
            ],
        };
        if let Some((file, path, events)) = &mut self.files {
            file.write_all(line(&row).as_bytes()).with_context(|| path.display().to_string())?;
            events.add(&row)?;
        }
        (self.steps, self.tokens, self.since) = (0, 0, Instant::now());
        Ok(row)
    }

    /// The judged sentences since the last line but one, newest parts first, at most so many.
    pub fn verdicts(&self, sentences: usize) -> Result<Vec<Vec<Verdict>>> {
        let mut found = Vec::new();
        for (part, judged) in self.remembered.iter().rev() {
            let Some(logits) = &judged.logits else { continue };
            let logits = host_values(logits.to_data(), "logits")?;
            let read = judged.corrupted.clone().into_data().iter::<i64>().collect::<Vec<_>>();
            for row in part.rows() {
                if found.len() == sentences {
                    return Ok(found);
                }
                let verdict = |at: usize| Verdict {
                    original: part.originals()[at] as u32,
                    read: read[at] as u32,
                    logit: logits[at],
                };
                found.push(row.map(verdict).collect());
            }
        }
        Ok(found)
    }
}

fn line(row: &Row) -> String {
    let values: String = row.values.iter().map(|value| format!("\t{value:.6}")).collect();
    format!("{}{values}\n", row.step)
}

/// The lines of a run's `curve.tsv`.
///
/// # Errors
/// A line that has other columns, by its number.
pub fn rows(folder: &Path) -> Result<Vec<Row>> {
    read(&folder.join("curve.tsv"))?.into_iter().collect()
}

/// The lines of a curve, or what is wrong with each.
fn read(path: &Path) -> Result<Vec<Result<Row>>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let parse = |(index, line): (usize, &str)| {
        let mut fields = line.split('\t');
        let step = fields.next().and_then(|field| field.parse().ok());
        let values: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
        let row = step.zip(values.try_into().ok()).map(|(step, values)| Row { step, values });
        row.with_context(|| format!("{}: line {} is no line of a curve", path.display(), index + 1))
    };
    // What a crash left of the last line is not a line yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    Ok(whole.lines().enumerate().skip(1).map(parse).collect())
}
