//! The serial line, whose driver knows only how to be awaited.

use embassy_futures::block_on;
use embassy_nrf::buffered_uarte::{BufferedUarte, Error};
use embedded_io::{ErrorType, Read, ReadReady, Write};

/// Blocks where the driver waits.
pub struct Line(pub BufferedUarte<'static>);

impl ErrorType for Line {
    type Error = Error;
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        block_on(self.0.read(buffer))
    }
}

impl ReadReady for Line {
    fn read_ready(&mut self) -> Result<bool, Error> {
        ReadReady::read_ready(&mut self.0)
    }
}

impl Write for Line {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Error> {
        block_on(self.0.write(buffer))
    }

    fn flush(&mut self) -> Result<(), Error> {
        block_on(self.0.flush())
    }
}
