//! A session's answers, written where the caller wants them: the same for sessions and models.

use super::refusal::Refusal;
use super::value::{Answer, Detection, Room, Tag};
use crate::tasks::Pooling;
use crate::text::Input;
use crate::{HeadKind, Session};

pub fn detect(
    session: &mut Session<'_, '_>,
    input: Input<'_>,
    room: Room<'_, Detection>,
) -> Result<(), Refusal> {
    let found = session.detect(input)?;
    room.fill(found.map(|found| Detection {
        start: found.token.start,
        end: found.token.end,
        replaced: found.replaced,
    }))
}

pub fn classify(session: &mut Session<'_, '_>, input: Input<'_>, room: Room<'_, f32>) -> Result<(), Refusal> {
    room.fill(session.classify(input)?.iter().copied())
}

pub fn tag(session: &mut Session<'_, '_>, input: Input<'_>, room: Room<'_, Tag>) -> Result<(), Refusal> {
    let words = session.tag(input)?;
    room.fill(words.map(|word| Tag {
        start: word.start,
        end: word.end,
        label: word.label as u32,
        score: word.score,
    }))
}

pub fn answer(session: &mut Session<'_, '_>, question: &str, context: &str) -> Result<Answer, Refusal> {
    let found = session.answer(question, context)?;
    Ok(Answer { start: found.start as u32, end: found.end as u32, score: found.score })
}

pub fn embed(session: &mut Session<'_, '_>, input: Input<'_>, room: Room<'_, f32>) -> Result<(), Refusal> {
    room.fill(session.embed(input, Pooling::Mean)?.iter().copied())
}

/// The name of a class or tag, without a NUL.
pub fn label(session: &Session<'_, '_>, number: usize, room: Room<'_, u8>) -> Result<(), Refusal> {
    // Those of what was learned before the model's own.
    let kinds = session.adapter_kind().into_iter().chain([HeadKind::Classify, HeadKind::Tag]);
    let mut named = kinds.filter(|kind| kind.has_label_names());
    let kind = named.find(|&kind| session.label_count(kind).is_ok());
    let mut names = session.label_names(kind.unwrap_or(HeadKind::Classify))?;
    let none = Refusal::Argument { field: "number", reason: "there is no label of that number" };
    room.fill(names.nth(number).ok_or(none)?.bytes())
}
