//! A board in memory: a line that hands over what a test has written, a flash, two slots.
#![allow(dead_code, reason = "each test uses some of it")]

#[path = "../../../../examples/common/mod.rs"]
mod example;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;

use electret::link::{self, Command, Request};
use electret::tune::store::FlashStore;
use electret::weights::AlignedBytes;
use electret::{Error, Plan, Strategy, TINY, TuningPlan};
use electret_board::flash::imitate;
use electret_board::{Board, Key, Slots, Stack};
use embedded_io::{ErrorType, Read, Write};
use example::Flash;

pub const MODEL: &[u8] = include_bytes!("../../../../models/electret-tiny.electret");
pub const SLOT: usize = 2560 << 10;
pub const STRATEGY: Strategy = Strategy::lora(2, 1).with_head();
const TOKENS: usize = 32;

/// Both directions of a line. It is closed when all was read.
#[derive(Clone, Default)]
pub struct Wire {
    pub to_board: Rc<RefCell<VecDeque<u8>>>,
    pub from_board: Rc<RefCell<Vec<u8>>>,
}

impl ErrorType for Wire {
    type Error = Infallible;
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let byte = self.to_board.borrow_mut().pop_front();
        Ok(byte.map_or(0, |byte| {
            buffer[0] = byte;
            1
        }))
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.from_board.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Wire {
    /// Sends a request.
    pub fn send(&self, number: u16, command: Command<'_>) {
        self.to_board.borrow_mut().extend(frame(number, command));
    }
}

/// A request as it goes over the line.
pub fn frame(number: u16, command: Command<'_>) -> Vec<u8> {
    let mut bytes = [0; link::FRAME + 2];
    let mut rest = &mut bytes[..];
    assert!(matches!(link::write(&mut rest, &Request { number, command }), Ok(true)));
    let length = link::FRAME + 2 - rest.len();
    bytes[..length].to_vec()
}

/// Two slots of a flash in memory that is never given back.
pub struct MemorySlots([*mut u8; 2]);

impl MemorySlots {
    pub fn new(model: &[u8]) -> Self {
        let slot = || Box::leak(Box::new(AlignedBytes::zeroed(SLOT))).as_mut_slice();
        let (first, second) = (slot(), slot());
        first[..model.len()].copy_from_slice(model);
        Self([first.as_mut_ptr(), second.as_mut_ptr()])
    }
}

impl Slots for MemorySlots {
    fn read(&self, slot: u8) -> &'static [u8] {
        // SAFETY: leaked, as long as that, and not written while it is read.
        unsafe { std::slice::from_raw_parts(self.0[usize::from(slot)], SLOT) }
    }

    fn write(&mut self, slot: u8, offset: u32, data: &[u8]) -> Result<(), Error> {
        // SAFETY: leaked, and not read while it is written.
        let memory = unsafe { std::slice::from_raw_parts_mut(self.0[usize::from(slot)], SLOT) };
        imitate(memory, offset as usize, data).expect("within the slot");
        Ok(())
    }
}

pub type Simulated = Board<'static, Wire, FlashStore<Flash>, MemorySlots>;

/// A board on that wire.
pub fn board(serial: Wire, slots: MemorySlots, key: Option<Key>) -> Simulated {
    let memory = |bytes| Box::leak(Box::new(AlignedBytes::zeroed(bytes))).as_mut_slice();
    let pages = 128 * 4096;
    Board {
        name: "simulated",
        serial,
        store: FlashStore::open(Flash::new(pages), 0..pages as u32).unwrap(),
        slots,
        answering: memory(Plan::inference(&TINY, TOKENS).bytes()),
        learning: memory(TuningPlan::new(&TINY, TOKENS, STRATEGY, 32).bytes()),
        adapter: memory(64 << 10),
        key,
        clock: || 0,
        pulse: || (),
        stack: || Stack { deepest: 0, room: None },
    }
}
