//! What is learned: a task, and examples of it.

use core::ops::Range;

use crate::Error;
use crate::text::{Input, Token};
use crate::weights::{HeadKind, Labels, Model, OWN_LABELS};

/// A kind of answer and the names of its labels.
#[derive(Clone, Copy, Debug)]
pub struct Task<'t> {
    /// Which head learns.
    pub kind: HeadKind,
    /// Names of its outputs, in the order of their numbers.
    pub labels: &'t [&'t str],
    /// What an example of each label counts; empty if all count 1.
    pub class_weights: &'t [f32],
    /// How much of a label's probability is given to all labels alike, 0.0..1.0.
    pub label_smoothing: f32,
}

impl<'t> Task<'t> {
    /// Which of `labels` has a text?
    pub const fn classify(labels: &'t [&'t str]) -> Self {
        Self::new(HeadKind::Classify, labels)
    }

    /// Which of `labels` has each word?
    pub const fn tag(labels: &'t [&'t str]) -> Self {
        Self::new(HeadKind::Tag, labels)
    }

    /// What value has a text?
    pub const fn regress() -> Self {
        Self::new(HeadKind::Regress, &["value"])
    }

    /// Where in the context does the answer stand?
    pub const fn answer() -> Self {
        Self::new(HeadKind::Answer, &["start", "end"])
    }

    /// Which words were replaced?
    pub const fn detect() -> Self {
        Self::new(HeadKind::Detect, &["replaced"])
    }

    /// The task of a head; `labels` are the names of classes or tags, and count for no other.
    pub const fn of(kind: HeadKind, labels: &'t [&'t str]) -> Self {
        match kind {
            HeadKind::Regress => Self::regress(),
            HeadKind::Answer => Self::answer(),
            HeadKind::Detect => Self::detect(),
            HeadKind::Tag => Self::tag(labels),
            HeadKind::Classify | HeadKind::FillMask => Self::classify(labels),
        }
    }

    const fn new(kind: HeadKind, labels: &'t [&'t str]) -> Self {
        Self { kind, labels, class_weights: &[], label_smoothing: 0.0 }
    }

    pub(super) const fn names(&self) -> Labels<'t> {
        Labels::Names(self.labels)
    }

    /// Whether the outputs of a head that is not trained keep the model's names: under others they would answer for each
    /// other.
    pub(super) fn check_names(&self, model: &Model<'_>, trained: bool) -> Result<(), Error> {
        if trained || !self.kind.has_label_names() {
            return Ok(());
        }
        let own = &model.head(self.kind)?.labels;
        let same = own.iter().zip(self.labels).all(|(own, label)| own.as_str() == *label);
        if same { Ok(()) } else { Err(Error::InvalidSetting { field: "labels", range: OWN_LABELS }) }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let invalid = |field, range| Err(Error::InvalidSetting { field, range });
        let weights = self.class_weights;
        if !weights.is_empty() && weights.len() != self.labels.len() {
            return invalid("class_weights", "empty, or one for each label");
        }
        if !weights.iter().all(|&weight| weight >= 0.0 && weight.is_finite()) {
            return invalid("class_weights", "0 or more, and finite");
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return invalid("label_smoothing", "0.0 or more and below 1.0");
        }
        if self
            .labels
            .iter()
            .any(|name| name.is_empty() || name.bytes().any(|byte| matches!(byte, b'\n' | b'\r')))
        {
            return invalid("labels", "names without line ends, none of them empty");
        }
        Ok(())
    }
}

/// What a text teaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target<'t> {
    /// The text's label.
    Class(usize),
    /// The text's value.
    Value(f32),
    /// The label of each word; words are what whitespace separates.
    Tags(&'t [u16]),
    /// Whether each word was replaced.
    Replaced(&'t [bool]),
    /// The answer's first byte in the context, and one past its last.
    Span(usize, usize),
}

/// The label of a token that teaches nothing.
pub(crate) const IGNORED: u16 = u16::MAX;

/// Writes what `target` says of each of `tokens` into `labels`: the class or the span's ends in the first
/// places, or one label a token.
pub(crate) fn label_tokens(
    task: &Task<'_>,
    input: Input<'_>,
    target: Target<'_>,
    tokens: &[Token],
    labels: &mut [u16],
) -> Result<(), Error> {
    labels.fill(IGNORED);
    match (task.kind, target) {
        (HeadKind::Classify, Target::Class(label)) => set(labels, 0, checked(label, task)?),
        (HeadKind::Regress, Target::Value(value)) => {
            if !value.is_finite() {
                return Err(Error::InvalidSetting { field: "value", range: "finite" });
            }
        }
        (HeadKind::Tag, Target::Tags(tags)) => {
            each_word(input.text, tokens, tags, |first, _, tag| {
                set(labels, first, checked(tag.into(), task)?);
                Ok(())
            })?;
        }
        (HeadKind::Detect, Target::Replaced(replaced)) => {
            each_word(input.text, tokens, replaced, |first, end, replaced| {
                labels.get_mut(first..end).unwrap_or_default().fill(replaced.into());
                Ok(())
            })?;
        }
        (HeadKind::Answer, Target::Span(start, end)) => {
            let context =
                tokens.iter().enumerate().filter(|(_, token)| token.type_id == 1 && token.special == 0);
            let first = context.clone().find(|(_, token)| token.start as usize == start);
            let last = context.clone().find(|(_, token)| token.end as usize == end);
            let (Some((first, _)), Some((last, _))) = (first, last) else {
                return Err(Error::SpanOutsideContext);
            };
            if first > last {
                return Err(Error::SpanOutsideContext);
            }
            set(labels, 0, first as u16);
            set(labels, 1, last as u16);
        }
        _ => return Err(Error::WrongTarget(task.kind.name())),
    }
    Ok(())
}

fn checked(label: usize, task: &Task<'_>) -> Result<u16, Error> {
    let labels = task.labels.len();
    if label < labels { Ok(label as u16) } else { Err(Error::LabelOutOfRange { label, labels }) }
}

fn set(labels: &mut [u16], index: usize, label: u16) {
    if let Some(place) = labels.get_mut(index) {
        *place = label;
    }
}

/// Calls `each` with the tokens `first..end` of every word that has some, and the word's value.
fn each_word<T: Copy>(
    text: &str,
    tokens: &[Token],
    values: &[T],
    mut each: impl FnMut(usize, usize, T) -> Result<(), Error>,
) -> Result<(), Error> {
    let words = text.split_whitespace().count();
    if words != values.len() {
        return Err(Error::LabelCount { found: values.len(), words });
    }
    let mut next = 1;
    for (word, &value) in word_spans(text).zip(values) {
        let first = next;
        while tokens.get(next).is_some_and(|token| token.special == 0 && (token.start as usize) < word.end) {
            next += 1;
        }
        if next > first {
            each(first, next, value)?;
        }
    }
    Ok(())
}

/// The bytes of each word, which whitespace separates.
pub fn word_spans(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.split_whitespace().map(|word| {
        let start = word.as_ptr().addr() - text.as_ptr().addr();
        start..start + word.len()
    })
}
