//! A model or an adapter to a board, in pieces, from where the last attempt stopped.

use super::{Client, Failure};
use crate::link::{Command, Install, checksum};

/// Bytes in a request to write.
const PIECE: usize = 512;
/// Pieces in a sector of a flash, which is erased when its first piece is written: an attempt begins with a whole one.
const SECTOR: usize = 4096 / PIECE;

/// Sends a file into the slot that does not run, and has it installed. What an earlier attempt has left there and
/// agrees is not sent again. `progress` hears how many of how many bytes are there.
///
/// # Errors
/// [`Failure`]; until the last request was answered the board goes on with what it has.
pub fn update(
    client: &mut Client,
    file: &[u8],
    kind: Install,
    signature: &[u8],
    mut progress: impl FnMut(usize, usize),
) -> Result<(), Failure> {
    let room = client.ask(Command::Slots)?.figure("its bytes")?;
    if file.len() as u64 > room {
        let why = format!("its free slot has {room} bytes, the file {}", file.len());
        return Err(Failure::Refused(why));
    }
    let pieces: Vec<&[u8]> = file.chunks(PIECE).collect();
    for (index, piece) in pieces.iter().enumerate().skip(there(client, file, pieces.len())?) {
        let offset = (index * PIECE) as u32;
        progress(index * PIECE, file.len());
        client.ask(Command::Write { offset, data: piece })?;
    }
    progress(file.len(), file.len());
    let (bytes, crc) = (file.len() as u32, checksum(file));
    client.ask(Command::Install { kind, bytes, crc, signature })?;
    Ok(())
}

/// How many pieces are there already, in whole sectors: the checksums of beginnings agree up to there.
fn there(client: &mut Client, file: &[u8], pieces: usize) -> Result<usize, Failure> {
    let (mut agree, mut differ) = (0, pieces + 1);
    while agree + 1 < differ {
        let middle = (agree + differ) / 2;
        let begin = &file[..file.len().min(middle * PIECE)];
        let found = client.ask(Command::Checksum { bytes: begin.len() as u32 })?.figure("crc")?;
        if found == u64::from(checksum(begin)) { agree = middle } else { differ = middle }
    }
    Ok(agree / SECTOR * SECTOR)
}
