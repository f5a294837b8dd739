//! What a model in flash answers.

use electret::kernels::{self, KernelSet};
use electret::link::{Answer, Command};
use electret::tasks::TokenLogits;
use electret::text::{Input, Token};
use electret::{Error, HeadKind, Model, Plan, Session};
use embedded_io::Write;

use crate::line::{Refusal, Reply};

/// Tokens of the shortest sequence: a piece between two special ones.
pub const SHORTEST: usize = 3;

/// A model, and the plan of the longest sequence that fits into the memory to answer in.
#[derive(Clone, Copy)]
pub struct Running {
    pub model: Model<'static>,
    pub plan: Plan,
    pub slot: u8,
    kernels: &'static KernelSet,
}

impl Running {
    /// Opens the model of a slot.
    pub fn open(slot: u8, file: &'static [u8], memory: usize) -> Result<Self, Error> {
        let model = Model::open(file)?;
        let config = model.config();
        let plan = |tokens| Plan::inference(config, tokens).for_model(&model);
        let fits = |&tokens: &usize| plan(tokens).bytes() <= memory;
        let tokens = (SHORTEST..=config.max_position_embeddings).rev().find(fits);
        let plan = plan(tokens.unwrap_or(SHORTEST));
        Ok(Self { model, plan, slot, kernels: kernels::best() })
    }

    pub fn session<'a>(&self, memory: &'a mut [u8]) -> Result<Session<'static, 'a>, Error> {
        Session::with(self.model, memory, self.plan, self.kernels)
    }
}

/// Answers with a session.
pub fn answer<S: Write>(
    mut session: Session<'_, '_>,
    command: Command<'_>,
    clock: fn() -> u64,
    reply: &mut Reply<'_, S>,
) -> Result<(), Refusal> {
    match command {
        Command::Detect(text) => {
            let TokenLogits { tokens, logits } = session.token_logits(HeadKind::Detect, text.into())?;
            for (token, &logit) in tokens.iter().zip(logits).filter(|(token, _)| token.special == 0) {
                reply.say(Answer::Token { start: token.start, end: token.end, logit });
            }
        }
        Command::Classify(text) => {
            let names = session.label_names(HeadKind::Classify)?;
            let input = Input { text, pair: None, truncate: true };
            for (name, &score) in names.zip(session.classify(input)?) {
                reply.say(Answer::Label { name, score });
            }
        }
        Command::Tag(text) => {
            let labels = session.label_count(HeadKind::Tag)?;
            let names = session.label_names(HeadKind::Tag)?;
            let found = session.token_logits(HeadKind::Tag, text.into())?;
            words(found, labels, names, reply);
        }
        Command::SelfTest => {
            let (sentences, agree) = session.self_test()?;
            reply.figure("sentences", sentences as u64);
            reply.figure("same bits", agree.into());
        }
        Command::Bench { tokens } => {
            let vocabulary = session.model().config().vocab_size;
            let all: [Token; LONGEST_BENCH] =
                core::array::from_fn(|index| Token::of((index * 7919 % vocabulary) as u32, 0));
            let tokens = all.get(..tokens.into()).ok_or(Refusal::Because("bench: at most 128 tokens"))?;
            let begin = clock();
            session.hidden_states_of(tokens)?;
            reply.figure("microseconds", clock().wrapping_sub(begin));
        }
        _ => return Err(Refusal::Because("unknown command")),
    }
    Ok(())
}

/// Tokens of the longest sequence that is timed.
const LONGEST_BENCH: usize = 128;

/// Says the likeliest label of each word, which is that of its first piece.
fn words<'n, S: Write>(
    found: TokenLogits<'_>,
    labels: usize,
    names: impl Iterator<Item = &'n str> + Clone,
    reply: &mut Reply<'_, S>,
) {
    let mut word: Option<Answer<'n>> = None;
    for (token, logits) in found.tokens.iter().zip(found.logits.chunks_exact(labels.max(1))) {
        match &mut word {
            Some(Answer::Word { end, .. }) if token.continues == 1 => *end = token.end,
            _ if token.special == 1 => {}
            _ => {
                word.take().into_iter().for_each(|word| reply.say(word));
                let likelier = |best: (usize, f32), (label, &logit): (usize, &f32)| {
                    if logit > best.1 { (label, logit) } else { best }
                };
                let (label, logit) = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), likelier);
                let label = names.clone().nth(label).unwrap_or_default();
                word = Some(Answer::Word { start: token.start, end: token.end, label, logit });
            }
        }
    }
    word.into_iter().for_each(|word| reply.say(word));
}
