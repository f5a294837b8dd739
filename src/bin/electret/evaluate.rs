//! The tasks' metrics of a model in any form, and of two models side by side.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
#[cfg(feature = "board")]
use electret::board::{BoardReader, Emulator};
use electret::evaluate::{Answers, Difference, LabelNames, Labelled, Metric, ReferenceReader};
use electret::import::{Checkpoint, write_atomically};
use electret::tune::COMPUTER_BLOCK_ROWS;
use electret::weights::AlignedBytes;
use electret::{Adapter, ElectraConfig, HeadKind, Model, Plan, Session, kernels};
use serde_json::json;

use super::convert::open_source;
use super::{AdapterFile, ModelFile, Output, read_model};

/// A model's score on labelled examples, with the 95 % interval of a bootstrap.
///
/// A Hugging Face folder is examined in f32, an .electret as it runs on a device.
///
/// Example: electret evaluate --model intents.electret --data test.tsv --against intents-folder/
#[derive(Args)]
pub struct Evaluate {
    #[command(flatten)]
    model: ModelFile,
    #[command(flatten)]
    adapter: AdapterFile,
    /// A board instead of a model: a serial port, or the name of an emulated board, with what it has in its flash; texts
    /// have at most 1,000 bytes there.
    #[cfg(feature = "board")]
    #[arg(long, value_name = "PLACE", conflicts_with_all = ["model", "adapter", "seq"])]
    board: Option<String>,
    /// Bits a second of the board's serial port; its `src/main.rs` says how many it speaks.
    #[cfg(feature = "board")]
    #[arg(long, default_value_t = super::board::BAUD, requires = "board")]
    baud: u32,
    /// Examples: .tsv, .conll or SQuAD .json.
    #[arg(long)]
    data: PathBuf,
    /// Longest sequence in tokens; what is longer loses its end, a question's context is read in windows. Without it the model's longest.
    #[arg(long)]
    seq: Option<usize>,
    /// Another model, .electret or folder, to compare with on the same examples (paired bootstrap).
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// A file for the answers, as GLUE takes them in: index, prediction.
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Evaluate {
    pub fn run(&self) -> Result<()> {
        let adapter = self.adapter.bytes()?;
        let mut own = self.examinee()?;
        let kind = Labelled::kind_of(&self.data)?;
        let data = Labelled::read(&self.data, LabelNames::First(own.labels(adapter.as_ref(), kind)?))?;
        let answers = own.answers(adapter.as_ref(), &data, self.seq)?;
        ensure!(!answers.is_empty(), "{}: no example has a token to answer from", self.data.display());
        if let Some(path) = &self.predictions {
            let lines = answers.predictions().context("--predictions: GLUE has no words or spans")?;
            write_atomically(path, lines.as_bytes()).with_context(|| path.display().to_string())?;
        }
        let differences = match &self.against {
            Some(path) => {
                let mut other = Examinee::at(path)?;
                let theirs = other.labels(None, kind)?;
                ensure!(
                    !data.kind.has_label_names() || data.labels.starts_with(&theirs),
                    "{}: its labels are {}, not {}",
                    path.display(),
                    theirs.join(", "),
                    data.labels.join(", ")
                );
                Some(answers.against(&other.answers(None, &data, self.seq)?))
            }
            None => None,
        };
        self.say(&data, &answers.metrics(), differences.as_deref())
    }

    fn examinee(&self) -> Result<Examinee> {
        #[cfg(feature = "board")]
        if let Some(place) = &self.board {
            let (emulator, client) = super::board::Line::at(place, self.baud).connect()?;
            let reader = BoardReader::new(client).with_context(|| place.clone())?;
            return Ok(Examinee::Board { reader, _emulator: emulator });
        }
        match &self.model.model {
            Some(path) => Examinee::at(path),
            None => Ok(Examinee::Int8(self.model.bytes()?)),
        }
    }

    fn say(&self, data: &Labelled, metrics: &[Metric], differences: Option<&[Difference]>) -> Result<()> {
        if self.output.json {
            let row = json!({ "task": data.kind.name(), "metrics": metrics, "differences": differences });
            say!("{row}");
            return Ok(());
        }
        for Metric { metric, value, low, high, n } in metrics {
            say!("{metric:12} {value:.4}  ({low:.4} to {high:.4}, {n} examples)");
        }
        for Difference { metric, difference, low, high, p } in differences.unwrap_or_default() {
            say!("{metric:12} {difference:+.4}  ({low:+.4} to {high:+.4}, p {p:.3}) against the other");
        }
        Ok(())
    }
}

/// A model that is examined.
enum Examinee {
    Int8(AlignedBytes),
    F32(Box<Checkpoint>),
    #[cfg(feature = "board")]
    Board {
        reader: BoardReader,
        _emulator: Option<Emulator>,
    },
}

impl Examinee {
    fn at(path: &Path) -> Result<Self> {
        let foreign = path.is_dir() || path.extension().is_some_and(|extension| extension == "onnx");
        if foreign { Ok(Self::F32(Box::new(open_source(path)?))) } else { Ok(Self::Int8(read_model(path)?)) }
    }

    /// The labels of the head that answers a task: the adapter's, or the model's own; none without either.
    fn labels(&self, adapter: Option<&AlignedBytes>, kind: HeadKind) -> Result<Vec<String>> {
        match self {
            Self::Int8(bytes) => {
                let model = Model::open(bytes.as_slice())?;
                let adapter = adapter.map(|file| Adapter::open(file.as_slice(), &model)).transpose()?;
                Ok(known_labels(&model, adapter, kind))
            }
            Self::F32(checkpoint) => {
                let head = checkpoint.heads.iter().find(|head| head.kind == kind);
                Ok(head.map_or_else(Vec::new, |head| head.labels.clone()))
            }
            #[cfg(feature = "board")]
            Self::Board { reader, .. } => Ok(reader.labels().to_vec()),
        }
    }

    fn answers<'d>(
        &mut self,
        adapter: Option<&AlignedBytes>,
        data: &'d Labelled,
        asked: Option<usize>,
    ) -> Result<Answers<'d>> {
        match self {
            Self::Int8(bytes) => {
                let model = Model::open(bytes.as_slice())?;
                let adapter = adapter.map(|file| Adapter::open(file.as_slice(), &model)).transpose()?;
                answers(model, adapter, data, tokens(model.config(), asked, usize::MAX)?)
            }
            Self::F32(checkpoint) => {
                ensure!(adapter.is_none(), "--adapter belongs to an .electret, not to a folder");
                let tokens = tokens(&checkpoint.config, asked, usize::MAX)?;
                Ok(Answers::of(&mut ReferenceReader::new(checkpoint, tokens), data)?)
            }
            #[cfg(feature = "board")]
            Self::Board { reader, .. } => {
                let single = data.examples.iter().all(|example| example.input().pair.is_none());
                ensure!(
                    data.kind == HeadKind::Classify && single,
                    "--board: a board is examined on labels of single texts"
                );
                let answers = Answers::of(reader, data);
                answers.map_err(|error| reader.failure().map_or(error.into(), Into::into))
            }
        }
    }
}

/// What an int8 model answers to the examples of a file.
pub fn answers<'d>(
    model: Model<'_>,
    adapter: Option<Adapter<'_>>,
    data: &'d Labelled,
    tokens: usize,
) -> Result<Answers<'d>> {
    let plan = Plan::with_block_rows(model.config(), tokens, COMPUTER_BLOCK_ROWS).for_model(&model);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let session = Session::with(model, arena.as_mut_slice(), plan, kernels::best())?;
    Ok(Answers::of(&mut session.with_adapter(adapter)?, data)?)
}

/// The labels of the head that answers a task: the adapter's, or the model's own; none without either.
pub fn known_labels(model: &Model<'_>, adapter: Option<Adapter<'_>>, kind: HeadKind) -> Vec<String> {
    match adapter.filter(|adapter| adapter.kind == kind) {
        Some(adapter) => adapter.labels.iter().map(str::to_owned).collect(),
        None => {
            let head = model.head(kind).ok().into_iter();
            head.flat_map(|head| head.labels.iter()).map(|label| label.as_str().to_owned()).collect()
        }
    }
}

/// --seq, or what the model takes but no more than `most`.
pub fn tokens(config: &ElectraConfig, asked: Option<usize>, most: usize) -> Result<usize> {
    let limit = config.max_position_embeddings;
    let tokens = asked.unwrap_or(limit.min(most));
    ensure!((4..=limit).contains(&tokens), "--seq {tokens}: this model takes 4 to {limit} tokens");
    Ok(tokens)
}
