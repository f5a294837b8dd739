//! A million frames, random, damaged, or well-formed nonsense: no panic, no wrong answer, and a request that
//! follows is answered as if nothing had been.

mod common;

use common::{MODEL, MemorySlots, Wire, board, frame};
use electret::link::{Answer, Command, Frames, Install, Lesson, Reply, Truth};
use electret_board::Outcome;

const FRAMES: usize = 1_000_000;
/// Frames between two honest requests.
const ROUND: usize = 1_000;
const SENTENCE: &str = "The king lived in a large banana.";

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }
}

/// Requests of every kind, most of them impossible; none that changes which model or adapter answers.
fn nonsense(random: &mut Random) -> Vec<u8> {
    let junk = random.bytes(40);
    let text = String::from_utf8_lossy(&junk).into_owned();
    let (number, large) = (random.next() as u16, random.next() as u32);
    let learning_rate = f32::from_bits(large);
    let lesson = if large & 2 == 0 { Lesson::Classify } else { Lesson::Tag };
    let command = match random.below(20) {
        0 => Command::Info,
        1 => Command::Plan,
        2 => Command::Bench { tokens: large as u16 | 128 },
        3 => Command::Teach { lesson, labels: &text, strategy: &text, learning_rate },
        4 => Command::Teach { lesson, labels: "a\nb", strategy: "head", learning_rate },
        5 if large & 1 == 0 => Command::Learn { text: &text, truth: Truth::Class(large as u16 | 2) },
        5 => Command::Learn { text: &text, truth: Truth::Tags(&junk) },
        6 => Command::Step,
        7 => Command::Rollback,
        8 => Command::Activate(Some(large as u8 | 16)),
        9 => Command::Checksum { bytes: large },
        10 => Command::Write { offset: large, data: &junk },
        11 => Command::Install { kind: Install::Model, bytes: large | 1, crc: !large, signature: &junk },
        12 => Command::Install { kind: Install::Adapter(large as u8), bytes: 0, crc: 0, signature: &junk },
        13 => Command::SelfTest,
        14 => Command::Detect(&text),
        15 => Command::Tag(&text),
        16 => Command::Adapters,
        17 => Command::Slots,
        18 => Command::Commit { adapter: large as u8 | 16 },
        _ => Command::Classify(&text),
    };
    frame(number, command)
}

/// One frame's worth of trouble.
fn trouble(random: &mut Random) -> Vec<u8> {
    let mut bytes = match random.below(100) {
        0 => random.bytes(3000),
        1..40 => random.bytes(60),
        40..42 => return nonsense(random),
        _ => {
            let mut whole = nonsense(random);
            match random.below(4) {
                0 => whole.truncate(random.below(whole.len())),
                1 => {
                    let place = random.below(whole.len());
                    whole[place] ^= 1 << random.below(8);
                }
                2 => {
                    let place = random.below(whole.len());
                    whole.insert(place, random.next() as u8);
                }
                _ => {
                    let place = random.below(whole.len());
                    whole.remove(place);
                }
            }
            whole
        }
    };
    if random.below(2) == 0 {
        bytes.push(0);
    }
    bytes
}

/// The logits that were said to a request.
fn logits(said: &[u8], wanted: u16) -> Option<Vec<u32>> {
    let (mut frames, mut logits, mut done) = (Frames::default(), Vec::new(), false);
    for &byte in said {
        let Some(length) = frames.push(byte) else { continue };
        match postcard::from_bytes(frames.message(length)) {
            Ok(Reply { number, answer: Answer::Token { logit, .. } }) if number == wanted => {
                logits.push(logit.to_bits())
            }
            Ok(Reply { number, answer: Answer::Done { .. } }) if number == wanted => done = true,
            _ => {}
        }
    }
    (done && frames.damaged() == 0).then_some(logits)
}

#[test]
fn a_million_frames() {
    let wire = Wire::default();
    let mut board = board(wire.clone(), MemorySlots::new(MODEL), None);
    wire.send(7, Command::Detect(SENTENCE));
    assert_eq!(board.serve(), Ok(Outcome::Closed));
    let expected = logits(&wire.from_board.take(), 7).unwrap();
    assert!(expected.len() > 5);

    let mut random = Random(0x00e1_ec7e_7000_0001);
    for round in 0..FRAMES / ROUND {
        for _ in 0..ROUND {
            let bytes = trouble(&mut random);
            wire.to_board.borrow_mut().extend(bytes);
        }
        // A lesson may be on; what it has learned is forgotten first.
        wire.send(1, Command::Rollback);
        wire.send(2, Command::Detect(SENTENCE));
        assert_eq!(board.serve(), Ok(Outcome::Closed), "round {round}");
        let said = wire.from_board.take();
        assert_eq!(logits(&said, 2).as_ref(), Some(&expected), "round {round}");
    }
}
