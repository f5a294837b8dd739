//! One end of the line: requests out, answers in, and again where nothing comes.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::Error;
use crate::link::{self, About, Answer, Command, FRAME, Frames, Reply, Request, VERSION};

/// How often a request is sent before the board counts as silent.
const ATTEMPTS: usize = 3;

/// A board at the other end of a line.
pub struct Client {
    writer: Box<dyn Write + Send>,
    messages: Receiver<Vec<u8>>,
    number: u16,
    timeout: Duration,
}

/// Why a board did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It says why.
    #[error("the board refuses: {0}")]
    Refused(String),
    /// There is nothing in a text.
    #[error("the board refuses: {}", Error::<&str>::EmptyText)]
    EmptyText,
    /// It says nothing.
    #[error(
        "the board says nothing, though asked {ATTEMPTS} times; on a serial port, is --baud what the board's src/main.rs says?"
    )]
    Silent,
    /// Nobody is there.
    #[error("the line to the board is closed")]
    Closed,
    /// It speaks another version of the protocol.
    #[error("the board speaks version {0} of the protocol, this command {VERSION}")]
    Protocol(u16),
    /// It says something that was not asked for.
    #[error("the board's answer lacks {0}; is its firmware of another version?")]
    Unexpected(&'static str),
    /// The request has no room in a frame.
    #[error("a request is longer than {} bytes; send a shorter text", link::MESSAGE)]
    TooLong,
}

/// What a board said to one request.
#[derive(Debug)]
pub struct Answers(Vec<Vec<u8>>);

impl Answers {
    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = Answer<'_>> {
        self.0
            .iter()
            .filter_map(|message| postcard::from_bytes::<Reply<'_>>(message).ok())
            .map(|reply| reply.answer)
    }

    /// The figure of that name.
    ///
    /// # Errors
    /// [`Failure::Unexpected`] if there is none.
    pub fn figure(&self, wanted: &'static str) -> Result<u64, Failure> {
        let mut figures = self.iter().filter_map(|answer| match answer {
            Answer::Figure { name, value } if name == wanted => Some(value),
            _ => None,
        });
        figures.next().ok_or(Failure::Unexpected(wanted))
    }

    /// Who answered.
    ///
    /// # Errors
    /// [`Failure::Unexpected`] if nobody said who he is; [`Failure::Protocol`].
    pub fn board(&self) -> Result<About<'_>, Failure> {
        let mut boards = self.iter().filter_map(|answer| match answer {
            Answer::Board(about) => Some(about),
            _ => None,
        });
        let about = boards.next().ok_or(Failure::Unexpected("who it is"))?;
        if about.protocol == VERSION { Ok(about) } else { Err(Failure::Protocol(about.protocol)) }
    }
}

impl Client {
    /// Talks over a line of which `reader` is the board's end and `writer` ours.
    pub fn new(mut reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) -> Self {
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let (mut frames, mut bytes) = (Frames::default(), [0; 4096]);
            loop {
                let length = match reader.read(&mut bytes) {
                    Ok(0) => return,
                    Ok(length) => length,
                    // A serial port gives up waiting every now and then.
                    Err(error) if error.kind() == std::io::ErrorKind::TimedOut => continue,
                    Err(_) => return,
                };
                for &byte in &bytes[..length] {
                    if let Some(length) = frames.push(byte)
                        && sender.send(frames.message(length).to_vec()).is_err()
                    {
                        return;
                    }
                }
            }
        });
        // Another number than the last client's, so that nothing is taken for a repetition.
        let number = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |t| t.subsec_micros());
        Self { writer: Box::new(writer), messages, number: number as u16, timeout: Duration::from_secs(60) }
    }

    /// Asks again after so long a silence; a minute, if nothing else is said.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks a board for something.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn ask(&mut self, command: Command<'_>) -> Result<Answers, Failure> {
        self.number = self.number.wrapping_add(1);
        let mut frame = [0; FRAME + 2];
        let mut rest = &mut frame[..];
        match link::write(&mut rest, &Request { number: self.number, command }) {
            Ok(true) => {}
            _ => return Err(Failure::TooLong),
        }
        let length = FRAME + 2 - rest.len();
        for _ in 0..ATTEMPTS {
            self.writer
                .write_all(&frame[..length])
                .and_then(|()| self.writer.flush())
                .map_err(|_| Failure::Closed)?;
            if let Some(answers) = self.answers()? {
                return Ok(answers);
            }
        }
        Err(Failure::Silent)
    }

    /// What is said to the last request; `None` if it stays quiet for too long, or an answer was lost on the way.
    fn answers(&mut self) -> Result<Option<Answers>, Failure> {
        let mut said = Vec::new();
        loop {
            let message = match self.messages.recv_timeout(self.timeout) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(Failure::Closed),
            };
            match postcard::from_bytes(&message) {
                Ok(Reply { number, .. }) if number != self.number => {}
                Ok(Reply { answer: Answer::Done { replies }, .. }) => {
                    return Ok((said.len() == usize::from(replies)).then_some(Answers(said)));
                }
                Ok(Reply { answer: Answer::Refused(Error::EmptyText), .. }) => {
                    return Err(Failure::EmptyText);
                }
                Ok(Reply { answer: Answer::Refused(error), .. }) => {
                    return Err(Failure::Refused(error.to_string()));
                }
                Ok(Reply { answer: Answer::Failed(why), .. }) => {
                    return Err(Failure::Refused(why.to_owned()));
                }
                Ok(_) => said.push(message),
                Err(_) => {}
            }
        }
    }
}
