//! Text → words, as Hugging Face's `BertNormalizer` and `BertPreTokenizer` cut it.
//!
//! One pass over the characters: control characters go, white space separates, Chinese characters
//! stand alone; for an uncased vocabulary accents are stripped and letters lowered; punctuation
//! stands alone. Every character of a word remembers the bytes of the text it came from.

use heapless::Vec;

use super::number;
use super::tables::{COMBINING, COMPOSED, LEFT, NONSPACING, OTHER, PUNCTUATION, Point};

/// Longest word that is looked up, in characters; a longer one is `[UNK]`.
pub const MAX_WORD_CHARS: usize = 100;

/// Marks that are put into canonical order together; longer runs occur in no language.
const MAX_MARKS: usize = 32;

/// A range of bytes of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// A normalised character and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The character.
    pub char: char,
    /// The character of the text that it was made of.
    pub span: Span,
}

/// A word: what WordPiece spells.
#[derive(Debug, Default)]
pub struct Word {
    /// Its characters, the first [`MAX_WORD_CHARS`].
    pub letters: Vec<Letter, MAX_WORD_CHARS>,
    /// Whether there were more.
    pub too_long: bool,
    /// From its first to its last character.
    pub span: Span,
}

impl Word {
    fn push(&mut self, letter: Letter) {
        if self.letters.is_empty() {
            self.span = letter.span;
        }
        self.span.end = letter.span.end;
        self.too_long |= self.letters.push(letter).is_err();
    }

    fn clear(&mut self) {
        self.letters.clear();
        self.too_long = false;
    }
}

/// A combining mark that waits for its place in canonical order.
#[derive(Clone, Copy, Debug)]
struct Mark {
    char: char,
    class: u8,
    /// Whether it begins what its character decomposed to.
    begins: bool,
}

/// Cuts `text` into words and hands each to `take`. `text` is at most 4 GiB long.
pub fn words(text: &str, uncased: bool, take: impl FnMut(&Word)) {
    let mut cutter = Cutter {
        uncased,
        take,
        word: Word::default(),
        marks: Vec::new(),
        origins: Vec::new(),
        last: Span::default(),
    };
    for (start, char) in text.char_indices() {
        let span = Span { start: start as u32, end: (start + char.len_utf8()) as u32 };
        cutter.push(char, span);
    }
    cutter.settle_marks();
    cutter.end_word();
}

struct Cutter<F> {
    uncased: bool,
    take: F,
    word: Word,
    /// The run of marks after the last starter, and the spans of those that begin a decomposition.
    marks: Vec<Mark, MAX_MARKS>,
    origins: Vec<Span, MAX_MARKS>,
    /// Span of the last character that began a decomposition.
    last: Span,
}

impl<F: FnMut(&Word)> Cutter<F> {
    fn push(&mut self, char: char, span: Span) {
        if matches!(char, '\t' | '\n' | '\r') || char.is_whitespace() {
            // Category Zs and friends; U+0085 and the like are control characters and go.
            if !is_removed(char) {
                self.settle_marks();
                self.end_word();
            }
        } else if is_removed(char) {
        } else if is_chinese(char) {
            self.settle_marks();
            self.end_word();
            self.decompose(char, span);
            self.settle_marks();
            self.end_word();
        } else {
            self.decompose(char, span);
        }
    }

    fn decompose(&mut self, char: char, span: Span) {
        if !self.uncased {
            return self.letter(char, span);
        }
        if char.is_ascii() {
            self.settle_marks();
            return self.lowered(char, span);
        }
        if let Some(jamo) = hangul(char) {
            for (index, &char) in jamo.iter().filter(|&&char| char != '\0').enumerate() {
                self.ordered(char, span, index == 0);
            }
            return;
        }
        let mut begins = true;
        for part in decomposed(char) {
            self.ordered(part, span, begins);
            begins = false;
        }
        if begins {
            self.ordered(char, span, true);
        }
    }

    /// Canonical order: marks after a starter are sorted by combining class, and take the spans of
    /// the run in the order in which they stood.
    fn ordered(&mut self, char: char, span: Span, begins: bool) {
        let class = combining_class(char);
        if class == 0 || self.marks.is_full() {
            self.settle_marks();
        }
        if class != 0 {
            if begins {
                let _ = self.origins.push(span);
            }
            let _ = self.marks.push(Mark { char, class, begins });
            let mut marks = self.marks.as_mut_slice();
            while let [others @ .., last] = marks
                && let Some(before) = others.last_mut().filter(|before| before.class > last.class)
            {
                core::mem::swap(before, last);
                marks = others;
            }
            return;
        }
        if begins {
            self.last = span;
        }
        let span = self.last;
        self.stripped(char, span);
    }

    fn settle_marks(&mut self) {
        if self.marks.is_empty() {
            return;
        }
        let mut origins = core::mem::take(&mut self.origins).into_iter();
        for mark in core::mem::take(&mut self.marks) {
            if mark.begins {
                self.last = origins.next().unwrap_or(self.last);
            }
            self.stripped(mark.char, self.last);
        }
    }

    fn stripped(&mut self, char: char, span: Span) {
        if !in_ranges(NONSPACING, char) {
            self.lowered(char, span);
        }
    }

    fn lowered(&mut self, char: char, span: Span) {
        if char.is_ascii() {
            return self.letter(char.to_ascii_lowercase(), span);
        }
        for char in char.to_lowercase() {
            self.letter(char, span);
        }
    }

    fn letter(&mut self, char: char, span: Span) {
        if char.is_whitespace() {
            self.end_word();
        } else if is_punctuation(char) {
            self.end_word();
            self.word.push(Letter { char, span });
            self.end_word();
        } else {
            self.word.push(Letter { char, span });
        }
    }

    fn end_word(&mut self) {
        if !self.word.letters.is_empty() {
            (self.take)(&self.word);
            self.word.clear();
        }
    }
}

/// Which of a table's ranges, whose ends `ends` tells, a character is in.
fn range_of<R>(ranges: &[R], ends: impl Fn(&R) -> (Point, Point), char: char) -> Option<usize> {
    let c = u32::from(char);
    let index = ranges.partition_point(|range| number(ends(range).0) <= c).checked_sub(1)?;
    let (_, last) = ends(ranges.get(index)?);
    (c <= number(last)).then_some(index)
}

fn in_ranges(ranges: &[(Point, Point)], char: char) -> bool {
    range_of(ranges, |&range| range, char).is_some()
}

/// What is left of a character without its marks; nothing where it is not composed.
fn decomposed(char: char) -> impl Iterator<Item = char> {
    let parts = range_of(COMPOSED, |&(first, last, _)| (first, last), char).and_then(|index| {
        let &(first, last, begin) = COMPOSED.get(index)?;
        let end = COMPOSED.get(index + 1).map_or(LEFT.len(), |&(.., begin)| begin.into());
        let parts = LEFT.get(begin.into()..end)?;
        let [first, last] = [first, last].map(number);
        let each = parts.len().checked_div((last - first + 1) as usize)?;
        parts.chunks(each.max(1)).nth((u32::from(char) - first) as usize)
    });
    parts.unwrap_or_default().iter().filter_map(|&part| char::from_u32(number(part)))
}

/// Control, format, private and unassigned characters, and the replacement character.
fn is_removed(char: char) -> bool {
    match char {
        '\t' | '\n' | '\r' => false,
        ' '..='~' => false,
        '\u{fffd}' => true,
        _ => in_ranges(OTHER, char),
    }
}

fn is_punctuation(char: char) -> bool {
    if char.is_ascii() { char.is_ascii_punctuation() } else { in_ranges(PUNCTUATION, char) }
}

/// The CJK ideograph blocks that BERT spaces out (kana and Hangul are none).
fn is_chinese(char: char) -> bool {
    matches!(
        u32::from(char),
        0x4e00..=0x9fff
            | 0x3400..=0x4dbf
            | 0x2_0000..=0x2_a6df
            | 0x2_a700..=0x2_b73f
            | 0x2_b740..=0x2_b81f
            | 0x2_b920..=0x2_ceaf
            | 0xf900..=0xfaff
            | 0x2_f800..=0x2_fa1f
    )
}

fn combining_class(char: char) -> u8 {
    let index = range_of(COMBINING, |&(first, last, _)| (first, last), char);
    index.and_then(|index| COMBINING.get(index)).map_or(0, |&(.., class)| class)
}

/// The two or three letters of a Hangul syllable (Unicode §3.12).
fn hangul(char: char) -> Option<[char; 3]> {
    let index = u32::from(char).checked_sub(0xac00).filter(|&index| index < 11_172)?;
    let letter = |base: u32, index: u32| char::from_u32(base + index).unwrap_or('\0');
    let last = match index % 28 {
        0 => '\0',
        last => letter(0x11a7, last),
    };
    Some([letter(0x1100, index / 588), letter(0x1161, index / 28 % 21), last])
}
