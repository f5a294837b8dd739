//! Another model, or an adapter, over the line: into the slot that does not run, and only then in charge.
//!
//! The host writes in pieces and may stop anywhere: it asks for the checksum of what is there and goes on behind
//! what agrees. Nothing counts until [`Command::Install`], which checks length, checksum, signature and the file
//! itself, and then makes one choice in the store, which is written whole or not at all. A board with a key starts
//! only what was chosen so; slot 0 as long as nothing was, or again once a worn flash has lost the choice; and nothing
//! while the choice is there and cannot be read, until something is installed.

use electret::link::{Answer, Command, Install, checksum};
use electret::tune::store::Store;
use electret::{Adapter, Error, Model};
use embedded_io::Write;

use crate::answers::Running;
use crate::lesson::has_room;
use crate::line::{Refusal, Reply};
use crate::other;

/// Two places for models, in memory that can be read as it is.
pub trait Slots {
    /// What lies in a slot, all of it. Slots are numbered 0 and 1; a board with one has an empty second.
    fn read(&self, slot: u8) -> &'static [u8];

    /// Writes to a slot that is not in use, erasing what begins within the range. Offsets come in order.
    ///
    /// # Errors
    /// [`Error::StoreFailed`].
    fn write(&mut self, slot: u8, offset: u32, data: &[u8]) -> Result<(), Error>;
}

/// The slots of a board whose one model came with the firmware.
#[derive(Clone, Copy, Debug)]
pub struct NoSlots(
    /// The model's file.
    pub &'static [u8],
);

impl Slots for NoSlots {
    fn read(&self, slot: u8) -> &'static [u8] {
        if slot == 0 { self.0 } else { &[] }
    }

    fn write(&mut self, _: u8, _: u32, _: &[u8]) -> Result<(), Error> {
        Err(Error::StoreFailed)
    }
}

/// What an update needs.
pub struct Update<'u, M, P> {
    pub slots: &'u mut M,
    pub store: &'u mut P,
    pub running: Option<Running>,
    /// Bytes that an adapter may have.
    pub adapter: usize,
    pub key: Option<Key>,
    /// Feeds the watchdog; called before each pass over a file.
    pub pulse: fn(),
}

impl<M: Slots, P: Store> Update<'_, M, P> {
    /// Does what a command says; whether another model runs from now on.
    pub fn handle<S: Write>(
        mut self,
        command: Command<'_>,
        reply: &mut Reply<'_, S>,
    ) -> Result<bool, Refusal> {
        let slot = self.free()?;
        let room = self.slots.read(slot);
        match command {
            Command::Slots => {
                reply.figure("free slot", slot.into());
                reply.figure("its bytes", room.len() as u64);
            }
            Command::Checksum { bytes } => reply.figure("crc", checksum(part(room, bytes)?).into()),
            Command::Write { offset, data } => {
                let end = offset.checked_add(data.len() as u32).ok_or(TOO_LARGE)?;
                part(room, end)?;
                self.slots.write(slot, offset, data)?;
            }
            Command::Install { kind: Install::Model, bytes, crc, .. } if self.runs(bytes, crc) => {}
            Command::Install { kind, bytes, crc, signature } => {
                let file = part(room, bytes)?;
                (self.pulse)();
                let found = checksum(file);
                if found != crc {
                    reply.say(Answer::Figure { name: "crc", value: found.into() });
                    return Err(Refusal::Because("what was written is not what was sent: write it again"));
                }
                (self.pulse)();
                self.check_signature(file, signature)?;
                (self.pulse)();
                match kind {
                    Install::Model => {
                        Model::open(file)?;
                        self.store.choose_slot(slot)?;
                        return Ok(true);
                    }
                    Install::Adapter(number) => {
                        let model = self.running.ok_or(Refusal::Because("no model runs"))?.model;
                        let adapter = Adapter::open(file, &model)?;
                        has_room(&adapter, self.adapter)?;
                        self.store.save(number, &adapter)?;
                    }
                }
            }
            _ => return Err(Refusal::Because("unknown command")),
        }
        Ok(false)
    }

    /// The slot that may be written: not the one that runs, nor one that the next start would run as it is found.
    fn free(&mut self) -> Result<u8, Error> {
        if let Some(running) = self.running {
            return Ok(other(running.slot));
        }
        let free = other(self.store.slot().ok().flatten().unwrap_or(0));
        // A board with one slot has no other, and writes to it unless it must not run what nobody has checked.
        let only = self.key.is_none() && self.slots.read(free).is_empty();
        Ok(if only { other(free) } else { free })
    }

    /// Whether that model was installed and runs, of which the host may not have heard.
    fn runs(&self, bytes: u32, crc: u32) -> bool {
        let running = self.running.filter(|running| running.model.bytes() == bytes as usize);
        running.is_some_and(|running| {
            (self.pulse)();
            part(self.slots.read(running.slot), bytes).is_ok_and(|file| checksum(file) == crc)
        })
    }

    /// Ed25519 over the file, where the board has a key.
    fn check_signature(&self, file: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        match &self.key {
            Some(key) => verify(key, file, signature),
            None => Ok(()),
        }
    }
}

/// An Ed25519 public key.
#[cfg(feature = "signatures")]
pub type Key = [u8; 32];

/// Without the feature `signatures` there is none.
#[cfg(not(feature = "signatures"))]
pub type Key = core::convert::Infallible;

#[cfg(feature = "signatures")]
fn verify(key: &Key, file: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    use ed25519_dalek::{Signature, VerifyingKey};
    let key = VerifyingKey::from_bytes(key).map_err(|_| Refusal::Because("the board's key is none"))?;
    let signature = Signature::from_slice(signature)
        .map_err(|_| Refusal::Because("signature: this board takes signed updates only"))?;
    key.verify_strict(file, &signature)
        .map_err(|_| Refusal::Because("signature: it was not made with the key that this board trusts"))
}

#[cfg(not(feature = "signatures"))]
fn verify(key: &Key, _: &[u8], _: &[u8]) -> Result<(), Refusal> {
    match *key {}
}

const TOO_LARGE: Refusal = Refusal::Because("the free slot is smaller than that");

fn part(room: &'static [u8], bytes: u32) -> Result<&'static [u8], Refusal> {
    room.get(..bytes as usize).ok_or(TOO_LARGE)
}
