//! Hugging Face folder or ONNX → `.electret`, and the proof that nothing was lost.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use electret::Model;
use electret::import::{Checkpoint, write_atomically};
use electret::quantize::{Fitted, Recipe, Sensitivity, fit, quantize_by, verify};
use serde_json::json;

use super::{ModelFile, Output, check_out};

/// Hugging Face folder or ONNX file → .electret.
///
/// Example: electret convert electra-small/ -o small.electret --licence Apache-2.0
#[derive(Args)]
pub struct Convert {
    /// Folder with config.json, vocab.txt and safetensors or model.npz; or an .onnx file with vocab.txt beside it.
    source: PathBuf,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output_file: PathBuf,
    /// Where the weights come from; kept in the file.
    #[arg(long, default_value = "")]
    from: String,
    /// Their licence; kept in the file.
    #[arg(long, default_value = "unknown")]
    licence: String,
    #[command(flatten)]
    weights: WeightsOptions,
    /// As little in int4 as makes the file that small, such as 8MB: what each matrix costs is measured.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "weights")]
    fit: Option<usize>,
    /// Text like that which the model will read, one sentence a line: int4 is fitted to it.
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// At most this many lines of it.
    #[arg(long, default_value_t = 256)]
    lines: usize,
    #[command(flatten)]
    output: Output,
}

/// How weights are stored.
#[derive(Args)]
pub struct WeightsOptions {
    /// int8, or int4 for the word embeddings and the layers, of what is converted; a model keeps its own.
    #[arg(long, value_enum, default_value_t)]
    pub weights: Weights,
}

/// Bits of a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// 8, with a scale a channel.
    #[default]
    Int8,
    /// 4, with a multiplier of the channel's scale every 32 inputs.
    Int4,
}

impl Weights {
    /// The recipe for all of a checkpoint.
    pub fn recipe(self, checkpoint: &Checkpoint, calibration: Vec<String>) -> Recipe {
        let recipe = match self {
            Self::Int8 => Recipe::default(),
            Self::Int4 => Recipe::all_int4(checkpoint),
        };
        Recipe { calibration, ..recipe }
    }
}

/// A quantised model beside its f32 source: cosine, errors and decisions, layer by layer.
///
/// Example: electret verify --model small.electret --against electra-small/ --text sentences.txt
#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    model: ModelFile,
    /// The folder or .onnx file that the model was converted from.
    #[arg(long, value_name = "SOURCE")]
    against: PathBuf,
    /// One sentence a line; without it a few built-in sentences.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// At most this many lines.
    #[arg(long, default_value_t = 1000)]
    lines: usize,
    /// Also a page with the errors of each layer and the decisions that changed.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

const SENTENCES: &str = include_str!("sentences.txt");

/// A folder's weights, or those of an ONNX file, which `tract` then has run as a second oracle.
pub fn open_source(source: &Path) -> Result<Checkpoint> {
    if source.extension().is_none_or(|extension| extension != "onnx") {
        return Ok(Checkpoint::open(source)?);
    }
    #[cfg(not(feature = "onnx"))]
    anyhow::bail!("{}: this command was built without ONNX; build it with --features onnx", source.display());
    #[cfg(feature = "onnx")]
    {
        let (checkpoint, agreement) = Checkpoint::open_onnx(source)?;
        log::info!(
            "the graph run by tract and the weights read from it: relative error {:.1e}, largest difference {:.1e}",
            agreement.relative_error,
            agreement.largest
        );
        Ok(checkpoint)
    }
}

/// What each matrix costs in int4, and which had to be.
fn say_costs(fitted: &Fitted) -> Result<()> {
    say!(
        "relative error of the last hidden states: {:.5} in int8; with one matrix in int4",
        fitted.int8_error
    );
    for Sensitivity { matrix, saved, relative_error, int4 } in &fitted.matrices {
        let chosen = if *int4 { "int4" } else { "int8" };
        say!("  {chosen}  {relative_error:.5}  {saved:>9} bytes saved  {matrix}");
    }
    Ok(())
}

/// Bytes, as a number or with kB, MB, KiB or MiB behind it.
fn parse_bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        _ => return Err(format!("{unit}: kB, MB, KiB or MiB")),
    };
    let number: f64 = number.trim().parse().map_err(|_| "a number of bytes, such as 8MB".to_owned())?;
    if number > 0.0 { Ok((number * factor) as usize) } else { Err("more than nothing".to_owned()) }
}

/// The first lines of a text.
fn lines(path: &Path, count: usize) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.lines().take(count).map(str::to_owned).collect())
}

impl Convert {
    /// The lines to calibrate on.
    fn calibration(&self) -> Result<Vec<String>> {
        let Some(path) = &self.calibrate else { return Ok(Vec::new()) };
        ensure!(
            self.fit.is_some() || self.weights.weights == Weights::Int4,
            "--calibrate: int8 needs no text; it is for --weights int4 and --fit"
        );
        let mut found = lines(path, usize::MAX)?;
        found.retain(|line| !line.trim().is_empty());
        found.truncate(self.lines);
        ensure!(!found.is_empty(), "{}: not a line with text to calibrate on", path.display());
        Ok(found)
    }

    pub fn run(&self) -> Result<()> {
        check_out(&self.output_file)?;
        let checkpoint = open_source(&self.source)?;
        let calibration = self.calibration()?;
        let (from, licence) = (&self.from, &self.licence);
        let (file, matrices) = match self.fit {
            Some(budget) => {
                let fitted = fit(&checkpoint, from, licence, &calibration, budget)?;
                if !self.output.json {
                    say_costs(&fitted)?;
                }
                (fitted.file, fitted.matrices)
            }
            None => {
                let recipe = self.weights.weights.recipe(&checkpoint, calibration);
                (quantize_by(&checkpoint, from, licence, &recipe)?, Vec::new())
            }
        };
        write_atomically(&self.output_file, &file).with_context(|| self.output_file.display().to_string())?;
        let heads: Vec<&str> = checkpoint.heads.iter().map(|head| head.kind.name()).collect();
        if self.output.json {
            say!("{}", json!({"bytes": file.len(), "heads": heads, "matrices": matrices}));
        } else {
            say!("{}: {} bytes, heads: {}", self.output_file.display(), file.len(), heads.join(", "));
        }
        Ok(())
    }
}

impl Verify {
    pub fn run(&self) -> Result<()> {
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let checkpoint = open_source(&self.against)?;
        let texts = match &self.text {
            Some(path) => lines(path, self.lines)?,
            None => SENTENCES.lines().take(self.lines).map(str::to_owned).collect(),
        };
        let report =
            verify(model, &checkpoint, &texts).with_context(|| self.against.display().to_string())?;
        ensure!(report.sentences > 0, "not a line with text to compare on");
        if let Some(path) = &self.report {
            let page = report.page(model.root().provenance.name.as_str());
            write_atomically(path, page.as_bytes()).with_context(|| path.display().to_string())?;
        }
        if self.output.json {
            say!("{}", serde_json::to_string(&report)?);
            return Ok(());
        }
        say!("{} sentences, {} tokens", report.sentences, report.tokens);
        say!("sentence cosine   min {:.6}  mean {:.6}", report.min_cosine, report.mean_cosine);
        for (index, layer) in report.layers.iter().enumerate() {
            let name = if index == 0 { "embeddings".to_owned() } else { format!("layer {index}") };
            say!(
                "{name:12} min cosine {:.6}  relative error {:.5}  largest {:.4}",
                layer.min_cosine,
                layer.relative_error,
                layer.max_abs_error
            );
        }
        for head in &report.heads {
            say!(
                "{:12} {:.4} of {} decisions agree, largest logit error {:.4}",
                head.head,
                head.agreement,
                head.decisions,
                head.max_abs_error
            );
        }
        Ok(())
    }
}
