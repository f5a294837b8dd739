//! Boards: their firmware, and what one asks of it over a serial line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use electret::board::{
    BOARDS, Board as Known, Client, Clock, Emulator, Firmware, OVER_THE_LINE, Place, build, flash, update,
};
use electret::evaluate::{Example, LabelNames, Labelled};
use electret::kernels::lanes::sigmoid;
use electret::link::{Answer, Command, Install, Lesson, Truth};
use electret::text::Token;
use electret::tune::Target;
use electret::weights::AlignedBytes;
use electret::{HeadKind, Model, Plan, Session};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::ask::{show_detection, show_labels};
use super::{ModelFile, Output, each_text};

/// Builds, runs, flashes and talks to boards.
///
/// Example: electret board run qemu-mps3-an547
#[derive(Args)]
pub struct Board {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    List(List),
    Build(Build),
    Run(Run),
    Flash(Flash),
    Talk(Talk),
    Update(Update),
}

/// Which boards are there?
#[derive(Args)]
struct List {
    #[command(flatten)]
    output: Output,
}

const BOARDS_FOLDER: &str = "boards";
pub const BAUD: u32 = 115_200;
const TIMEOUT: u64 = 60;
/// Seconds in which a board on a desk says who it is, a large model looked through.
const FIRST_TIMEOUT: u64 = 20;

/// Where the firmware is.
#[derive(Args)]
struct Source {
    /// The folder boards of a clone of electret.
    #[arg(long, default_value = BOARDS_FOLDER, value_name = "FOLDER")]
    boards: PathBuf,
    /// Public key, 64 hexadecimal digits, of those whose updates this firmware takes; without it everybody's. Every build needs it.
    #[arg(long, value_name = "HEX")]
    key: Option<String>,
}

impl Source {
    fn build(&self, board: &Known) -> Result<Firmware> {
        let digits =
            |key: &String| key.len() == 64 && key.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        ensure!(self.key.as_ref().is_none_or(digits), "--key: 64 digits of 0 to 9 and a to f are expected");
        build(board, &self.boards, self.key.as_deref())
    }
}

/// Builds the firmware of a board and says what it weighs.
///
/// Example: electret board build qemu-mps2-an500
#[derive(Args)]
struct Build {
    /// The board, or all.
    board: String,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    output: Output,
}

/// Builds an emulated board, starts it and compares what it says with this computer.
///
/// Example: electret board run qemu-mps2-an500 --model small.electret
#[derive(Args)]
struct Run {
    /// The board.
    board: String,
    /// One text a line; without it ten sentences.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Also counts the instructions of a sequence of 32 tokens; everything takes longer.
    #[arg(long)]
    count: bool,
    #[command(flatten)]
    model: ModelFile,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    output: Output,
}

/// Flashes a board that is connected to a debug probe, with firmware and, where the probe reaches it, a model.
///
/// With the model all that the board has learned is erased; models of some boards go over their line instead.
///
/// Example: electret board flash rp2350
#[derive(Args)]
struct Flash {
    /// The board.
    board: String,
    /// Leaves models and what was learned as they are.
    #[arg(long, conflicts_with = "model")]
    firmware_only: bool,
    /// The program that talks to the debug probe.
    #[arg(long, value_name = "PROGRAM", default_value = "probe-rs")]
    probe_rs: PathBuf,
    #[command(flatten)]
    model: ModelFile,
    #[command(flatten)]
    source: Source,
}

/// Where a board listens.
#[derive(Args)]
pub struct Line {
    /// A serial port, such as /dev/ttyACM0 or COM3, or the name of an emulated board.
    place: String,
    /// Bits a second of a serial port; a board's `src/main.rs` says how many it speaks.
    #[arg(long, default_value_t = BAUD)]
    baud: u32,
    /// Seconds of silence after which a board is asked again.
    #[arg(long, default_value_t = TIMEOUT)]
    timeout: u64,
    /// The folder that is an emulated board's flash; without it one beside its firmware, NAME.run.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

/// Talks to a board over a serial line, or to an emulated one.
///
/// Example: electret board talk /dev/ttyACM0 detect "The cat sat on the banana."
#[derive(Args)]
struct Talk {
    #[command(flatten)]
    line: Line,
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    output: Output,
}

/// Sends another model, or an adapter, into the slot that does not run, and has it installed; goes on where an
/// earlier attempt stopped.
///
/// Example: electret board update /dev/ttyACM0 better.electret
#[derive(Args)]
struct Update {
    #[command(flatten)]
    line: Line,
    /// An .electret or .adapter file.
    file: PathBuf,
    /// The number under which an adapter is kept, in the place of what had it; it answers if that number is active.
    #[arg(long)]
    adapter: Option<u8>,
    /// An Ed25519 signature of the file, 64 bytes, for a board that wants one.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand)]
enum What {
    /// Who is there?
    Info,
    /// What memory has it, and how deep was the stack?
    Plan,
    /// Does the model give the logits that it was shipped with?
    SelfTest,
    /// How long takes a sequence of so many tokens?
    Bench {
        /// Tokens, special ones included.
        #[arg(default_value_t = 32)]
        tokens: u16,
    },
    /// Which words do not belong?
    Detect {
        /// The text, or - for one a line from stdin.
        text: String,
        /// Tokens at least so likely to be replaced are marked.
        #[arg(long, default_value_t = 0.5)]
        threshold: f32,
    },
    /// Which label has the text?
    Classify {
        /// The text, or - for one a line from stdin.
        text: String,
    },
    /// Which label has each word?
    Tag {
        /// The text, or - for one a line from stdin.
        text: String,
    },
    Learn(Learn),
    /// Which adapters are there?
    Adapters,
    /// Lets an adapter answer, or the model alone.
    Activate {
        /// Its number, or none.
        adapter: String,
    },
}

/// Learns examples and keeps what they taught, or nothing.
#[derive(Args)]
struct Learn {
    /// Examples: .tsv with a label and a text in each line, or .conll with a word and its tag.
    examples: PathBuf,
    /// The number to keep it under; it answers from then on.
    #[arg(long, default_value_t = 0)]
    adapter: u8,
    /// head, bias[:LAYERS], words:RANK, lora:RANK:LAYERS[:qkvaio or all], or several joined by +.
    #[arg(long, default_value = "head+lora:4:2")]
    strategy: String,
    /// Times that every example is learned.
    #[arg(long, default_value_t = 3)]
    epochs: u32,
    /// Examples a step.
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    /// Largest learning rate.
    #[arg(long, default_value_t = 2e-3)]
    learning_rate: f32,
}

impl Board {
    pub fn run(&self) -> Result<()> {
        match &self.verb {
            Verb::List(verb) => verb.run(),
            Verb::Build(verb) => verb.run(),
            Verb::Run(verb) => verb.run(),
            Verb::Flash(verb) => verb.run(),
            Verb::Talk(verb) => verb.run(),
            Verb::Update(verb) => verb.run(),
        }
    }
}

fn known(name: &str) -> Result<&'static Known> {
    Known::find(name).with_context(|| format!("{name}: no such board; electret board list names them"))
}

impl List {
    fn run(&self) -> Result<()> {
        for board in BOARDS {
            let place = if matches!(board.place, Place::Emulator(_)) { "QEMU" } else { "hardware" };
            if self.output.json {
                let Known { name, processor, target, .. } = board;
                say!("{}", json!({"name": name, "processor": processor, "target": target, "runs": place}));
            } else {
                say!("{:20} {:30} {:28} {place}", board.name, board.processor, board.target);
            }
        }
        Ok(())
    }
}

impl Build {
    fn run(&self) -> Result<()> {
        let all = self.board == "all";
        let boards: Vec<&Known> = if all { BOARDS.iter().collect() } else { vec![known(&self.board)?] };
        for board in boards {
            let firmware = self.source.build(board)?;
            if self.output.json {
                let path = firmware.path.display().to_string();
                say!(
                    "{}",
                    json!({"name": board.name, "elf": path, "flash": firmware.flash, "ram": firmware.ram})
                );
            } else {
                let kib = |bytes: u64| bytes as f64 / 1024.0;
                let Known { name, .. } = board;
                say!(
                    "{name:20} flash {:7.1} KiB, RAM without stack {:7.1} KiB",
                    kib(firmware.flash),
                    kib(firmware.ram)
                );
            }
        }
        Ok(())
    }
}

/// Tokens of the sequence whose instructions are counted.
const COUNTED: u16 = 32;

/// What an emulated board is asked when nothing else is said.
const SENTENCES: [&str; 10] = [
    "The cat sat on the banana and purred.",
    "He opened the door and walked table the room.",
    "The king lived in a large castle near the river.",
    "In 1969, two men walked on the moon.",
    "Rain fell all night, and the streets were full of purple.",
    "My sister plays the piano every evening after dinner.",
    "Zürich, naïve café: déjà vu!",
    "Water boils at a hundred degrees, said the sleeping.",
    "ok",
    "The train to the north leaves at noon, but nobody was on the soup.",
];

impl Run {
    fn run(&self) -> Result<()> {
        let board = known(&self.board)?;
        board.machine()?;
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let texts = match &self.text {
            None => SENTENCES.map(str::to_owned).to_vec(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                text.lines().map(str::to_owned).collect()
            }
        };
        let firmware = self.source.build(board)?;
        // Fresh, and not the one in which `talk` lets a board learn.
        let folder = firmware.path.with_extension("proof");
        let _ = std::fs::remove_dir_all(&folder);
        let file = &bytes.as_slice()[..model.bytes()];
        let clock = if self.count { Clock::Instructions } else { Clock::Time };
        let (_emulator, mut client) = Emulator::start(board, &firmware.path, &folder, Some(file), clock)?;
        introduce(&mut client, self.output.json)?;
        let test = client.ask(Command::SelfTest)?;
        ensure!(
            test.figure("same bits")? == 1,
            "the board's self-test gives other bits than the model was shipped with"
        );
        let tokens = client.ask(Command::Info)?.board()?.tokens.into();
        let mut arena =
            AlignedBytes::zeroed(Plan::inference(model.config(), tokens).for_model(&model).bytes());
        let mut session = Session::new(model, arena.as_mut_slice(), tokens)?;
        for text in &texts {
            let answers = client.ask(Command::Detect(text)).with_context(|| text.clone())?;
            let found = session.token_logits(HeadKind::Detect, text.as_str().into())?;
            let here = found.tokens.iter().zip(found.logits).filter(|(token, _)| token.special == 0);
            let here = here.map(|(token, logit)| (token.start, token.end, logit.to_bits()));
            let there = answers.iter().filter_map(|answer| match answer {
                Answer::Token { start, end, logit } => Some((start, end, logit.to_bits())),
                _ => None,
            });
            ensure!(here.eq(there), "{text}: the board's logits are other bits than this computer's");
            show_detection(text, &tokens_of(&answers), 0.5, self.output.json)?;
        }
        let plan = client.ask(Command::Plan)?;
        if !self.output.json {
            say!("{} texts, each with the bits of this computer; self-test passed", texts.len());
            say!(
                "arena {} of {} bytes, stack at the deepest {} bytes{}",
                plan.figure("answering, planned")?,
                plan.figure("answering, at hand")?,
                plan.figure("stack, deepest")?,
                plan.figure("stack, at hand").map_or(String::new(), |bytes| format!(" of {bytes}"))
            );
        }
        if self.count {
            let tokens = COUNTED.min(tokens as u16);
            let instructions = client.ask(Command::Bench { tokens })?.figure("microseconds")? * 1000;
            if self.output.json {
                say!("{}", json!({"tokens": tokens, "instructions": instructions}));
            } else {
                say!("{tokens} tokens in {:.1} million instructions", instructions as f64 / 1e6);
            }
        }
        Ok(())
    }
}

/// Says who is there, and refuses another protocol; the adapter that answers.
fn introduce(client: &mut Client, json: bool) -> Result<Option<u8>> {
    let answers = client.ask(Command::Info)?;
    let about = answers.board()?;
    if json {
        say!(
            "{}",
            json!({"board": about.board, "firmware": about.firmware, "model": about.model, "kernels": about.kernels,
                   "tokens": about.tokens, "adapter": about.adapter, "slot": about.slot})
        );
    } else {
        let adapter = about.adapter.map_or("no adapter".to_owned(), |number| format!("adapter {number}"));
        let model = if about.model.is_empty() { "no model" } else { about.model };
        say!(
            "{}, firmware {}: {model} in slot {}, {adapter}; kernels {}, up to {} tokens",
            about.board,
            about.firmware,
            about.slot,
            about.kernels,
            about.tokens
        );
    }
    Ok(about.adapter)
}

/// The tokens of a detection, with their probabilities.
fn tokens_of(answers: &electret::board::Answers) -> Vec<(Token, f32)> {
    let tokens = answers.iter().filter_map(|answer| match answer {
        Answer::Token { start, end, logit } => {
            let mut token = Token::of(0, 0);
            (token.start, token.end) = (start, end);
            Some((token, sigmoid(logit)))
        }
        _ => None,
    });
    tokens.collect()
}

impl Talk {
    fn run(&self) -> Result<()> {
        let (_emulator, mut client) = self.line.connect()?;
        let json = self.output.json;
        match &self.what {
            What::Info => introduce(&mut client, json).map(drop),
            What::Plan => show_figures(&mut client, Command::Plan, json),
            What::SelfTest => show_figures(&mut client, Command::SelfTest, json),
            What::Bench { tokens } => show_figures(&mut client, Command::Bench { tokens: *tokens }, json),
            What::Detect { text, threshold } => each_text(text, |text| {
                show_detection(text, &tokens_of(&client.ask(Command::Detect(text))?), *threshold, json)
            }),
            What::Classify { text } => each_text(text, |text| {
                let answers = client.ask(Command::Classify(text))?;
                let labels = answers.iter().filter_map(|answer| match answer {
                    Answer::Label { name, score } => Some((name, score)),
                    _ => None,
                });
                show_labels(labels.collect(), json)
            }),
            What::Tag { text } => each_text(text, |text| show_words(&mut client, text, json)),
            What::Learn(lesson) => {
                lesson.teach(&mut client)?;
                show_figures(&mut client, Command::Adapters, json)
            }
            What::Adapters => show_figures(&mut client, Command::Adapters, json),
            What::Activate { adapter } => {
                let number = match adapter.as_str() {
                    "none" => None,
                    number => Some(number.parse().with_context(|| format!("{number}: a number, or none"))?),
                };
                client.ask(Command::Activate(number))?;
                introduce(&mut client, json).map(drop)
            }
        }
    }
}

impl Update {
    fn run(&self) -> Result<()> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
        let bytes = read(&self.file)?;
        let signature = self.signature.as_ref().map_or(Ok(Vec::new()), read)?;
        let kind = if self.file.extension().is_some_and(|extension| extension == "adapter") {
            Install::Adapter(self.adapter.context("--adapter: under which number is it to be kept?")?)
        } else {
            Install::Model
        };
        let (_emulator, mut client) = self.line.connect()?;
        let bar = progress_bar(bytes.len() as u64);
        update(&mut client, &bytes, kind, &signature, |at, _| bar.set_position(at as u64))?;
        bar.finish();
        let active = introduce(&mut client, self.output.json)?;
        if let Install::Adapter(number) = kind
            && active != Some(number)
        {
            eprintln!(
                "it is kept as adapter {number}, and answers after: electret board talk … activate {number}"
            );
        }
        Ok(())
    }
}

impl Flash {
    fn run(&self) -> Result<()> {
        let board = known(&self.board)?;
        let chip = board.chip()?;
        let firmware = self.source.build(board)?;
        if self.firmware_only || (chip.slot.is_none() && self.model.model.is_none()) {
            flash(&self.probe_rs, chip, &firmware.path, None)?;
            if chip.slot.is_none() {
                eprintln!("{OVER_THE_LINE}");
            }
            return Ok(());
        }
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let path = firmware.path.with_extension("electret");
        std::fs::write(&path, &bytes.as_slice()[..model.bytes()])
            .with_context(|| path.display().to_string())?;
        flash(&self.probe_rs, chip, &firmware.path, Some(&path))
    }
}

impl Line {
    /// A place, with the rate of its line if it is a serial port.
    pub fn at(place: &str, baud: u32) -> Self {
        let source = Source { boards: BOARDS_FOLDER.into(), key: None };
        Self { place: place.to_owned(), baud, timeout: TIMEOUT, folder: None, source }
    }

    /// Opens the serial port, or starts the emulated board of that name; refuses another protocol.
    pub fn connect(&self) -> Result<(Option<Emulator>, Client)> {
        let (emulator, client) = self.open()?;
        // Whoever is there says so soon; an emulated board takes its time to start.
        let first = if emulator.is_some() { self.timeout } else { self.timeout.min(FIRST_TIMEOUT) };
        let mut client = client.with_timeout(Duration::from_secs(first));
        client.ask(Command::Info)?.board()?;
        Ok((emulator, client.with_timeout(Duration::from_secs(self.timeout))))
    }

    fn open(&self) -> Result<(Option<Emulator>, Client)> {
        if let Some(board) = Known::find(&self.place) {
            board.machine()?;
            let firmware = self.source.build(board)?;
            let folder = self.folder.clone().unwrap_or_else(|| firmware.path.with_extension("run"));
            let model = ModelFile { model: None }.bytes()?;
            let fresh = !folder.join("slot-0.bin").exists();
            let model = fresh.then(|| model.as_slice());
            let (emulator, client) = Emulator::start(board, &firmware.path, &folder, model, Clock::Time)?;
            return Ok((Some(emulator), client));
        }
        // Debuggers whose line is a USB port hold back what nobody seems to read.
        let port = serialport::new(&self.place, self.baud).dtr_on_open(true);
        let port = port.timeout(Duration::from_millis(200)).open();
        let port = port.with_context(|| {
            format!("{}: neither a serial port nor a board of electret board list", self.place)
        })?;
        let reader = port.try_clone().with_context(|| self.place.clone())?;
        Ok((None, Client::new(reader, port)))
    }
}

fn show_figures(client: &mut Client, command: Command<'_>, json: bool) -> Result<()> {
    let answers = client.ask(command)?;
    let figures = answers.iter().filter_map(|answer| match answer {
        Answer::Figure { name, value } => Some((name, value)),
        _ => None,
    });
    if json {
        let all: serde_json::Map<_, _> =
            figures.map(|(name, value)| (name.to_owned(), json!(value))).collect();
        say!("{}", serde_json::Value::Object(all));
    } else {
        for (name, value) in figures {
            say!("{value:>12}  {name}");
        }
    }
    Ok(())
}

fn show_words(client: &mut Client, text: &str, json: bool) -> Result<()> {
    let answers = client.ask(Command::Tag(text))?;
    let mut rows = Vec::new();
    for answer in answers.iter() {
        let Answer::Word { start, end, label, logit } = answer else { continue };
        let word = text.get(start as usize..end as usize).unwrap_or_default();
        if json {
            rows.push(json!({"text": word, "start": start, "end": end, "tag": label, "logit": logit}));
        } else {
            say!("{word}\t{label}\t{logit:.3}");
        }
    }
    if json {
        say!("{}", json!({ "tags": rows }));
    }
    Ok(())
}

impl Learn {
    /// Teaches a board what the examples say, and has it kept.
    fn teach(&self, client: &mut Client) -> Result<()> {
        ensure!(self.epochs > 0 && self.batch_size > 0, "--epochs and --batch-size must be at least 1");
        let Labelled { kind, labels, examples } = Labelled::read(&self.examples, LabelNames::OfFile)?;
        let lesson = match kind {
            HeadKind::Classify => Lesson::Classify,
            HeadKind::Tag => Lesson::Tag,
            _ => bail!("{}: a board learns labels of texts or of words", self.examples.display()),
        };
        let (labels, learning_rate) = (labels.join("\n"), self.learning_rate);
        client.ask(Command::Teach { lesson, labels: &labels, strategy: &self.strategy, learning_rate })?;
        let learned = self.learn(client, &examples);
        // The lesson ends either way: what was committed answers, and nothing else.
        let ended = client.ask(Command::Rollback);
        learned?;
        ended?;
        Ok(())
    }

    fn learn(&self, client: &mut Client, examples: &[Example]) -> Result<()> {
        let bar = progress_bar(u64::from(self.epochs) * examples.len() as u64);
        for _ in 0..self.epochs {
            for (batch, first) in examples.chunks(self.batch_size).zip((1..).step_by(self.batch_size)) {
                for (example, number) in batch.iter().zip(first..) {
                    let mut tags = Vec::new();
                    let truth = match example.target() {
                        Target::Class(label) => Truth::Class(label as u16),
                        Target::Tags(labels) => {
                            // A board takes at most 32 labels.
                            tags.extend(labels.iter().map(|&label| label as u8));
                            Truth::Tags(&tags)
                        }
                        _ => bail!("a board learns labels of texts or of words"),
                    };
                    client
                        .ask(Command::Learn { text: example.input().text, truth })
                        .with_context(|| format!("{}, example {number}", self.examples.display()))?;
                    bar.inc(1);
                }
                client.ask(Command::Step)?;
            }
        }
        bar.finish();
        client.ask(Command::Commit { adapter: self.adapter })?;
        Ok(())
    }
}

fn progress_bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}
