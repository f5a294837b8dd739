//! What one asks of a board over its line.

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use electret::board::{Answers, Client};
use electret::kernels::lanes::sigmoid;
use electret::link::{Answer, Command};
use electret::text::Token;
use serde_json::json;

use super::learn::Learn;
use super::line::{Line, introduce};
use crate::ask::{show_detection, show_labels};
use crate::{Output, each_text};

/// Talks to a board over a serial line, or to an emulated one.
///
/// Example: electret board talk /dev/ttyACM0 detect "The cat sat on the banana."
#[derive(Args)]
pub struct Talk {
    #[command(flatten)]
    line: Line,
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand)]
enum What {
    /// Who is there?
    Info,
    /// How much memory does it have, and how deep was the stack?
    Plan,
    /// Does the model give the logits that it was shipped with?
    SelfTest,
    /// How long does a sequence of that many tokens take?
    Bench {
        /// Tokens, special ones included.
        #[arg(default_value_t = 32)]
        tokens: u16,
    },
    /// Which words do not belong?
    Detect {
        /// The text, or - for one a line from stdin.
        text: String,
        /// Tokens at least this likely to have been replaced are marked.
        #[arg(long, default_value_t = 0.5)]
        threshold: f32,
    },
    /// Which label does the text have?
    Classify {
        /// The text, or - for one a line from stdin.
        text: String,
    },
    /// Which label does each word have?
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

impl Talk {
    pub fn run(&self) -> Result<()> {
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

/// The tokens of a detection, with their probabilities.
pub fn tokens_of(answers: &Answers) -> Vec<(Token, f32)> {
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
