//! The commands that serial NOR flashes of more than 16 MiB share, with addresses of four bytes.

use crate::flash::Chip;

/// Answered with a byte, of which [`BUSY`] is a part.
pub const READ_STATUS: u8 = 0x05;
const PROGRAM_PAGE: u8 = 0x12;
const ERASE_SECTOR: u8 = 0x21;
/// Whatever the flash was doing, it begins anew.
pub const RESET: [u8; 2] = [0x66, 0x99];
/// Before anything that changes the flash.
pub const WRITE_ENABLE: u8 = 0x06;

/// In [`READ_STATUS`]: a program or an erase is under way.
pub const BUSY: u8 = 1;
/// Bytes that are programmed at once, from a multiple of them.
const PAGE: usize = 256;

/// The controller that a serial flash hangs on.
pub trait Bus {
    /// Ends the time in which the flash is memory, for commands.
    fn unmap(&mut self);

    /// Makes the flash memory again, in which nothing old is seen.
    fn map(&mut self);

    /// Sends an instruction, an address if there is one, and data if there are any.
    fn send(&mut self, instruction: u8, address: Option<u32>, data: &[u8]);

    /// Sends an instruction: the byte that comes back.
    fn ask(&mut self, instruction: u8) -> u8;
}

/// A flash on a bus.
pub struct SerialNor<B>(B);

impl<B: Bus> SerialNor<B> {
    /// From a bus that is not mapped, whose flash was reset and takes commands.
    pub fn new(bus: B) -> Self {
        let mut nor = Self(bus);
        nor.wait();
        nor.0.map();
        nor
    }

    fn wait(&mut self) {
        while self.0.ask(READ_STATUS) & BUSY != 0 {}
    }

    /// Does something that changes what is in the flash.
    fn change(&mut self, instruction: u8, address: u32, data: &[u8]) {
        self.0.unmap();
        self.0.send(WRITE_ENABLE, None, &[]);
        self.0.send(instruction, Some(address), data);
        self.wait();
        self.0.map();
    }
}

impl<B: Bus> Chip for SerialNor<B> {
    fn erase(&mut self, sector: u32) -> Result<(), ()> {
        self.change(ERASE_SECTOR, sector, &[]);
        Ok(())
    }

    fn program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), ()> {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let room = PAGE - at as usize % PAGE;
            let (page, more) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.change(PROGRAM_PAGE, at, page);
            (at, rest) = (at + page.len() as u32, more);
        }
        Ok(())
    }
}
