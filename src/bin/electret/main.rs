//! The `electret` command. One file a verb; answers go to stdout, logs and progress to stderr.
#![deny(unsafe_code)]

/// `println!` that reports a closed pipe instead of panicking.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout(), $($text)*)?;
    }};
}

mod ask;
mod bench;
#[cfg(feature = "board")]
mod board;
mod convert;
#[cfg(feature = "train")]
mod corpus;
#[cfg(feature = "train")]
mod device;
mod evaluate;
#[cfg(feature = "train")]
mod export;
#[cfg(feature = "train")]
mod finetune;
#[cfg(feature = "train")]
mod heldout;
mod inspect;
mod merge;
mod plan;
#[cfg(feature = "train")]
mod pretrain;
mod tune;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use electret::ElectraConfig;
use electret::tune::store::replaceable;
use electret::weights::AlignedBytes;

/// ELECTRA that stays on the device: ask, convert, check and train int8 and int4 models.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Detect(ask::Detect),
    Classify(ask::Classify),
    Tag(ask::Tag),
    Embed(ask::Embed),
    Answer(ask::Answer),
    Convert(convert::Convert),
    Verify(convert::Verify),
    Inspect(inspect::Inspect),
    Kernels(inspect::Kernels),
    Plan(plan::PlanVerb),
    Bench(bench::Bench),
    Tune(tune::Tune),
    Merge(merge::Merge),
    Evaluate(evaluate::Evaluate),
    #[cfg(feature = "board")]
    Board(board::Board),
    #[cfg(feature = "train")]
    Corpus(corpus::CorpusVerb),
    #[cfg(feature = "train")]
    Pretrain(pretrain::Pretrain),
    #[cfg(feature = "train")]
    Finetune(finetune::Finetune),
    #[cfg(feature = "train")]
    Heldout(heldout::Heldout),
    #[cfg(feature = "train")]
    Export(export::Export),
}

/// Options that every verb has.
#[derive(Args)]
struct Output {
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// The model to use.
#[derive(Args)]
struct ModelFile {
    /// An .electret file; without it the model that is built into this command.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// What was learned on top of the model.
#[derive(Args, Default)]
struct AdapterFile {
    /// An .adapter file of this model, made by `electret tune`.
    #[arg(long, value_name = "FILE")]
    adapter: Option<PathBuf>,
}

impl AdapterFile {
    /// The file's bytes, where there is one.
    fn bytes(&self) -> Result<Option<AlignedBytes>> {
        self.adapter.as_deref().map(read_model).transpose()
    }
}

/// electret-tiny, so that the command runs from anywhere.
const BUILT_IN: &[u8] = include_bytes!("../../../models/electret-tiny.electret");

impl ModelFile {
    /// The file's bytes where a model may lie.
    fn bytes(&self) -> Result<AlignedBytes> {
        match &self.model {
            Some(path) => read_model(path),
            None => Ok(AlignedBytes::copy_of(BUILT_IN)),
        }
    }
}

/// The shape that `--preset` names.
fn preset(name: &str) -> Result<ElectraConfig> {
    ElectraConfig::preset(name).with_context(|| format!("--preset {name}: {}", ElectraConfig::PRESETS))
}

fn read_model(path: &Path) -> Result<AlignedBytes> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(AlignedBytes::copy_of(&bytes))
}

/// Whether a file can be written there, before hours of work.
fn check_out(out: &Path) -> Result<()> {
    let folder = out.is_dir() || out.as_os_str().as_encoded_bytes().ends_with(b"/");
    ensure!(!folder, "{}: a folder, where a file is to be written", out.display());
    let made = replaceable(out).and_then(|file| {
        let part = file.with_added_extension("part");
        std::fs::File::create(&part).and_then(|_| std::fs::remove_file(&part))
    });
    made.with_context(|| out.display().to_string())
}

/// Texts of the command line: one argument, or `-` for one a line from stdin. Calls `answer` for
/// each and stops at the first that cannot be read.
fn each_text(text: &str, mut answer: impl FnMut(&str) -> Result<()>) -> Result<()> {
    if text != "-" {
        return answer(text);
    }
    for (number, line) in std::io::stdin().lines().enumerate() {
        let line = line.with_context(|| format!("stdin, line {}: not UTF-8 text", number + 1))?;
        answer(&line).with_context(|| format!("stdin, line {}", number + 1))?;
    }
    Ok(())
}

/// Whether to use colours and bold.
fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn,electret=info"))
        .format_timestamp(None)
        .format_target(false)
        .init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let wrong_use = error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if wrong_use { 2 } else { 0 });
        }
    };
    let result = match cli.verb {
        Verb::Detect(verb) => verb.run(),
        Verb::Classify(verb) => verb.run(),
        Verb::Tag(verb) => verb.run(),
        Verb::Embed(verb) => verb.run(),
        Verb::Answer(verb) => verb.run(),
        Verb::Convert(verb) => verb.run(),
        Verb::Verify(verb) => verb.run(),
        Verb::Inspect(verb) => verb.run(),
        Verb::Kernels(verb) => verb.run(),
        Verb::Plan(verb) => verb.run(),
        Verb::Bench(verb) => verb.run(),
        Verb::Tune(verb) => verb.run(),
        Verb::Merge(verb) => verb.run(),
        Verb::Evaluate(verb) => verb.run(),
        #[cfg(feature = "board")]
        Verb::Board(verb) => verb.run(),
        #[cfg(feature = "train")]
        Verb::Corpus(verb) => verb.run(),
        #[cfg(feature = "train")]
        Verb::Pretrain(verb) => verb.run(),
        #[cfg(feature = "train")]
        Verb::Finetune(verb) => verb.run(),
        #[cfg(feature = "train")]
        Verb::Heldout(verb) => verb.run(),
        #[cfg(feature = "train")]
        Verb::Export(verb) => verb.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("electret: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever read our output has read enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.into_iter().any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
