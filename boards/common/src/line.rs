//! Requests in, replies out.

use electret::Error;
use electret::link::{self, Answer, Frames, Request};
use embedded_io::{Read, Write};

/// The receiving end of a serial line.
#[derive(Default)]
pub struct Line(Frames);

impl Line {
    /// Waits for a whole message: its length; `None` if the line is closed.
    pub fn receive<S: Read>(&mut self, serial: &mut S) -> Result<Option<usize>, S::Error> {
        let mut byte = [0];
        while serial.read(&mut byte)? == 1 {
            if let Some(length) = self.0.push(byte[0]) {
                return Ok(Some(length));
            }
        }
        Ok(None)
    }

    /// The request of that length, if it is one.
    pub fn request(&self, length: usize) -> Option<Request<'_>> {
        postcard::from_bytes(self.0.message(length)).ok()
    }
}

/// Why a request was not fulfilled.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// The core refused.
    Core(Error),
    /// The firmware did.
    Because(&'static str),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

/// What is said to one request.
pub struct Reply<'s, S: Write> {
    serial: &'s mut S,
    number: u16,
    replies: u16,
    /// The line's first error; nothing is said after it.
    error: Option<S::Error>,
}

impl<'s, S: Write> Reply<'s, S> {
    pub fn new(serial: &'s mut S, number: u16) -> Self {
        Self { serial, number, replies: 0, error: None }
    }

    pub fn say(&mut self, answer: Answer<'_>) {
        if self.error.is_none() {
            self.error = link::write(self.serial, &link::Reply { number: self.number, answer }).err();
            self.replies = self.replies.saturating_add(1);
        }
    }

    pub fn figure(&mut self, name: &str, value: u64) {
        self.say(Answer::Figure { name, value });
    }

    /// Says how it ended.
    pub fn close(mut self, result: Result<(), Refusal>) -> Result<(), S::Error> {
        match result {
            Ok(()) => self.say(Answer::Done { replies: self.replies }),
            Err(Refusal::Because(why)) => self.say(Answer::Failed(why)),
            Err(Refusal::Core(error)) => self.say(Answer::Refused(error)),
        }
        self.error.map_or(Ok(()), Err)
    }
}
