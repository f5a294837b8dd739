//! A line that blocks, from one that is awaited.

use core::convert::Infallible;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_io::{ErrorType, Read, Write};

/// Asks again and again, and idles between; `idle` should sleep until there is an interrupt. What goes wrong on the line
/// is as if it had not come: frames that it damages are dropped anyway, and asked for again.
pub struct Patient<S, F> {
    pub serial: S,
    pub idle: F,
}

impl<S, F: FnMut()> Patient<S, F> {
    fn wait<T>(idle: &mut F, future: impl Future<Output = T>) -> T {
        let (mut future, mut context) = (pin!(future), Context::from_waker(Waker::noop()));
        loop {
            if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
                return result;
            }
            idle();
        }
    }
}

impl<S, F> ErrorType for Patient<S, F> {
    type Error = Infallible;
}

impl<S: embedded_io_async::Read, F: FnMut()> Read for Patient<S, F> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        loop {
            match Self::wait(&mut self.idle, self.serial.read(buffer)) {
                Ok(bytes) if bytes > 0 => return Ok(bytes),
                _ => {}
            }
        }
    }
}

impl<S: embedded_io_async::Write, F: FnMut()> Write for Patient<S, F> {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Infallible> {
        Ok(Self::wait(&mut self.idle, self.serial.write(buffer)).unwrap_or(buffer.len()))
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        let _ = Self::wait(&mut self.idle, self.serial.flush());
        Ok(())
    }
}
