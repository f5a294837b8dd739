//! An emulated board beside this computer: the same bits, and what they cost there.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use electret::board::{Client, Clock, Emulator};
use electret::link::{Answer, Command};
use electret::weights::AlignedBytes;
use electret::{HeadKind, Model, Plan, Session};
use serde_json::json;

use super::firmware::Source;
use super::known;
use super::line::introduce;
use super::talk::tokens_of;
use crate::ask::show_detection;
use crate::{ModelFile, Output};

/// Builds an emulated board, starts it and compares what it says with this computer.
///
/// Example: electret board run qemu-mps2-an500 --model small.electret
#[derive(Args)]
pub struct Run {
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
    pub fn run(&self) -> Result<()> {
        let board = known(&self.board)?;
        board.machine()?;
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let texts = self.texts()?;
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
        let tokens = client.ask(Command::Info)?.board()?.tokens;
        self.compare(&mut client, model, tokens.into(), &texts)?;
        self.show_memory(&mut client)?;
        if self.count { self.show_count(&mut client, COUNTED.min(tokens)) } else { Ok(()) }
    }

    fn texts(&self) -> Result<Vec<String>> {
        let Some(path) = &self.text else { return Ok(SENTENCES.map(str::to_owned).to_vec()) };
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Asks board and computer about each text, and stops at the first bit that differs.
    fn compare(&self, client: &mut Client, model: Model<'_>, tokens: usize, texts: &[String]) -> Result<()> {
        let plan = Plan::inference(model.config(), tokens).for_model(&model);
        let mut arena = AlignedBytes::zeroed(plan.bytes());
        let mut session = Session::new(model, arena.as_mut_slice(), tokens)?;
        for text in texts {
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
        if !self.output.json {
            say!("{} texts, each with the bits of this computer; self-test passed", texts.len());
        }
        Ok(())
    }

    fn show_memory(&self, client: &mut Client) -> Result<()> {
        let plan = client.ask(Command::Plan)?;
        if !self.output.json {
            say!(
                "arena {} of {} bytes, stack at the deepest {} bytes{}",
                plan.figure("answering, planned")?,
                plan.figure("answering, at hand")?,
                plan.figure("stack, deepest")?,
                plan.figure("stack, at hand").map_or(String::new(), |bytes| format!(" of {bytes}"))
            );
        }
        Ok(())
    }

    fn show_count(&self, client: &mut Client, tokens: u16) -> Result<()> {
        // The emulated clock ticks once an instruction, a thousand times a microsecond.
        let instructions = client.ask(Command::Bench { tokens })?.figure("microseconds")? * 1000;
        if self.output.json {
            say!("{}", json!({"tokens": tokens, "instructions": instructions}));
        } else {
            say!("{tokens} tokens in {:.1} million instructions", instructions as f64 / 1e6);
        }
        Ok(())
    }
}
