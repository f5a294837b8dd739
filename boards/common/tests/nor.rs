//! A serial flash on a bus that holds it to its data sheet, and a board's map over it.

use std::cell::RefCell;
use std::rc::Rc;

use electret_board::Slots;
use electret_board::flash::{Chip, Map, MappedFlash, SECTOR};
use electret_board::nor::{Bus, SerialNor};

const BYTES: usize = 16 * SECTOR;

/// What a flash would do, or forbid.
struct Flash {
    memory: Vec<u8>,
    mapped: bool,
    writable: bool,
    /// Questions after which it is no longer busy.
    busy: usize,
}

#[derive(Clone)]
struct Wire(Rc<RefCell<Flash>>);

impl Bus for Wire {
    fn unmap(&mut self) {
        assert!(std::mem::replace(&mut self.0.borrow_mut().mapped, false), "was not mapped");
    }

    fn map(&mut self) {
        let mut flash = self.0.borrow_mut();
        assert!(flash.busy == 0, "mapped while it is busy");
        assert!(!std::mem::replace(&mut flash.mapped, true), "was mapped");
    }

    fn send(&mut self, instruction: u8, address: Option<u32>, data: &[u8]) {
        let mut flash = self.0.borrow_mut();
        assert!(!flash.mapped && flash.busy == 0, "told something at the wrong time");
        match (instruction, address) {
            (0x06, None) => flash.writable = true,
            (0x21, Some(sector)) => {
                let sector = sector as usize;
                assert!(
                    std::mem::take(&mut flash.writable) && sector.is_multiple_of(SECTOR) && data.is_empty()
                );
                flash.memory[sector..sector + SECTOR].fill(0xff);
                flash.busy = 7;
            }
            (0x12, Some(start)) => {
                let start = start as usize;
                assert!(std::mem::take(&mut flash.writable) && !data.is_empty());
                assert_eq!(start / 256, (start + data.len() - 1) / 256, "a page has an end");
                let memory = &mut flash.memory[start..start + data.len()];
                memory.iter_mut().zip(data).for_each(|(old, new)| *old &= new);
                flash.busy = 3;
            }
            other => panic!("{other:x?}"),
        }
    }

    fn ask(&mut self, instruction: u8) -> u8 {
        assert_eq!(instruction, 0x05);
        let mut flash = self.0.borrow_mut();
        flash.busy = flash.busy.saturating_sub(1);
        u8::from(flash.busy > 0)
    }
}

impl Wire {
    fn new() -> Self {
        let memory = vec![0; BYTES];
        Self(Rc::new(RefCell::new(Flash { memory, mapped: false, writable: false, busy: 0 })))
    }
}

/// A slot of three sectors is filled in pieces that know nothing of sectors or pages.
#[test]
fn a_slot_is_written_in_pieces() {
    const SIZE: u32 = SECTOR as u32;
    let wire = Wire::new();
    let mapped = wire.0.borrow().memory.as_ptr().expose_provenance();
    // SAFETY: the memory is not moved, and nobody writes while a slice of it is looked at.
    let map = unsafe { Map::new(mapped, BYTES, [SIZE, 4 * SIZE], 3 * SIZE, 7 * SIZE..15 * SIZE) };
    let chip = RefCell::new(SerialNor::new(wire.clone()));
    let mut slots = MappedFlash::new(&chip, &map, || ());
    let file: Vec<u8> = (0..3 * SECTOR).map(|i| (i * 13 + i / 256) as u8).collect();
    for (at, piece) in (0..).step_by(500).zip(file.chunks(500)) {
        slots.write(1, at, piece).unwrap();
    }
    assert!(slots.read(1) == file && slots.read(0).iter().all(|&byte| byte == 0) && slots.read(2).is_empty());
    assert_eq!(wire.0.borrow().memory[7 * SECTOR], 0, "what follows the slot");
    // A host may say what it likes.
    assert!(slots.write(1, 2, &file[..8]).is_err());
    assert!(slots.write(2, 0, &file[..8]).is_err());
}

#[test]
fn a_flash_is_told_what_it_understands() {
    let wire = Wire::new();
    let mut nor = SerialNor::new(wire.clone());
    assert!(wire.0.borrow().mapped);
    nor.erase(2 * SECTOR as u32).unwrap();
    nor.erase(3 * SECTOR as u32).unwrap();
    let bytes: Vec<u8> = (0..3000).map(|i| (i * 7 + i / 256) as u8).collect();
    for (start, length) in [(0, 4), (100, 156), (300, 700), (1000, 1), (1004, 0), (1008, 1992)] {
        nor.program((2 * SECTOR + start) as u32, &bytes[start..start + length]).unwrap();
    }
    let flash = wire.0.borrow();
    assert!(flash.mapped && !flash.writable);
    let written = &flash.memory[2 * SECTOR..];
    assert!(written[100..256] == bytes[100..256] && written[300..1001] == bytes[300..1001]);
    assert!(written[1008..3000] == bytes[1008..3000] && written[4..100].iter().all(|&byte| byte == 0xff));
    assert!(flash.memory[..2 * SECTOR].iter().all(|&byte| byte == 0));
}
