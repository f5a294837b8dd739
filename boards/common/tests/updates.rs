//! Which model and which adapter answer: after an update, a lesson, a request that comes twice, a write that nobody has
//! signed.
#![cfg(feature = "signatures")]

mod common;

use common::{MODEL, MemorySlots, Simulated, Wire, board};
use ed25519_dalek::{Signer, SigningKey};
use electret::import::Checkpoint;
use electret::link::{Answer, Command, Frames, Install, Lesson, Reply, Truth, checksum};
use electret::quantize::{Recipe, quantize_by};
use electret::tune::store::{Place, Store};
use electret::weights::{AlignedBytes, FileKind, Take};
use electret::{Document, Error, Model};
use electret_board::{Key, Slots};

const TEXT: &str = "The king lived in a large banana.";

/// A board and its host.
struct Desk {
    wire: Wire,
    board: Simulated,
    number: u16,
}

/// A document that is not what its place is for.
struct Rotten;

impl Document for Rotten {
    const KIND: FileKind = FileKind::Guard;

    fn payload(&self, take: &mut Take<'_>) -> Result<(), Error> {
        take(&[0, 0, 0, 1])
    }
}

/// What was said to one request.
#[derive(Debug, Default, PartialEq)]
struct Said {
    done: bool,
    /// Bits of logits and probabilities.
    bits: Vec<u32>,
    slot: Option<u8>,
    model: String,
    adapter: Option<u8>,
    refusal: String,
}

impl Desk {
    fn new(model: &[u8], key: Option<Key>) -> Self {
        let wire = Wire::default();
        Self { board: board(wire.clone(), MemorySlots::new(model), key), wire, number: 0 }
    }

    /// Sends some requests at once, so that the board does not start anew between them: what it says to the last.
    fn ask(&mut self, commands: &[Command<'_>]) -> Said {
        for &command in commands {
            self.number += 1;
            self.wire.send(self.number, command);
        }
        // The line closes when all was read: an update starts the board anew before that.
        while self.board.serve().unwrap() == electret_board::Outcome::Installed {}
        let mut frames = Frames::default();
        let mut said = Said::default();
        for byte in self.wire.from_board.take() {
            let Some(length) = frames.push(byte) else { continue };
            let Reply { number, answer } = postcard::from_bytes(frames.message(length)).unwrap();
            if number != self.number {
                continue;
            }
            match answer {
                Answer::Token { logit: value, .. } | Answer::Label { score: value, .. } => {
                    said.bits.push(value.to_bits())
                }
                Answer::Board(about) => {
                    (said.slot, said.model, said.adapter) =
                        (Some(about.slot), about.model.to_owned(), about.adapter);
                }
                Answer::Done { .. } => said.done = true,
                Answer::Refused(error) => said.refusal = error.to_string(),
                Answer::Failed(why) => said.refusal = why.to_owned(),
                _ => {}
            }
        }
        said
    }

    fn write(&mut self, file: &[u8]) {
        for (offset, data) in (0..).step_by(512).zip(file.chunks(512)) {
            let said = self.ask(&[Command::Write { offset, data }]);
            assert!(said.done, "{said:?}");
        }
    }

    fn install(&mut self, file: &[u8], signature: &[u8]) -> Said {
        let (bytes, crc) = (file.len() as u32, checksum(file));
        self.ask(&[Command::Install { kind: Install::Model, bytes, crc, signature }])
    }
}

/// electret-tiny in int4, which is another model.
fn another() -> Vec<u8> {
    let int8 = AlignedBytes::copy_of(MODEL);
    let mut checkpoint = Checkpoint::of_model(&Model::open(int8.as_slice()).unwrap(), None);
    checkpoint.name = "another".to_owned();
    quantize_by(&checkpoint, "another", "none", &Recipe::all_int4(&checkpoint)).unwrap()
}

fn owner() -> (SigningKey, Option<Key>) {
    let owner = SigningKey::from_bytes(&[7; 32]);
    let key = owner.verifying_key().to_bytes();
    (owner, Some(key))
}

const TEACH: Command<'_> =
    Command::Teach { lesson: Lesson::Classify, labels: "a\nb", strategy: "head", learning_rate: 2e-3 };
const LEARN: Command<'_> = Command::Learn { text: TEXT, truth: Truth::Class(1) };
const COMMIT: Command<'_> = Command::Commit { adapter: 2 };

#[test]
fn an_adapter_waits_for_its_model() {
    let mut desk = Desk::new(MODEL, None);
    let before = desk.ask(&[Command::Detect(TEXT)]);
    let taught = desk.ask(&[TEACH, LEARN, Command::Step, COMMIT, Command::Classify(TEXT)]);
    assert_eq!(taught.bits.len(), 2);
    assert_eq!(desk.ask(&[Command::Classify(TEXT)]), taught);
    assert_eq!(desk.ask(&[Command::Info]).adapter, Some(2));

    let file = another();
    desk.write(&file);
    assert!(desk.install(&file, &[]).done);
    let info = desk.ask(&[Command::Info]);
    assert_eq!((info.slot, info.model.as_str(), info.adapter), (Some(1), "another", None));
    let after = desk.ask(&[Command::Detect(TEXT)]);
    assert!(after.done && after.bits.len() == before.bits.len() && after.bits != before.bits, "{after:?}");
    assert!(desk.ask(&[Command::Activate(Some(2))]).refusal.starts_with("adapter.base"));

    // The old model again, and its adapter with it.
    desk.write(MODEL);
    assert!(desk.install(MODEL, &[]).done);
    assert_eq!(desk.ask(&[Command::Classify(TEXT)]), taught);
}

#[test]
fn a_lesson_ends_when_an_adapter_is_chosen() {
    let mut desk = Desk::new(MODEL, None);
    let learning = [TEACH, LEARN, Command::Step, Command::Classify(TEXT)];
    assert_eq!(desk.ask(&learning).bits.len(), 2);
    let ended = desk.ask(&[TEACH, LEARN, Command::Step, Command::Activate(None), Command::Classify(TEXT)]);
    assert!(ended.bits.is_empty() && ended.refusal.contains("classify"), "{ended:?}");
}

#[test]
fn what_could_not_be_read_again_is_not_kept() {
    let mut desk = Desk::new(MODEL, None);
    desk.board.adapter = &mut desk.board.adapter[..64];
    let said = desk.ask(&[TEACH, LEARN, Command::Step, COMMIT]);
    assert!(said.refusal.contains("the arena has 64 bytes"), "{said:?}");
    assert_eq!(desk.ask(&[Command::Info]).adapter, None);

    // Nor is what has no number to be kept under, and no trace of it.
    let mut desk = Desk::new(MODEL, None);
    let said = desk.ask(&[TEACH, LEARN, Command::Step, Command::Commit { adapter: Place::ADAPTERS }]);
    assert!(said.refusal.contains("adapter"), "{said:?}");
    assert!(!desk.board.store.get(Place::Tuner, &mut |_| Ok(())).unwrap());
}

/// The answer to an installation may be lost on the way.
#[test]
fn an_installation_that_is_asked_for_again_is_done() {
    let mut desk = Desk::new(MODEL, None);
    let file = another();
    desk.write(&file);
    assert!(desk.install(&file, &[]).done);
    let info = desk.ask(&[Command::Info]);
    let again = desk.install(&file, &[]);
    assert!(again.done, "{again:?}");
    assert_eq!(desk.ask(&[Command::Info]).slot, info.slot);
}

/// With a key nothing runs that was not installed, wherever it was written.
#[test]
fn a_board_with_a_key_starts_nothing_that_nobody_has_signed() {
    let file = another();
    let (owner, key) = owner();
    let nobody = |said: &Said| said.model.is_empty();

    // Empty, as from the factory.
    let mut desk = Desk::new(&[], key);
    assert!(nobody(&desk.ask(&[Command::Info])));
    desk.write(&file);
    assert!(nobody(&desk.ask(&[Command::Info])));
    assert!(desk.install(&file, &[]).refusal.contains("signature"));
    assert!(nobody(&desk.ask(&[Command::Info])));
    assert!(desk.install(&file, &owner.sign(&file).to_bytes()).done);
    let info = desk.ask(&[Command::Info]);
    assert_eq!(info.model, "another");

    // What runs is damaged: the other slot holds what nobody has signed, and stays shut; a signed update mends it.
    desk.write(MODEL);
    let running = info.slot.unwrap();
    desk.board.slots.write(running, 100, &[0; 64]).unwrap();
    assert!(nobody(&desk.ask(&[Command::Info])));
    desk.write(MODEL);
    assert!(nobody(&desk.ask(&[Command::Info])));
    assert!(desk.install(MODEL, &owner.sign(MODEL).to_bytes()).done);
    assert_eq!(desk.ask(&[Command::Info]).model, "electret-tiny");

    // A choice that cannot be read starts nothing, and does not stand in the way of the next one.
    desk.board.store.put(Place::Slot, &Rotten).unwrap();
    assert!(nobody(&desk.ask(&[Command::Info])));
    desk.write(&file);
    assert!(desk.install(&file, &owner.sign(&file).to_bytes()).done);
    assert_eq!(desk.ask(&[Command::Info]).model, "another");

    // Without a key whatever opens is better than nothing.
    let mut open = Desk::new(MODEL, None);
    open.write(&file);
    open.board.slots.write(0, 100, &[0; 64]).unwrap();
    assert_eq!(open.ask(&[Command::Info]).model, "another");
}
