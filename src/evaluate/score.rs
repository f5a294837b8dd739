//! One harness for every task and every form of a model: a [`Reader`] answers the examples of a [`Labelled`] file, and
//! the task's own metrics say how well, with the interval of a bootstrap.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use super::labelled::{Example, Labelled, Truth};
use super::reader::Reader;
use crate::random::Random;
use crate::tasks::Windows;
use crate::text::Input;
use crate::tune::word_spans;
use crate::{Error, HeadKind};

/// Samples that a bootstrap draws.
const RESAMPLINGS: usize = 1000;

/// A metric over all examples, and where it lies in 95 % of 1,000 resamplings of them.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Metric {
    /// Its name.
    pub metric: &'static str,
    /// Its value.
    pub value: f64,
    /// 2.5 % of the resamplings lie below.
    pub low: f64,
    /// 2.5 % lie above.
    pub high: f64,
    /// Examples.
    pub n: usize,
}

/// By how much one model is better than another on the same examples, and where that lies in 95 % of 1,000
/// resamplings that take both models' answers together (a paired bootstrap, Koehn 2004).
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The metric's name.
    pub metric: &'static str,
    /// This model's value less the other's.
    pub difference: f64,
    /// 2.5 % of the resamplings lie below.
    pub low: f64,
    /// 2.5 % lie above.
    pub high: f64,
    /// How likely so large a difference is without a real one: twice the share of resamplings of the other sign.
    pub p: f64,
}

/// What was answered to one example.
#[derive(Clone, Debug)]
enum Answered {
    Class { truth: usize, found: usize },
    Value { truth: f64, found: f64 },
    Tags { truth: Vec<u16>, found: Vec<u16> },
    Span { exact: bool, f1: f64 },
}

/// A metric's name, and its value over some answers.
type Measure<'d> = (&'static str, Box<dyn Fn(&[&Answered]) -> f64 + 'd>);

/// What a reader answered to the examples of a file.
#[derive(Clone, Debug)]
pub struct Answers<'d> {
    data: &'d Labelled,
    /// `None` for an example without a token.
    answered: Vec<Option<Answered>>,
}

/// Answers all examples; the task's main metric comes first. Examples without a token are left out.
///
/// # Errors
/// [`Error::NoSuchHead`], and what a reader says.
pub fn score(reader: &mut impl Reader, data: &Labelled) -> Result<Vec<Metric>, Error> {
    Ok(Answers::of(reader, data)?.metrics())
}

impl<'d> Answers<'d> {
    /// Answers all examples.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`], and what a reader says.
    pub fn of(reader: &mut impl Reader, data: &'d Labelled) -> Result<Self, Error> {
        let outside = data.labels.iter().position(|label| label == "O").unwrap_or(usize::from(u16::MAX));
        let one = |example| match answer(reader, data.kind, example, outside as u16) {
            Ok(answered) => Ok(Some(answered)),
            Err(Error::EmptyText) => Ok(None),
            Err(error) => Err(error),
        };
        Ok(Self { data, answered: data.examples.iter().map(one).collect::<Result<_, _>>()? })
    }

    /// Whether no example could be answered.
    pub fn is_empty(&self) -> bool {
        self.answered.iter().all(Option::is_none)
    }

    /// The task's metrics, its main one first. F1 of two classes is that of `1` where they are `0` and `1`, as in GLUE, and
    /// otherwise that of the rarer one.
    pub fn metrics(&self) -> Vec<Metric> {
        let all: Vec<&Answered> = self.answered.iter().flatten().collect();
        let metric = |(metric, measure): Measure<'_>| {
            let (low, high, _) = bootstrapped(all.len(), |picked| measure(&chosen(&all, picked)));
            Metric { metric, value: measure(&all), low, high, n: all.len() }
        };
        measures(self.data, &all).into_iter().map(metric).collect()
    }

    /// By how much these answers are better than another reader's to the same file.
    pub fn against(&self, other: &Self) -> Vec<Difference> {
        let pairs = self.answered.iter().zip(&other.answered);
        let (ours, theirs): (Vec<&Answered>, Vec<&Answered>) =
            pairs.filter_map(|(ours, theirs)| Some((ours.as_ref()?, theirs.as_ref()?))).unzip();
        let difference = |(metric, measure): Measure<'_>| {
            let (low, high, p) = bootstrapped(ours.len(), |picked| {
                measure(&chosen(&ours, picked)) - measure(&chosen(&theirs, picked))
            });
            Difference { metric, difference: measure(&ours) - measure(&theirs), low, high, p }
        };
        measures(self.data, &ours).into_iter().map(difference).collect()
    }

    /// The answers as GLUE takes them in: `index<TAB>prediction`, labels by their names, values to three places.
    /// `None` for words and spans, which GLUE has not.
    pub fn predictions(&self) -> Option<String> {
        let mut lines = String::from("index\tprediction\n");
        for (index, answered) in self.answered.iter().enumerate() {
            let written = match answered {
                Some(Answered::Class { found, .. }) => {
                    writeln!(lines, "{index}\t{}", self.data.labels[*found])
                }
                Some(Answered::Value { found, .. }) => writeln!(lines, "{index}\t{found:.3}"),
                None if self.data.kind == HeadKind::Regress => writeln!(lines, "{index}\t{:.3}", 0.0),
                None => writeln!(lines, "{index}\t{}", self.data.labels.first().map_or("", String::as_str)),
                Some(Answered::Tags { .. } | Answered::Span { .. }) => return None,
            };
            written.expect("a string takes every line");
        }
        Some(lines)
    }
}

fn answer(
    reader: &mut impl Reader,
    head: HeadKind,
    example: &Example,
    outside: u16,
) -> Result<Answered, Error> {
    let labels = reader.label_count(head)?;
    Ok(match &example.truth {
        Truth::Class(truth) => {
            let read = reader.read(head, example.input())?;
            Answered::Class { truth: *truth, found: largest(read.logits) }
        }
        Truth::Value(truth) => {
            let read = reader.read(head, example.input())?;
            let found = read.logits.first().copied().unwrap_or_default();
            Answered::Value { truth: f64::from(*truth), found: f64::from(found) }
        }
        Truth::Tags(truth) => {
            let read = reader.read(head, example.input())?;
            let mut firsts = read.tokens.iter().zip(read.logits.chunks_exact(labels)).peekable();
            let tag = |word: std::ops::Range<usize>| {
                while firsts
                    .next_if(|(token, _)| token.special == 1 || (token.start as usize) < word.start)
                    .is_some()
                {}
                let first =
                    firsts.next_if(|(token, _)| token.special == 0 && (token.start as usize) < word.end);
                first.map_or(outside, |(_, logits)| largest(logits) as u16)
            };
            Answered::Tags { truth: truth.clone(), found: word_spans(&example.text).map(tag).collect() }
        }
        Truth::Answers(truth) => found_answer(reader, example, truth)?,
    })
}

/// What a question is answered with, from a context of any length.
fn found_answer(
    reader: &mut impl Reader,
    question: &Example,
    truth: &[(usize, String)],
) -> Result<Answered, Error> {
    let context = question.pair.as_deref().unwrap_or_default();
    let mut windows = Windows::new(context);
    while let Some(part) = windows.part() {
        windows.take(&reader.read(HeadKind::Answer, Input { pair: Some(part), ..question.input() })?);
    }
    let found = windows.best().ok_or(Error::EmptyText)?;
    let found = context.get(found.start..found.end).unwrap_or_default();
    let f1 = truth.iter().map(|(_, answer)| word_f1(found, answer)).fold(0.0, f64::max);
    Ok(Answered::Span { exact: truth.iter().any(|(_, answer)| plain(answer) == plain(found)), f1 })
}

fn largest(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0)
}

/// The metrics of a task, its main one first.
fn measures<'d>(data: &'d Labelled, answered: &[&Answered]) -> Vec<Measure<'d>> {
    match data.kind {
        HeadKind::Regress => vec![("spearman", Box::new(spearman)), ("pearson", Box::new(pearson))],
        HeadKind::Tag if data.labels.iter().any(|label| label.starts_with("B-")) => {
            let f1 = |answers: &[&Answered]| chunk_f1(answers, &data.labels);
            vec![("f1", Box::new(f1)), ("accuracy", Box::new(accuracy))]
        }
        HeadKind::Answer => vec![("f1", Box::new(span_f1)), ("exact_match", Box::new(exact_match))],
        HeadKind::Classify if data.labels.len() == 2 => {
            let positive = positive_class(&data.labels, answered);
            let f1 = move |answers: &[&Answered]| class_f1(answers, positive);
            vec![("accuracy", Box::new(accuracy)), ("f1", Box::new(f1)), ("mcc", Box::new(matthews))]
        }
        _ => vec![("accuracy", Box::new(accuracy))],
    }
}

/// The answers of those numbers.
fn chosen<'a>(answers: &[&'a Answered], picked: &[usize]) -> Vec<&'a Answered> {
    picked.iter().map(|&index| answers[index]).collect()
}

/// A value over resamplings of `n` examples, drawn with replacement: what 2.5 % lie below, what 2.5 % lie above, and
/// twice the share on the less frequent side of 0.
fn bootstrapped(n: usize, value: impl Fn(&[usize]) -> f64) -> (f64, f64, f64) {
    let mut random = Random::new(0xb007);
    let mut picked = vec![0; n];
    let mut values: Vec<f64> = (0..RESAMPLINGS)
        .map(|_| {
            picked.fill_with(|| random.below(n));
            value(&picked)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let share = |of: &dyn Fn(&f64) -> bool| values.iter().filter(|value| of(value)).count() as f64;
    let less = share(&|&value| value <= 0.0).min(share(&|&value| value >= 0.0));
    let p = (2.0 * less / RESAMPLINGS as f64).min(1.0);
    (values[RESAMPLINGS / 40], values[RESAMPLINGS - RESAMPLINGS / 40 - 1], p)
}

/// Mean over answers to questions.
fn span_mean(answers: &[&Answered], of: fn(bool, f64) -> f64) -> f64 {
    let values = answers.iter().map(|answer| match answer {
        Answered::Span { exact, f1 } => of(*exact, *f1),
        _ => 0.0,
    });
    values.sum::<f64>() / answers.len() as f64
}

fn span_f1(answers: &[&Answered]) -> f64 {
    span_mean(answers, |_, f1| f1)
}

fn exact_match(answers: &[&Answered]) -> f64 {
    span_mean(answers, |exact, _| f64::from(u8::from(exact)))
}

/// Share of right labels; of words, where words are labelled.
fn accuracy(answers: &[&Answered]) -> f64 {
    let (mut right, mut all) = (0, 0);
    for answer in answers {
        match answer {
            Answered::Class { truth, found } => {
                right += usize::from(truth == found);
                all += 1;
            }
            Answered::Tags { truth, found } => {
                right += truth.iter().zip(found).filter(|(truth, found)| truth == found).count();
                all += truth.len();
            }
            _ => {}
        }
    }
    right as f64 / all.max(1) as f64
}

/// Right, found and true ones.
fn f1(right: usize, found: usize, truth: usize) -> f64 {
    if found + truth == 0 { 0.0 } else { 2.0 * right as f64 / (found + truth) as f64 }
}

fn classes<'a>(answers: &'a [&Answered]) -> impl Iterator<Item = (usize, usize)> + 'a {
    answers.iter().filter_map(|answer| match answer {
        Answered::Class { truth, found } => Some((*truth, *found)),
        _ => None,
    })
}

/// Of which of two classes F1 is ([`Answers::metrics`]).
fn positive_class(labels: &[String], answered: &[&Answered]) -> usize {
    if let [0, 1] | [1, 0] = *labels.iter().filter_map(|label| label.parse().ok()).collect::<Vec<u8>>() {
        return usize::from(labels[1] == "1");
    }
    let ones = classes(answered).filter(|&(truth, _)| truth == 1).count();
    usize::from(2 * ones < answered.len())
}

/// F1 of one class.
fn class_f1(answers: &[&Answered], class: usize) -> f64 {
    let count = |keep: &dyn Fn((usize, usize)) -> bool| classes(answers).filter(|&pair| keep(pair)).count();
    f1(count(&|pair| pair == (class, class)), count(&|pair| pair.1 == class), count(&|pair| pair.0 == class))
}

/// Matthews' correlation of two classes.
fn matthews(answers: &[&Answered]) -> f64 {
    let mut counts = [[0.0f64; 2]; 2];
    for (truth, found) in classes(answers) {
        counts[truth.min(1)][found.min(1)] += 1.0;
    }
    let [[tn, fp], [fn_, tp]] = counts;
    let scale = ((tp + fp) * (tp + fn_) * (tn + fp) * (tn + fn_)).sqrt();
    if scale == 0.0 { 0.0 } else { (tp * tn - fp * fn_) / scale }
}

/// F1 of whole chunks in the IOB2 or IOBES scheme, as seqeval and conlleval count.
fn chunk_f1(answers: &[&Answered], labels: &[String]) -> f64 {
    let (mut right, mut found_chunks, mut true_chunks) = (0, 0, 0);
    for answer in answers {
        let Answered::Tags { truth, found } = answer else { continue };
        let (truth, found) = (chunks(truth, labels), chunks(found, labels));
        right += truth.intersection(&found).count();
        found_chunks += found.len();
        true_chunks += truth.len();
    }
    f1(right, found_chunks, true_chunks)
}

/// (first word, one past the last, type) of every chunk; `I-` and `E-` after another type, or after an end, begin one.
fn chunks<'l>(tags: &[u16], labels: &'l [String]) -> HashSet<(usize, usize, &'l str)> {
    let mut all = HashSet::new();
    let mut open: Option<(usize, &str)> = None;
    let mut ended = false;
    for (index, &tag) in tags.iter().enumerate() {
        let (prefix, kind) =
            labels.get(usize::from(tag)).and_then(|label| label.split_once('-')).unwrap_or(("O", ""));
        let goes_on = matches!(prefix, "I" | "E") && !ended && open.is_some_and(|(_, open)| open == kind);
        ended = matches!(prefix, "E" | "S");
        if !goes_on {
            all.extend(open.take().map(|(first, open)| (first, index, open)));
            open = (prefix != "O").then_some((index, kind));
        }
    }
    all.extend(open.map(|(first, kind)| (first, tags.len(), kind)));
    all
}

fn value_pairs(answers: &[&Answered]) -> (Vec<f64>, Vec<f64>) {
    let pairs = answers.iter().filter_map(|answer| match answer {
        Answered::Value { truth, found } => Some((*truth, *found)),
        _ => None,
    });
    pairs.unzip()
}

fn pearson(answers: &[&Answered]) -> f64 {
    let (truth, found) = value_pairs(answers);
    correlation(&truth, &found)
}

/// Pearson's correlation of the ranks.
fn spearman(answers: &[&Answered]) -> f64 {
    let (truth, found) = value_pairs(answers);
    correlation(&ranks(&truth), &ranks(&found))
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(b).map(|(a, b)| f(a - mean_a, b - mean_b)).sum()
    };
    let scale = (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
    if scale == 0.0 { 0.0 } else { sum(&|a, b| a * b) / scale }
}

/// Ranks from 1; ties share their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0.0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        for &index in tied {
            ranks[index] = before + (tied.len() as f64 + 1.0) / 2.0;
        }
        before += tied.len() as f64;
    }
    ranks
}

/// SQuAD's normal form: lower case, no punctuation, no articles, single spaces.
fn plain(text: &str) -> String {
    let letters: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let words = letters.split_whitespace().filter(|word| !["a", "an", "the"].contains(word));
    words.collect::<Vec<_>>().join(" ")
}

/// F1 of the words of two answers, as SQuAD's official script.
fn word_f1(found: &str, truth: &str) -> f64 {
    let (found, truth) = (plain(found), plain(truth));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in truth.split(' ') {
        *counts.entry(word).or_default() += 1;
    }
    let right = found.split(' ').filter(|word| {
        let left = counts.get_mut(word).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    });
    f1(right.count(), found.split(' ').count(), truth.split(' ').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_is_of_the_class_that_the_task_is_about() {
        let answers = [0, 1, 1, 1].map(|truth| Answered::Class { truth, found: 1 });
        let answers: Vec<&Answered> = answers.iter().collect();
        let class = |labels: [&str; 2]| positive_class(&labels.map(str::to_owned), &answers);
        assert_eq!((class(["0", "1"]), class(["1", "0"]), class(["spam", "ham"])), (1, 0, 0));
        assert_eq!((class_f1(&answers, 0), class_f1(&answers, 1)), (0.0, 6.0 / 7.0));
    }

    /// What seqeval 1.2.2 has as the entities of these tags.
    #[test]
    fn chunks_are_those_of_seqeval() {
        let labels = ["O", "B-P", "I-P", "E-P", "S-P", "I-L", "S-L", "E-L"].map(str::to_owned);
        let found = |tags: &[u16]| {
            let mut found: Vec<_> = chunks(tags, &labels).into_iter().collect();
            found.sort();
            found
        };
        assert_eq!(
            found(&[1, 2, 3, 3, 0, 4, 4, 7]),
            [(0, 3, "P"), (3, 4, "P"), (5, 6, "P"), (6, 7, "P"), (7, 8, "L")]
        );
        assert_eq!(found(&[1, 3, 2, 2, 6, 5, 0]), [(0, 2, "P"), (2, 4, "P"), (4, 5, "L"), (5, 6, "L")]);
        assert_eq!(found(&[2, 2, 5, 1, 1, 3]), [(0, 2, "P"), (2, 3, "L"), (3, 4, "P"), (4, 6, "P")]);
    }
}
