//! What can be examined: a session of a quantised model, or the same network in f32.

use ndarray::Axis;

use crate::import::{Checkpoint, HeadTensors};
use crate::quantize::vocabulary_archive;
use crate::reference::{Reference, Sequence};
use crate::tasks::TokenLogits;
use crate::text::{Input, Token, Tokenizer};
use crate::weights::{AlignedBytes, own_vocabulary};
use crate::{Error, HeadKind, Session};

/// Something that answers a text through one of its heads.
pub trait Reader {
    /// How many outputs the head of that kind has.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`].
    fn label_count(&self, head: HeadKind) -> Result<usize, Error>;

    /// The head's logits `[tokens, labels]`; those of the first token alone, without tokens, where the head answers
    /// from it.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`], [`Error::EmptyText`], what the tokeniser says.
    fn read(&mut self, head: HeadKind, input: Input<'_>) -> Result<TokenLogits<'_>, Error>;
}

impl Reader for Session<'_, '_> {
    fn label_count(&self, head: HeadKind) -> Result<usize, Error> {
        self.label_count(head)
    }

    fn read(&mut self, head: HeadKind, input: Input<'_>) -> Result<TokenLogits<'_>, Error> {
        if head.answers_from_first_token() {
            Ok(TokenLogits { tokens: &[], logits: self.first_token_logits(head, input)? })
        } else {
            self.token_logits(head, input)
        }
    }
}

/// A checkpoint as the f32 reference reads it.
#[derive(Debug)]
pub struct ReferenceReader<'c> {
    checkpoint: &'c Checkpoint,
    text: TextReader,
    logits: Vec<f32>,
}

impl<'c> ReferenceReader<'c> {
    /// A reader of sequences of up to `tokens` tokens.
    pub fn new(checkpoint: &'c Checkpoint, tokens: usize) -> Self {
        Self { checkpoint, text: TextReader::new(checkpoint, tokens), logits: Vec::new() }
    }

    fn head(&self, kind: HeadKind) -> Result<&'c HeadTensors, Error> {
        let head = self.checkpoint.heads.iter().find(|head| head.kind == kind);
        head.ok_or(Error::NoSuchHead(kind.name()))
    }
}

impl Reader for ReferenceReader<'_> {
    fn label_count(&self, head: HeadKind) -> Result<usize, Error> {
        Ok(self.head(head)?.labels.len())
    }

    fn read(&mut self, kind: HeadKind, input: Input<'_>) -> Result<TokenLogits<'_>, Error> {
        let head = self.head(kind)?;
        let tokens = self.text.tokens(input)?;
        let checked = "a checkpoint's tensors were checked when it was opened";
        let reference = Reference(self.checkpoint);
        let states = reference.hidden_states(&Sequence::of(tokens)).expect(checked);
        let last = states.last().expect("the embeddings at least");
        let answering = last.slice_axis(Axis(0), (..kind.answering_rows(tokens.len())).into());
        let logits = reference.logits(head, answering).expect(checked);
        self.logits = logits.into_iter().collect();
        Ok(TokenLogits {
            tokens: if kind.answers_from_first_token() { &[] } else { tokens },
            logits: &self.logits,
        })
    }
}

/// A checkpoint's tokeniser with a place for tokens.
#[derive(Debug)]
pub struct TextReader {
    archive: AlignedBytes,
    tokens: Vec<Token>,
}

impl TextReader {
    /// The tokeniser of a checkpoint for sequences of up to `tokens` tokens.
    pub fn new(checkpoint: &Checkpoint, tokens: usize) -> Self {
        let archive = vocabulary_archive(&checkpoint.pieces, &checkpoint.special, checkpoint.uncased);
        Self { archive, tokens: vec![Token::default(); tokens] }
    }

    /// The tokens of an input.
    ///
    /// # Errors
    /// [`Error::EmptyText`], and those of [`Tokenizer::encode`].
    pub fn tokens(&mut self, input: Input<'_>) -> Result<&[Token], Error> {
        let vocabulary = own_vocabulary(self.archive.as_slice())?;
        let length = Tokenizer::new(vocabulary).encode(input, &mut self.tokens)?;
        let tokens = &self.tokens[..length];
        if tokens.iter().all(|token| token.special == 1) { Err(Error::EmptyText) } else { Ok(tokens) }
    }
}
