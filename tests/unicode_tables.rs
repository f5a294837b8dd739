//! `src/text/tables.rs` holds what Hugging Face's tokenisers know of Unicode, from the crates they
//! use. This test makes it anew and compares; with ELECTRET_BLESS=1 it writes it.

use std::fmt::Write;

use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;
use unicode_normalization_alignments::char::canonical_combining_class;

const PATH: &str = "src/text/tables.rs";

fn all_chars() -> impl Iterator<Item = char> {
    (0..=u32::from(char::MAX)).filter_map(char::from_u32)
}

/// Consecutive characters of a class as inclusive ranges.
fn ranges(out: &mut String, name: &str, doc: &str, class: impl Fn(char) -> bool) {
    let mut found: Vec<(u32, u32)> = Vec::new();
    for c in all_chars().filter(|&c| class(c)).map(u32::from) {
        match found.last_mut() {
            Some((_, end)) if *end + 1 == c => *end = c,
            _ => found.push((c, c)),
        }
    }
    writeln!(out, "\n/// {doc}\npub const {name}: &[(Point, Point)] = &[").unwrap();
    for (start, end) in found {
        writeln!(out, "    (p({start:#x}), p({end:#x})),").unwrap();
    }
    out.push_str("];\n");
}

fn generate() -> String {
    let mut out = String::from(
        "//! Unicode as Hugging Face's tokenisers see it; made by `tests/unicode_tables.rs`.\n\n\
         /// A character, in three bytes: the tables lie in the flash of microcontrollers.\n\
         pub type Point = [u8; 3];\n\n\
         const fn p(char: u32) -> Point {\n    let [low, middle, high, _] = char.to_le_bytes();\n    \
         [low, middle, high]\n}\n",
    );
    ranges(&mut out, "OTHER", "General category C: control, format, private use, unassigned.", |c| {
        c.is_other()
    });
    ranges(&mut out, "PUNCTUATION", "General category P.", |c| c.is_punctuation());
    ranges(&mut out, "NONSPACING", "General category Mn: the accents that are stripped.", |c| {
        c.is_mark_nonspacing()
    });
    out.push_str("\n/// Canonical combining classes other than 0, by inclusive range.\npub const COMBINING: &[(Point, Point, u8)] = &[\n");
    let mut classes: Vec<(u32, u32, u8)> = Vec::new();
    for c in all_chars() {
        let (class, c) = (canonical_combining_class(c), u32::from(c));
        match classes.last_mut() {
            _ if class == 0 => {}
            Some((_, end, same)) if *end + 1 == c && *same == class => *end = c,
            _ => classes.push((c, c, class)),
        }
    }
    for (start, end, class) in classes {
        writeln!(out, "    (p({start:#x}), p({end:#x}), {class}),").unwrap();
    }
    out.push_str("];\n");
    decompositions(&mut out);
    out
}

/// Canonical decompositions, by ranges whose characters leave equally many behind: a table with a key for each of the two
/// thousand would be half as large again.
fn decompositions(out: &mut String) {
    let mut composed: Vec<(u32, u32, usize)> = Vec::new();
    let mut left: Vec<u32> = Vec::new();
    let mut parts = 0;
    for c in all_chars().filter(|&c| !('\u{ac00}'..='\u{d7a3}').contains(&c)) {
        let whole: Vec<char> = c.to_string().as_str().nfd().map(|(c, _)| c).collect();
        let base: Vec<u32> =
            whole.iter().filter(|c| !c.is_mark_nonspacing()).map(|&c| u32::from(c)).collect();
        if base.is_empty() {
            assert!(c.is_mark_nonspacing(), "{c:?} is no mark and leaves nothing");
        } else if whole != [c] {
            let c = u32::from(c);
            match composed.last_mut() {
                Some((_, end, _)) if *end + 1 == c && parts == base.len() => *end = c,
                _ => composed.push((c, c, left.len())),
            }
            parts = base.len();
            left.extend(base);
        }
    }
    out.push_str(
        "\n/// Characters that decompose canonically, Hangul syllables apart, by inclusive range; and where in [`LEFT`]\n\
         /// begins what is left of the first. Each of a range leaves equally many.\n\
         pub const COMPOSED: &[(Point, Point, u16)] = &[\n",
    );
    for (start, end, first) in composed {
        writeln!(out, "    (p({start:#x}), p({end:#x}), {first}),").unwrap();
    }
    out.push_str("];\n\n/// What is left of them without nonspacing marks.\npub const LEFT: &[Point] = &[\n");
    for part in left {
        writeln!(out, "    p({part:#x}),").unwrap();
    }
    out.push_str("];\n");
}

#[test]
fn the_tables_are_those_of_hugging_face() {
    let generated = generate();
    if std::env::var_os("ELECTRET_BLESS").is_some() {
        std::fs::write(PATH, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(PATH).unwrap();
    assert!(committed == generated, "{PATH} is stale; run this test with ELECTRET_BLESS=1");
}
