//! A serial line that is waited for asleep.

use embedded_io::{ErrorType, Read, ReadReady, Write};

/// Sleeps until there is something to read, and shows the watchdog that this is no accident.
pub struct Patient<S> {
    pub serial: S,
    pub feed: fn(),
}

impl<S: ErrorType> ErrorType for Patient<S> {
    type Error = S::Error;
}

impl<S: Read + ReadReady> Read for Patient<S> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, S::Error> {
        while !self.serial.read_ready()? {
            (self.feed)();
            // An interrupt that came since the question ends this at once; the next tick does at the latest.
            cortex_m::asm::wfe();
        }
        self.serial.read(buffer)
    }
}

impl<S: Write> Write for Patient<S> {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, S::Error> {
        self.serial.write(buffer)
    }

    fn flush(&mut self) -> Result<(), S::Error> {
        self.serial.flush()
    }
}
