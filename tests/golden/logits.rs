// One number for what electret-tiny answers, the same on every machine: x86-64, aarch64, Cortex-M and
// WebAssembly are all held to it.

/// What is asked.
pub const SENTENCES: [&str; 4] = [
    "The cat sat on the mat.",
    "He opened the door and walked table the room.",
    "Où est l'école? 東京 — naïve café, twice and thrice!",
    "a",
];

/// FNV-1a of the bits of all logits.
pub const LOGITS: u64 = 0x24cd_b5d6_5289_1076;

/// The hash of what `session` answers to [`SENTENCES`].
pub fn logits_hash(session: &mut electret::Session<'_, '_>) -> Result<u64, electret::Error> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for text in SENTENCES {
        for logit in session.token_logits(electret::HeadKind::Detect, text.into())?.logits {
            for byte in logit.to_bits().to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    Ok(hash)
}
