//! The verbs that ask a model about text.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use electret::tasks::{Pooling, Tagged};
use electret::text::{Input, Token};
use electret::weights::AlignedBytes;
use electret::{Adapter, HeadKind, Model, Plan, Session};
use serde_json::{Value, json};

use super::{AdapterFile, ModelFile, Output, each_text, is_terminal};

/// P(replaced) of each token: which words do not belong?
///
/// Example: electret detect "The cat sat on the banana and purred."
#[derive(Args)]
pub struct Detect {
    /// The text, or - for one a line from stdin.
    text: String,
    #[command(flatten)]
    model: ModelFile,
    #[command(flatten)]
    adapter: AdapterFile,
    /// Tokens at least this likely to have been replaced are marked.
    #[arg(long, default_value_t = 0.5)]
    threshold: f32,
    #[command(flatten)]
    asking: Asking,
}

/// Which label does the text have?
///
/// Example: electret classify --model intents.electret --adapter mine.adapter "play some jazz"
#[derive(Args)]
pub struct Classify {
    /// The text, or - for one a line from stdin.
    text: String,
    #[command(flatten)]
    model: ModelFile,
    #[command(flatten)]
    adapter: AdapterFile,
    /// The second text of a pair.
    #[arg(long)]
    pair: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// Which label does each word have?
///
/// Example: electret tag --model upos.electret "Time flies like an arrow."
#[derive(Args)]
pub struct Tag {
    /// The text, or - for one a line from stdin.
    text: String,
    #[command(flatten)]
    model: ModelFile,
    #[command(flatten)]
    adapter: AdapterFile,
    #[command(flatten)]
    asking: Asking,
}

/// The text as one vector of length 1.
///
/// Example: electret embed --pooling mean "The new movie is awesome"
#[derive(Args)]
pub struct Embed {
    /// The text, or - for one a line from stdin.
    text: String,
    #[command(flatten)]
    model: ModelFile,
    /// mean of all tokens, or the first one.
    #[arg(long, default_value = "mean", value_parser = ["mean", "first"])]
    pooling: String,
    #[command(flatten)]
    asking: Asking,
}

/// Where in a context is the answer to a question?
///
/// Example: electret answer --model qa.electret --context "It opened in 1932." "When did it open?"
#[derive(Args)]
pub struct Answer {
    /// The question.
    question: String,
    /// The text that holds the answer.
    #[arg(long)]
    context: String,
    #[command(flatten)]
    model: ModelFile,
    #[command(flatten)]
    adapter: AdapterFile,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Asking {
    /// Drop the end of a text that is longer than the model allows, instead of refusing it.
    #[arg(long)]
    truncate: bool,
    #[command(flatten)]
    output: Output,
}

/// Opens a session for the longest sequence of the model and hands it over.
fn with_session<T>(
    bytes: &AlignedBytes,
    adapter: &AdapterFile,
    work: impl FnOnce(Session<'_, '_>) -> Result<T>,
) -> Result<T> {
    let model = Model::open(bytes.as_slice())?;
    let file = adapter.bytes()?;
    let adapter = file.as_ref().map(|file| Adapter::open(file.as_slice(), &model)).transpose()?;
    let plan = Plan::inference(model.config(), model.config().max_position_embeddings).for_model(&model);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    work(Session::new(model, arena.as_mut_slice(), plan.tokens)?.with_adapter(adapter)?)
}

impl Detect {
    pub fn run(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.threshold) {
            bail!("--threshold {}: a probability between 0 and 1 is expected", self.threshold);
        }
        with_session(&self.model.bytes()?, &self.adapter, |mut session| {
            each_text(&self.text, |text| {
                let input = Input { truncate: self.asking.truncate, ..text.into() };
                let tokens: Vec<_> =
                    session.detect(input)?.map(|found| (found.token, found.replaced)).collect();
                show_detection(text, &tokens, self.threshold, self.asking.output.json)
            })
        })
    }
}

/// Shows how likely each token of a text is to be a replacement.
pub fn show_detection(text: &str, tokens: &[(Token, f32)], threshold: f32, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let part = |token: &Token| text.get(token.start as usize..token.end as usize).unwrap_or_default();
    if json {
        let rows: Vec<Value> = tokens
            .iter()
            .map(|(token, p)| {
                json!({"text": part(token), "start": token.start, "end": token.end, "replaced": p})
            })
            .collect();
        writeln!(out, "{}", json!({ "tokens": rows }))?;
        return Ok(());
    }
    let suspects = || tokens.iter().filter(|(_, p)| *p >= threshold);
    writeln!(out, "{}", marked(text, suspects().map(|(token, _)| token)))?;
    for (token, p) in suspects() {
        writeln!(out, "  {:5.1} %  {}  (bytes {}..{})", p * 100.0, part(token), token.start, token.end)?;
    }
    Ok(())
}

/// The text with the suspects between ▸ and ◂, and bold red on a terminal.
fn marked<'t>(text: &str, suspects: impl Iterator<Item = &'t Token>) -> String {
    let (open, close) = if is_terminal() { ("\x1b[1;31m▸", "◂\x1b[0m") } else { ("▸", "◂") };
    let mut marked = String::new();
    let mut done = 0;
    for token in suspects {
        let (start, end) = (token.start as usize, token.end as usize);
        if start >= done {
            marked.push_str(&text[done..start]);
            marked.push_str(open);
            marked.push_str(&text[start..end]);
            marked.push_str(close);
            done = end;
        }
    }
    marked.push_str(&text[done..]);
    marked
}

/// Shows the probability of each label, the likeliest first.
pub fn show_labels(mut rows: Vec<(&str, f32)>, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    if json {
        let scores: serde_json::Map<String, Value> =
            rows.iter().map(|&(label, p)| (label.to_owned(), json!(p))).collect();
        writeln!(out, "{}", json!({ "label": rows.first().map(|row| row.0), "scores": scores }))?;
    } else {
        for (label, p) in rows {
            writeln!(out, "{:5.1} %  {label}", p * 100.0)?;
        }
    }
    Ok(())
}

impl Classify {
    pub fn run(&self) -> Result<()> {
        with_session(&self.model.bytes()?, &self.adapter, |mut session| {
            each_text(&self.text, |text| {
                let truncate = self.asking.truncate;
                let input = Input { text, pair: self.pair.as_deref(), truncate };
                let learned = session.adapter_kind() == Some(HeadKind::Classify);
                if !learned && session.label_count(HeadKind::Regress).is_ok() {
                    let value = session.regress(input)?;
                    if self.asking.output.json {
                        say!("{}", json!({ "value": value }));
                    } else {
                        say!("{value:.4}");
                    }
                    return Ok(());
                }
                let labels = session.label_names(HeadKind::Classify)?;
                let scores = session.classify(input)?;
                show_labels(labels.zip(scores.iter().copied()).collect(), self.asking.output.json)
            })
        })
    }
}

impl Tag {
    pub fn run(&self) -> Result<()> {
        with_session(&self.model.bytes()?, &self.adapter, |mut session| {
            let labels: Vec<&str> = session.label_names(HeadKind::Tag)?.collect();
            each_text(&self.text, |text| {
                let input = Input { truncate: self.asking.truncate, ..text.into() };
                let words = session.tag(input)?;
                let part =
                    |word: &Tagged| text.get(word.start as usize..word.end as usize).unwrap_or_default();
                let label = |word: &Tagged| labels.get(word.label).copied().unwrap_or_default();
                let mut out = std::io::stdout().lock();
                if self.asking.output.json {
                    let rows: Vec<Value> = words
                        .map(|word| {
                            json!({"text": part(&word), "start": word.start, "end": word.end,
                                   "tag": label(&word), "score": word.score})
                        })
                        .collect();
                    writeln!(out, "{}", json!({ "tags": rows }))?;
                } else {
                    for word in words {
                        writeln!(out, "{}\t{}\t{:.3}", part(&word), label(&word), word.score)?;
                    }
                }
                Ok(())
            })
        })
    }
}

impl Embed {
    pub fn run(&self) -> Result<()> {
        let pooling = if self.pooling == "first" { Pooling::First } else { Pooling::Mean };
        with_session(&self.model.bytes()?, &AdapterFile::default(), |mut session| {
            each_text(&self.text, |text| {
                let input = Input { truncate: self.asking.truncate, ..text.into() };
                let embedding = session.embed(input, pooling)?;
                let mut out = std::io::stdout().lock();
                if self.asking.output.json {
                    writeln!(out, "{}", json!({ "embedding": embedding }))?;
                } else {
                    let values: Vec<String> = embedding.iter().map(|x| format!("{x:.6}")).collect();
                    writeln!(out, "{}", values.join(" "))?;
                }
                Ok(())
            })
        })
    }
}

impl Answer {
    pub fn run(&self) -> Result<()> {
        with_session(&self.model.bytes()?, &self.adapter, |mut session| {
            let found = session.answer(&self.question, &self.context)?;
            let answer = self.context.get(found.start..found.end).unwrap_or_default();
            let mut out = std::io::stdout().lock();
            if self.output.json {
                let row =
                    json!({"answer": answer, "start": found.start, "end": found.end, "score": found.score});
                writeln!(out, "{row}")?;
            } else {
                writeln!(out, "{answer}  (bytes {}..{}, score {:.2})", found.start, found.end, found.score)?;
            }
            Ok(())
        })
    }
}
