//! The tokeniser against Hugging Face's: identical ids, segments and byte offsets.
#![cfg(feature = "convert")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;

use electret::Model;
use electret::import::read_vocabulary;
use electret::quantize::vocabulary_archive;
use electret::text::{Input, SpecialTokens, Token, Tokenizer};
use electret::weights::AlignedBytes;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{EncodeInput, TruncationParams};
use unicode_normalization_alignments::UnicodeNormalization;

/// A deterministic generator of test input (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// BERT's vocabulary where it is at hand, otherwise that of the model that ships.
fn vocabulary() -> (Vec<String>, SpecialTokens) {
    if let Some(path) = common::shared("models/vocab.txt") {
        return read_vocabulary(&path).unwrap();
    }
    let file = common::shipped_model();
    let vocabulary = &Model::open(file.as_slice()).unwrap().root().vocabulary;
    let pieces = (0..).map_while(|id| vocabulary.piece(id)).map(|piece| piece.as_str().to_owned()).collect();
    (pieces, Tokenizer::new(vocabulary).special())
}

struct Both {
    archive: AlignedBytes,
    theirs: tokenizers::Tokenizer,
    buffer: Vec<Token>,
}

impl Both {
    fn new(uncased: bool, limit: usize) -> Self {
        Self::of(&vocabulary(), uncased, limit)
    }

    fn of((pieces, special): &(Vec<String>, SpecialTokens), uncased: bool, limit: usize) -> Self {
        let vocab: ahash::AHashMap<String, u32> = pieces.iter().cloned().zip(0..).collect();
        let model = WordPiece::builder().vocab(vocab).unk_token("[UNK]".into()).build().unwrap();
        let mut theirs = tokenizers::Tokenizer::new(model);
        theirs.with_normalizer(Some(BertNormalizer::new(true, true, None, uncased)));
        theirs.with_pre_tokenizer(Some(BertPreTokenizer));
        let (cls, sep) = (("[CLS]".to_owned(), special.cls), ("[SEP]".to_owned(), special.sep));
        theirs.with_post_processor(Some(BertProcessing::new(sep, cls)));
        let truncation = TruncationParams { max_length: limit, ..TruncationParams::default() };
        theirs.with_truncation(Some(truncation)).unwrap();
        let archive = vocabulary_archive(pieces, special, uncased);
        Self { archive, theirs, buffer: vec![Token::default(); limit] }
    }

    #[track_caller]
    fn compare(&mut self, text: &str, pair: Option<&str>) -> usize {
        let input = match pair {
            Some(pair) => EncodeInput::Dual(text.into(), pair.into()),
            None => EncodeInput::Single(text.into()),
        };
        let expected = self.theirs.encode(input, true).unwrap();
        let vocabulary = electret::weights::access_vocabulary(self.archive.as_slice()).unwrap();
        let input = Input { text, pair, truncate: true };
        let length = Tokenizer::new(vocabulary).encode(input, &mut self.buffer).unwrap();
        let found = &self.buffer[..length];
        let ids: Vec<u32> = found.iter().map(|token| token.id).collect();
        assert_eq!(ids, expected.get_ids(), "ids of {text:?} and {pair:?}");
        let types: Vec<u32> = found.iter().map(|token| token.type_id.into()).collect();
        assert_eq!(types, expected.get_type_ids(), "segments of {text:?} and {pair:?}");
        let spans: Vec<(usize, usize)> =
            found.iter().map(|token| (token.start as usize, token.end as usize)).collect();
        assert_eq!(spans, expected.get_offsets(), "offsets of {text:?} and {pair:?}");
        length
    }
}

/// Strings of every kind that has broken a tokeniser: all planes, marks, joiners, RTL, CJK,
/// controls, very long words, mixed with plain words.
fn random_string(random: &mut Random) -> String {
    let ranges: [(u32, u32); 16] = [
        (0x20, 0x7e),
        (0x61, 0x7a),
        (0x00, 0x1f),
        (0xa0, 0x17f),
        (0x300, 0x36f),
        (0x370, 0x3ff),
        (0x590, 0x6ff),
        (0x900, 0xdff),
        (0x1100, 0x11ff),
        (0x1e00, 0x1fff),
        (0x2000, 0x2fff),
        (0x3000, 0x30ff),
        (0x4e00, 0x9fff),
        (0xac00, 0xd7a3),
        (0xf900, 0xffff),
        (0x1_0000, 0x10_ffff),
    ];
    let special = [
        '\u{200d}',
        '\u{fe0f}',
        '\u{1f469}',
        '\u{1f3fd}',
        '\u{0}',
        '\u{fffd}',
        '\u{ad}',
        'İ',
        'ß',
        'ﬁ',
        'Å',
        '가',
        '\u{1d15f}',
        '\u{1d165}',
        '\u{302e}',
        '\u{1b44}',
        '\u{94d}',
        '\u{85}',
        '\u{a0}',
        '\u{3000}',
        '\u{344}',
        '\u{cc0}',
    ];
    let words = [
        "the",
        "Unaffable",
        "naïve",
        "CAFÉ",
        "don't",
        "e\u{301}\u{323}",
        "東京",
        "мир",
        "مرحبا",
        "हिन्दी",
        "[SEP]",
        "##ing",
    ];
    let mut text = String::new();
    for _ in 0..random.below(24) {
        match random.below(8) {
            0..4 => {
                let (start, end) = ranges[random.below(16) as usize];
                for _ in 0..=random.below(4) {
                    let code = start + random.below(u64::from(end - start + 1)) as u32;
                    text.extend(char::from_u32(code));
                }
            }
            4 => text.push(special[random.below(special.len() as u64) as usize]),
            5 => text.push(' '),
            _ => text.push_str(words[random.below(words.len() as u64) as usize]),
        }
    }
    if random.below(500) == 0 {
        write!(text, "{}", "ab".repeat(random.below(5000) as usize)).unwrap();
    }
    text
}

#[test]
fn random_unicode() {
    for (uncased, seed) in [(true, 1), (false, 2)] {
        let mut both = Both::new(uncased, 512);
        let mut random = Random(seed);
        for _ in 0..50_000 {
            both.compare(&random_string(&mut random), None);
        }
    }
}

/// With a vocabulary that knows what is left of each, so that none is as good as another.
#[test]
fn every_composed_character() {
    let composed: Vec<char> = (0..=u32::from(char::MAX))
        .filter_map(char::from_u32)
        .filter(|&c| c.to_string().as_str().nfd().any(|(part, _)| part != c))
        .collect();
    assert!(composed.len() > 13_000);
    let parts: BTreeSet<String> = composed
        .iter()
        .flat_map(|c| c.to_string().as_str().nfd().map(|(part, _)| part).collect::<Vec<char>>())
        .map(|part| part.to_lowercase().collect())
        .collect();
    let (mut pieces, special) = vocabulary();
    pieces.retain(|piece| !parts.contains(piece.trim_start_matches("##")));
    pieces.extend(parts.iter().flat_map(|part| [part.clone(), format!("##{part}")]));
    let mut both = Both::of(&(pieces, special), true, 512);
    for characters in composed.chunks(64) {
        both.compare(&characters.iter().map(|c| format!("{c} a{c}b ")).collect::<String>(), None);
    }
}

#[test]
fn pairs_and_truncation() {
    let mut random = Random(3);
    for (limit, uncased) in [(4, true), (5, false), (8, true), (13, false), (32, true)] {
        let mut both = Both::new(uncased, limit);
        for _ in 0..2_000 {
            let (first, second) = (random_string(&mut random), random_string(&mut random));
            both.compare(&first, Some(&second));
            both.compare(&second, None);
        }
    }
}

#[test]
fn a_word_of_ten_thousand_characters_and_a_long_line() {
    let mut both = Both::new(true, 512);
    both.compare(&"x".repeat(10_000), None);
    both.compare(&"a".repeat(100), None);
    both.compare(&"a".repeat(101), None);
    both.compare(&"lorem ipsum ".repeat(2_000), None);
}

#[test]
fn a_million_words_of_the_corpora() {
    let Some(corpus) = common::shared("data/corpora/simplewiki2018.txt.zst") else { return };
    let mut decoder = zstd::Decoder::new(std::fs::File::open(corpus).unwrap()).unwrap();
    decoder.window_log_max(27).unwrap();
    for uncased in [true, false] {
        let mut both = Both::new(uncased, 512);
        let mut words = 0;
        for line in std::io::BufRead::lines(std::io::BufReader::new(&mut decoder)) {
            let line = line.unwrap();
            words += line.split_whitespace().count();
            both.compare(&line, None);
            if words > 1_000_000 {
                break;
            }
        }
        assert!(words > 1_000_000);
    }
}
