//! An example in a slot of bytes: its texts and what it teaches, so that it can be learned again later.

use super::Target;
use crate::text::Input;

/// In front of an example: what it teaches, and the lengths of text, pair and target.
///
/// | bytes | field |
/// |---|---|
/// | 0 | kind of target, 1..=5; 0 of an empty slot |
/// | 1 | 1 if there is a pair, 2 if too long a text is cut off |
/// | 2..4 | entries of the target |
/// | 4..8, 8..12 | bytes of text and pair |
/// | 12..16 | zero |
pub const PREFIX: usize = 16;

/// Bytes of a target's entries.
fn target_bytes(target: Target<'_>) -> usize {
    match target {
        Target::Class(_) | Target::Value(_) => 4,
        Target::Tags(tags) => 2 * tags.len(),
        Target::Replaced(replaced) => replaced.len(),
        Target::Span(..) => 8,
    }
}

/// Bytes that an example takes in a slot; too many for any, if it teaches more words than fit.
pub fn encoded_bytes(input: Input<'_>, target: Target<'_>) -> usize {
    match target {
        Target::Tags(tags) if tags.len() > MOST_WORDS => return usize::MAX,
        Target::Replaced(replaced) if replaced.len() > MOST_WORDS => return usize::MAX,
        _ => {}
    }
    let texts = input.text.len() + input.pair.map_or(0, str::len);
    PREFIX.saturating_add(texts).saturating_add(target_bytes(target).next_multiple_of(4))
}

/// Writes an example into a slot that has room for it.
pub fn encode(input: Input<'_>, target: Target<'_>, slot: &mut [u8]) {
    let pair = input.pair.unwrap_or_default();
    let (kind, entries) = match target {
        Target::Class(_) => (1, 1),
        Target::Value(_) => (2, 1),
        Target::Tags(tags) => (3, tags.len()),
        Target::Replaced(replaced) => (4, replaced.len()),
        Target::Span(..) => (5, 2),
    };
    let flags = u8::from(input.pair.is_some()) | u8::from(input.truncate) << 1;
    slot.fill(0);
    let mut rest = slot;
    let mut put = |bytes: &[u8]| {
        if let Some(place) = rest.split_off_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(&[kind, flags]);
    put(&(entries as u16).to_le_bytes());
    put(&(input.text.len() as u32).to_le_bytes());
    put(&(pair.len() as u32).to_le_bytes());
    put(&[0; 4]);
    match target {
        Target::Class(label) => put(&(label as u32).to_le_bytes()),
        Target::Value(value) => put(&value.to_le_bytes()),
        Target::Tags(tags) => tags.iter().for_each(|tag| put(&tag.to_le_bytes())),
        Target::Replaced(replaced) => replaced.iter().for_each(|&one| put(&[one.into()])),
        Target::Span(start, end) => [start, end].iter().for_each(|&at| put(&(at as u32).to_le_bytes())),
    }
    put([0; 3].get(..target_bytes(target).next_multiple_of(4) - target_bytes(target)).unwrap_or_default());
    put(input.text.as_bytes());
    put(pair.as_bytes());
}

/// Longest target that is remembered, in words.
const MOST_WORDS: usize = 128;

/// What a slot's example teaches, in room of its own: slots are not aligned.
pub enum Remembered {
    Class(usize),
    Value(f32),
    Tags([u16; MOST_WORDS], usize),
    Replaced([bool; MOST_WORDS], usize),
    Span(usize, usize),
}

impl Remembered {
    /// As the tuner takes it.
    pub fn as_target(&self) -> Target<'_> {
        match self {
            Self::Class(label) => Target::Class(*label),
            Self::Value(value) => Target::Value(*value),
            Self::Tags(tags, count) => Target::Tags(tags.get(..*count).unwrap_or_default()),
            Self::Replaced(replaced, count) => Target::Replaced(replaced.get(..*count).unwrap_or_default()),
            Self::Span(start, end) => Target::Span(*start, *end),
        }
    }
}

/// The example in a slot, if there is one.
pub fn decode(slot: &[u8]) -> Option<(Input<'_>, Remembered)> {
    let (prefix, rest) = slot.split_first_chunk::<PREFIX>()?;
    let word = |at: usize| prefix.get(at..at + 4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let entries = usize::from(u16::from_le_bytes([prefix[2], prefix[3]]));
    let bytes = match prefix[0] {
        1 | 2 => 4,
        3 => 2 * entries,
        4 => entries,
        5 => 8,
        _ => return None,
    };
    let (target, texts) = rest.split_at_checked(bytes.next_multiple_of(4))?;
    let (text, rest) = texts.split_at_checked(word(4)? as usize)?;
    let pair = rest.get(..word(8)? as usize)?;
    let input = Input {
        text: core::str::from_utf8(text).ok()?,
        pair: (prefix[1] & 1 == 1).then_some(core::str::from_utf8(pair).ok()?),
        truncate: prefix[1] & 2 == 2,
    };
    let number = |at: usize| target.get(at..at + 4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let remembered = match prefix[0] {
        1 => Remembered::Class(number(0)? as usize),
        2 => Remembered::Value(f32::from_bits(number(0)?)),
        3 => {
            let mut tags = [0; MOST_WORDS];
            for (tag, bytes) in tags.iter_mut().zip(target.as_chunks().0) {
                *tag = u16::from_le_bytes(*bytes);
            }
            Remembered::Tags(tags, entries)
        }
        4 => {
            let mut replaced = [false; MOST_WORDS];
            for (one, byte) in replaced.iter_mut().zip(target) {
                *one = *byte == 1;
            }
            Remembered::Replaced(replaced, entries)
        }
        _ => Remembered::Span(number(0)? as usize, number(4)? as usize),
    };
    Some((input, remembered))
}
