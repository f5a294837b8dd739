//! Labelled files: TSV with a header, CoNLL's columns, SQuAD's JSON.
//!
//! | file | rows | task |
//! |---|---|---|
//! | `.tsv` | header `label text`, or `label text_a text_b` | classify |
//! | `.tsv` | header `score text`, or `score text_a text_b` | regress |
//! | `.conll` | `word<TAB>tag`, an empty line between sentences | tag |
//! | `.json` | SQuAD 1.1 | answer |

use std::path::Path;

use serde_json::Value;

use crate::HeadKind;
use crate::text::Input;
use crate::tune::Target;

/// A labelled file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {message}")]
pub struct LabelledError {
    file: String,
    message: String,
}

/// Examples of one task.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// Which head they teach.
    pub kind: HeadKind,
    /// Names of the labels: in alphabetical order, or those that were given.
    pub labels: Vec<String>,
    /// The examples, in the file's order.
    pub examples: Vec<Example>,
}

/// A text, perhaps a pair, and what it teaches.
#[derive(Clone, Debug)]
pub struct Example {
    /// The text; a question.
    pub text: String,
    /// The second text; the context of a question.
    pub pair: Option<String>,
    /// The truth.
    pub truth: Truth,
}

/// What is true of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    /// Its label.
    Class(usize),
    /// Its value.
    Value(f32),
    /// The label of each of its words, which single spaces separate.
    Tags(Vec<u16>),
    /// Answers that count as right, each with its first byte in the context.
    Answers(Vec<(usize, String)>),
}

impl Example {
    /// As the tokeniser takes it; what does not fit is cut off.
    pub fn input(&self) -> Input<'_> {
        Input { text: &self.text, pair: self.pair.as_deref(), truncate: true }
    }

    /// As the tuner takes it: of several answers the first.
    pub fn target(&self) -> Target<'_> {
        match &self.truth {
            Truth::Class(label) => Target::Class(*label),
            Truth::Value(value) => Target::Value(*value),
            Truth::Tags(tags) => Target::Tags(tags),
            Truth::Answers(answers) => {
                let (start, answer) = answers.first().map_or((0, ""), |(start, text)| (*start, text));
                Target::Span(start, start + answer.len())
            }
        }
    }
}

/// Which labels an example of a file may have.
#[derive(Clone, Debug)]
pub enum LabelNames {
    /// Those that the file has.
    OfFile,
    /// Those of a model or an adapter; another is an error.
    Only(Vec<String>),
    /// Those of a model or an adapter come first; another one is a truth that is never found.
    First(Vec<String>),
}

impl Labelled {
    /// Reads a file.
    pub fn read(path: &Path, labels: LabelNames) -> Result<Self, LabelledError> {
        let fail = |message: String| LabelledError { file: path.display().to_string(), message };
        let text = text(path).map_err(fail)?;
        let result = match kind(path, &text).map_err(fail)? {
            HeadKind::Tag => columns(&text, labels),
            HeadKind::Answer => squad(&text),
            kind => table(&text, kind, labels),
        };
        let labelled = result.map_err(fail)?;
        if labelled.examples.is_empty() { Err(fail("holds no example".to_owned())) } else { Ok(labelled) }
    }

    /// Which head a file teaches, by its name and its first line.
    pub fn kind_of(path: &Path) -> Result<HeadKind, LabelledError> {
        let fail = |message: String| LabelledError { file: path.display().to_string(), message };
        kind(path, &text(path).map_err(fail)?).map_err(fail)
    }
}

fn text(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8 after byte {}; convert it", error.utf8_error().valid_up_to()))
}

fn kind(path: &Path, text: &str) -> Result<HeadKind, String> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("conll") => Ok(HeadKind::Tag),
        Some("json") => Ok(HeadKind::Answer),
        Some("tsv") => {
            let header: Vec<&str> = text.lines().next().unwrap_or_default().split('\t').collect();
            match header[..] {
                ["label", "text"] | ["label", "text_a", "text_b"] => Ok(HeadKind::Classify),
                ["score", "text"] | ["score", "text_a", "text_b"] => Ok(HeadKind::Regress),
                _ => Err(format!(
                    "line 1: the header is {header:?}; it must be label or score, and text or text_a text_b"
                )),
            }
        }
        _ => Err("the name must end in .tsv, .conll or .json".to_owned()),
    }
}

/// The labels' names, and the number of each.
struct Names(Vec<String>);

impl Names {
    fn new<'t>(given: LabelNames, found: impl Iterator<Item = &'t str>) -> Self {
        let (mut names, known) = match given {
            LabelNames::Only(names) => return Self(names),
            LabelNames::OfFile => (Vec::new(), 0),
            LabelNames::First(names) => {
                let known = names.len();
                (names, known)
            }
        };
        let mut others: Vec<String> =
            found.filter(|name| !names.iter().any(|known| known == name)).map(str::to_owned).collect();
        others.sort();
        others.dedup();
        if known > 0 && !others.is_empty() {
            log::warn!("the model has no label {}; what has it counts as wrong", others.join(", "));
        }
        names.extend(others);
        Self(names)
    }

    fn number(&self, name: &str, line: usize) -> Result<usize, String> {
        if self.0.is_empty() {
            return Err(format!(
                "line {line}: the model has no labels; learn a head with it, or choose an adapter"
            ));
        }
        self.0.iter().position(|known| known == name).ok_or_else(|| {
            format!("line {line}: label {name:?} is none of the model's: {}", self.0.join(", "))
        })
    }
}

fn table(text: &str, kind: HeadKind, given: LabelNames) -> Result<Labelled, String> {
    let mut lines = text.lines().enumerate();
    let columns = lines.next().map_or(0, |(_, header)| header.split('\t').count());
    let mut rows = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields.len() != columns {
            return Err(format!(
                "line {}: {} columns where the header has {columns}",
                index + 1,
                fields.len()
            ));
        }
        rows.push((index + 1, fields));
    }
    let names = match kind {
        HeadKind::Regress => Names(vec!["value".to_owned()]),
        _ => Names::new(given, rows.iter().map(|(_, fields)| fields[0])),
    };
    let example = |(line, fields): (usize, Vec<&str>)| {
        let truth = match kind {
            HeadKind::Regress => match fields[0].parse::<f32>() {
                Ok(value) if value.is_finite() => Truth::Value(value),
                _ => return Err(format!("line {line}: score {:?} is no number", fields[0])),
            },
            _ => Truth::Class(names.number(fields[0], line)?),
        };
        Ok(Example { text: fields[1].to_owned(), pair: fields.get(2).map(|&pair| pair.to_owned()), truth })
    };
    let examples = rows.into_iter().map(example).collect::<Result<_, String>>()?;
    Ok(Labelled { kind, labels: names.0, examples })
}

fn columns(text: &str, given: LabelNames) -> Result<Labelled, String> {
    let mut sentences: Vec<Vec<(usize, &str, &str)>> = vec![Vec::new()];
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() {
            sentences.push(Vec::new());
            continue;
        }
        let (word, tag) = line
            .split_once('\t')
            .filter(|(word, tag)| {
                let is_one = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
                is_one(word) && is_one(tag)
            })
            .ok_or_else(|| format!("line {}: a word, a tab and one tag are wanted", index + 1))?;
        if let Some(sentence) = sentences.last_mut() {
            sentence.push((index + 1, word, tag));
        }
    }
    sentences.retain(|sentence| !sentence.is_empty());
    let names = Names::new(given, sentences.iter().flatten().map(|&(_, _, tag)| tag));
    let example = |sentence: Vec<(usize, &str, &str)>| {
        let tags: Result<Vec<u16>, String> =
            sentence.iter().map(|&(line, _, tag)| Ok(names.number(tag, line)? as u16)).collect();
        let words: Vec<&str> = sentence.iter().map(|&(_, word, _)| word).collect();
        Ok(Example { text: words.join(" "), pair: None, truth: Truth::Tags(tags?) })
    };
    let examples = sentences.into_iter().map(example).collect::<Result<_, String>>()?;
    Ok(Labelled { kind: HeadKind::Tag, labels: names.0, examples })
}

fn squad(text: &str) -> Result<Labelled, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let list = |value: &Value, field: &str| -> Result<Vec<Value>, String> {
        let list = value.get(field).and_then(Value::as_array);
        list.cloned().ok_or_else(|| format!("{field}: missing; is this SQuAD 1.1?"))
    };
    let string = |value: &Value, field: &str| -> Result<String, String> {
        value.get(field).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("{field}: missing"))
    };
    let mut examples = Vec::new();
    for article in list(&json, "data")? {
        for paragraph in list(&article, "paragraphs")? {
            let context = string(&paragraph, "context")?;
            for question in list(&paragraph, "qas")? {
                let mut answers = Vec::new();
                for answer in list(&question, "answers")? {
                    // SQuAD counts characters, not bytes.
                    let start = answer.get("answer_start").and_then(Value::as_u64);
                    let start = start.ok_or("answer_start: missing, or no number")? as usize;
                    let byte = context.char_indices().nth(start).map_or(context.len(), |(byte, _)| byte);
                    let text = string(&answer, "text")?;
                    if !context[byte..].starts_with(&text) {
                        return Err(format!(
                            "answer_start: {text:?} is not at character {start} of its context"
                        ));
                    }
                    answers.push((byte, text));
                }
                let text = string(&question, "question")?;
                if answers.is_empty() {
                    return Err(format!("answers: none to {text:?}; SQuAD 1.1 has one to every question"));
                }
                examples.push(Example { text, pair: Some(context.clone()), truth: Truth::Answers(answers) });
            }
        }
    }
    Ok(Labelled { kind: HeadKind::Answer, labels: vec!["start".to_owned(), "end".to_owned()], examples })
}
