//! What one asks of a model: a [`Session`] takes text and answers through one of the heads.
//!
//! Every call runs text → tokens → encoder → head inside the session's arena and borrows its
//! answer from there, with byte offsets into the caller's text. Nothing is padded: a sentence of
//! nine tokens costs nine.

mod answer;
#[cfg(feature = "parallel")]
mod batch;
mod embed;
mod fill_mask;
pub(crate) mod head;
mod tag;

pub use answer::Answer;
#[cfg(feature = "convert")]
pub(crate) use answer::Windows;
#[cfg(feature = "parallel")]
pub use batch::{Batch, BatchError};
pub use embed::Pooling;
pub use fill_mask::Prediction;
pub use tag::Tagged;

use crate::encoder::{Network, Workspace};
use crate::kernels::{self, KernelSet, lanes};
use crate::rows::Rows;
use crate::text::{Input, Token, Tokenizer};
use crate::weights::{Adapter, HeadKind, Model, check_finite};
use crate::{Error, Plan};

/// A model at work in a caller's arena.
#[derive(Debug)]
pub struct Session<'m, 'a> {
    network: Network<'m>,
    plan: Plan,
    arena: &'a mut [u8],
}

/// Logits of each token.
#[derive(Clone, Copy, Debug)]
pub struct TokenLogits<'s> {
    /// The sequence, special tokens included.
    pub tokens: &'s [Token],
    /// `[tokens, labels]`.
    pub logits: &'s [f32],
}

/// One token of the text and how likely it is to be a replacement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Where it stands.
    pub token: Token,
    /// Probability that it was replaced.
    pub replaced: f32,
}

impl<'m, 'a> Session<'m, 'a> {
    /// A session for sequences of up to `tokens` tokens, with this machine's fastest kernels.
    ///
    /// # Errors
    /// [`Error::ArenaTooSmall`] with the bytes that [`Plan::inference`] for the model asks for,
    /// [`Error::ArenaMisaligned`], [`Error::SequenceTooLong`] beyond the model's positions,
    /// [`Error::SequenceTooShort`] below 3.
    pub fn new(model: Model<'m>, arena: &'a mut [u8], tokens: usize) -> Result<Self, Error> {
        Self::with(model, arena, Plan::inference(model.config(), tokens), kernels::best())
    }

    /// The same with a plan's number of tokens and rows, made [for the model](Plan::for_model) if it was not, and with
    /// kernels of the caller's choice; the answers are the same bits.
    pub fn with(
        model: Model<'m>,
        arena: &'a mut [u8],
        plan: Plan,
        kernels: &'static KernelSet,
    ) -> Result<Self, Error> {
        let plan = Plan::with_block_rows(model.config(), plan.tokens, plan.block_rows).for_model(&model);
        let limit = model.config().max_position_embeddings;
        if plan.tokens > limit {
            return Err(Error::SequenceTooLong { tokens: plan.tokens, limit });
        }
        if plan.tokens < 3 || plan.block_rows == 0 {
            return Err(Error::SequenceTooShort);
        }
        let (needed, found) = (plan.bytes(), arena.len());
        if found < needed {
            return Err(Error::ArenaTooSmall { needed, found });
        }
        Workspace::carve(arena, &plan)?;
        Ok(Self { network: Network::new(model, kernels), plan, arena })
    }

    /// Answers with what was learned on top of the model from now on; with `None` as the model was.
    /// Nothing is copied or computed.
    ///
    /// # Errors
    /// [`Error::ForeignAdapter`] if it was learned on another model.
    pub fn with_adapter(mut self, adapter: Option<Adapter<'m>>) -> Result<Self, Error> {
        self.set_adapter(adapter)?;
        Ok(self)
    }

    /// The same for a session that is there already.
    ///
    /// # Errors
    /// [`Error::ForeignAdapter`]; it answers as before then.
    pub fn set_adapter(&mut self, adapter: Option<Adapter<'m>>) -> Result<(), Error> {
        if let Some(Adapter { base: [expected, length], .. }) = adapter {
            let [found, own_length] = self.network.model.fingerprint();
            if (expected, length) != (found, own_length) {
                return Err(Error::ForeignAdapter { expected, found });
            }
        }
        self.network.adapter = adapter;
        Ok(())
    }

    /// Calls `pulse` before each block of rows of each layer, so that a long sentence starves no watchdog.
    pub fn with_pulse(mut self, pulse: fn()) -> Self {
        self.network.pulse = pulse;
        self
    }

    /// The model.
    pub fn model(&self) -> Model<'m> {
        self.network.model
    }

    /// What the adapter has learned, if one answers.
    pub fn adapter_kind(&self) -> Option<HeadKind> {
        self.network.adapter.map(|adapter| adapter.kind)
    }

    /// How many outputs the head of that kind has, the adapter's before the model's.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`].
    pub fn label_count(&self, kind: HeadKind) -> Result<usize, Error> {
        Ok(self.network.head(kind)?.labels)
    }

    /// Their names.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`].
    pub fn label_names(
        &self,
        kind: HeadKind,
    ) -> Result<impl Iterator<Item = &'m str> + Clone + use<'m>, Error> {
        let adapter = self.network.adapter.filter(|adapter| adapter.kind == kind);
        let own = if adapter.is_some() { None } else { Some(self.network.model.head(kind)?) };
        let own = own.into_iter().flat_map(|head| head.labels.iter().map(|label| label.as_str()));
        Ok(adapter.into_iter().flat_map(|adapter| adapter.labels.iter()).chain(own))
    }

    /// Answers the sentences that the model carries with what it should make of them: how many there are, and
    /// whether every bit agrees. An adapter takes no part in it.
    ///
    /// # Errors
    /// Those of [`Session::encode`].
    pub fn self_test(&mut self) -> Result<(usize, bool), Error> {
        let adapter = self.network.adapter.take();
        let tested = self.test_model();
        self.network.adapter = adapter;
        tested
    }

    fn test_model(&mut self) -> Result<(usize, bool), Error> {
        let checks = &self.network.model.root().checks;
        let mut agree = true;
        for check in checks.iter() {
            let hidden = self.encode(check.text.as_str().into())?.1.iter().map(|x| x.to_bits());
            let expected = check.hidden.iter().map(|x| x.to_native().to_bits());
            agree &= hidden.take(check.hidden.len()).eq(expected);
        }
        Ok((checks.len(), agree))
    }

    /// The plan of the arena.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Tokenises and encodes: the tokens, and the last hidden states `[tokens, hidden]`.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`], [`Error::EmptyText`], [`Error::NotFinite`].
    pub fn encode(&mut self, input: Input<'_>) -> Result<(&[Token], &[f32]), Error> {
        let hidden = self.network.model.config().hidden_size;
        let (workspace, length) = self.encoded(input)?;
        let states = workspace.residual.get(..length * hidden).unwrap_or_default();
        Ok((workspace.tokens.get(..length).unwrap_or_default(), states))
    }

    fn encoded(&mut self, input: Input<'_>) -> Result<(Workspace<'_>, usize), Error> {
        let mut workspace = Workspace::carve(self.arena, &self.plan)?;
        let tokenizer = Tokenizer::new(&self.network.model.root().vocabulary);
        let length = tokenizer.encode(input, workspace.tokens)?;
        if workspace.tokens.iter().take(length).all(|token| token.special == 1) {
            return Err(Error::EmptyText);
        }
        self.network.encode(&mut workspace, length)?;
        Ok((workspace, length))
    }

    /// The last hidden states `[tokens, hidden]` of tokens that are already there.
    ///
    /// # Errors
    /// [`Error::SequenceTooLong`], [`Error::EmptyText`] for no tokens, [`Error::NotFinite`].
    pub fn hidden_states_of(&mut self, tokens: &[Token]) -> Result<&[f32], Error> {
        self.encode_tokens(tokens)?;
        let workspace = Workspace::carve(self.arena, &self.plan)?;
        let values = tokens.len() * self.network.model.config().hidden_size;
        Ok(workspace.residual.get(..values).unwrap_or_default())
    }

    /// Encodes tokens that are already there, such as a corrupted sequence in an evaluation.
    fn encode_tokens(&mut self, tokens: &[Token]) -> Result<(), Error> {
        let limit = self.plan.tokens;
        let mut workspace = Workspace::carve(self.arena, &self.plan)?;
        let place = workspace.tokens.get_mut(..tokens.len());
        place.ok_or(Error::SequenceTooLong { tokens: tokens.len(), limit })?.copy_values(tokens);
        if tokens.is_empty() {
            return Err(Error::EmptyText);
        }
        self.network.encode(&mut workspace, tokens.len())
    }

    /// [`Session::token_logits`] for tokens that are already there. A head that answers from the
    /// first token gives its logits first.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`], [`Error::SequenceTooLong`], [`Error::EmptyText`] for no tokens,
    /// [`Error::NotFinite`].
    pub fn token_logits_of(&mut self, kind: HeadKind, tokens: &[Token]) -> Result<TokenLogits<'_>, Error> {
        self.encode_tokens(tokens)?;
        self.finish_token_logits(kind, tokens.len())
    }

    /// The logits of a head that answers for each token: [`HeadKind::Detect`], [`HeadKind::Tag`],
    /// [`HeadKind::Answer`].
    ///
    /// # Errors
    /// [`Error::NoSuchHead`], and those of [`Session::encode`].
    pub fn token_logits(&mut self, kind: HeadKind, input: Input<'_>) -> Result<TokenLogits<'_>, Error> {
        self.network.head(kind)?;
        let (_, length) = self.encoded(input)?;
        self.finish_token_logits(kind, length)
    }

    fn finish_token_logits(&mut self, kind: HeadKind, length: usize) -> Result<TokenLogits<'_>, Error> {
        let head = self.network.head(kind)?;
        let mut workspace = Workspace::carve(self.arena, &self.plan)?;
        head::every_token(&self.network, &head, &mut workspace, length);
        let Workspace { tokens, residual, .. } = workspace;
        let logits = residual.get(..length * head.labels).unwrap_or_default();
        check_finite(logits)?;
        Ok(TokenLogits { tokens: tokens.get(..length).unwrap_or_default(), logits })
    }

    /// How likely each token of a text, or of a pair, is to be a replacement, in order.
    ///
    /// # Errors
    /// As [`Session::token_logits`].
    pub fn detect<'t>(
        &mut self,
        input: impl Into<Input<'t>>,
    ) -> Result<impl Iterator<Item = Detection>, Error> {
        let TokenLogits { tokens, logits } = self.token_logits(HeadKind::Detect, input.into())?;
        let detections = tokens
            .iter()
            .zip(logits)
            .map(|(&token, &logit)| Detection { token, replaced: lanes::sigmoid(logit) });
        Ok(detections.filter(|detection| detection.token.special == 0))
    }

    /// Probability of each label, in the order of the head's labels, for a text or a pair.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`], and those of [`Session::encode`].
    pub fn classify(&mut self, input: Input<'_>) -> Result<&[f32], Error> {
        let kernels = self.network.kernels;
        let logits = self.first_token_logits(HeadKind::Classify, input)?;
        (kernels.softmax)(logits);
        Ok(logits)
    }

    /// The value of a text or a pair.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`], and those of [`Session::encode`].
    pub fn regress(&mut self, input: Input<'_>) -> Result<f32, Error> {
        let logits = self.first_token_logits(HeadKind::Regress, input)?;
        logits.first().copied().ok_or(Error::NoSuchHead(HeadKind::Regress.name()))
    }

    /// The logits of a head that answers from the first token.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`], and those of [`Session::encode`].
    pub fn first_token_logits(&mut self, kind: HeadKind, input: Input<'_>) -> Result<&mut [f32], Error> {
        let network = self.network;
        let head = network.head(kind)?;
        let (mut workspace, _) = self.encoded(input)?;
        head::every_token(&network, &head, &mut workspace, 1);
        let logits = workspace.residual.get_mut(..head.labels).unwrap_or_default();
        check_finite(logits)?;
        Ok(logits)
    }
}
