//! A board as the evaluation harness examines it: texts go over the line, and what comes back is scored as any
//! model's answers are.

use super::{Client, Failure};
use crate::evaluate::Reader;
use crate::link::{Answer, Command};
use crate::tasks::TokenLogits;
use crate::text::Input;
use crate::{Error, HeadKind};

/// Answers which label a single text has.
pub struct BoardReader {
    client: Client,
    labels: Vec<String>,
    probabilities: Vec<f32>,
    failure: Option<Failure>,
}

impl BoardReader {
    /// Asks a board for its labels, which stand in the answer to any text.
    ///
    /// # Errors
    /// [`Failure`]; it refuses if it has no labels.
    pub fn new(mut client: Client) -> Result<Self, Failure> {
        let labels = labels(&mut client, "a")?.into_iter().map(|(name, _)| name).collect();
        Ok(Self { client, labels, probabilities: Vec::new(), failure: None })
    }

    /// Their names.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What the line or the board said, where [`Reader::read`] gave an error for it.
    pub fn failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }
}

impl Reader for BoardReader {
    fn label_count(&self, head: HeadKind) -> Result<usize, Error> {
        if head == HeadKind::Classify { Ok(self.labels.len()) } else { Err(Error::NoSuchHead(head.name())) }
    }

    fn read(&mut self, head: HeadKind, input: Input<'_>) -> Result<TokenLogits<'_>, Error> {
        self.label_count(head)?;
        match labels(&mut self.client, input.text) {
            // A model with other labels may have been installed meanwhile.
            Ok(labels) if !labels.iter().map(|label| &label.0).eq(&self.labels) => {
                self.failure = Some(Failure::Unexpected("a label"));
                return Err(Error::ReadFailed);
            }
            Ok(labels) => self.probabilities = labels.into_iter().map(|label| label.1).collect(),
            Err(Failure::EmptyText) => return Err(Error::EmptyText),
            Err(failure) => {
                self.failure = Some(failure);
                return Err(Error::ReadFailed);
            }
        }
        // A probability's logarithm is its logit, less what all have in common.
        self.probabilities.iter_mut().for_each(|p| *p = p.ln());
        Ok(TokenLogits { tokens: &[], logits: &self.probabilities })
    }
}

/// A text's labels and their probabilities.
fn labels(client: &mut Client, text: &str) -> Result<Vec<(String, f32)>, Failure> {
    let answers = client.ask(Command::Classify(text))?;
    let labels = answers.iter().filter_map(|answer| match answer {
        Answer::Label { name, score } => Some((name.to_owned(), score)),
        _ => None,
    });
    Ok(labels.collect())
}
