//! The curve as TensorBoard reads it: an event file of scalars.
//!
//! A record is a length, its checksum, a `tensorflow.Event` protocol buffer and its checksum (TensorFlow's
//! `record_writer.cc`, `event.proto`, `summary.proto`). Five fields of four messages are all that a scalar needs.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::curve::{COLUMNS, Row};
use crate::weights::CRC_32C;

/// An event file that is being written.
pub struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// A new file in the folder, whose first event tells TensorBoard to forget what earlier files say after `step`.
    pub fn create(folder: &Path, step: usize) -> Result<Self> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("events.out.tfevents.{}.{}.electret", started.as_secs(), started.subsec_nanos());
        let path = folder.join(name);
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        let mut events = Self { file, path };
        events.record(&message(3, b"brain.Event:2"))?;
        let session_start = [&varint(1 << 3)[..], &varint(1)].concat();
        events.record(&[step_field(step), message(7, &session_start)].concat())?;
        Ok(events)
    }

    /// One scalar for each column that has a value.
    pub fn add(&mut self, row: &Row) -> Result<()> {
        let named = COLUMNS[1..].iter().zip(row.values).filter(|(_, value)| value.is_finite());
        let summary: Vec<u8> = named
            .flat_map(|(name, value)| {
                let simple_value = [&[2 << 3 | 5][..], &(value as f32).to_le_bytes()].concat();
                message(1, &[message(1, name.as_bytes()), simple_value].concat())
            })
            .collect();
        self.record(&[step_field(row.step), message(5, &summary)].concat())
    }

    /// An event of these fields, now.
    fn record(&mut self, fields: &[u8]) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let event = [&[1 << 3 | 1][..], &now.to_le_bytes(), fields].concat();
        let length = (event.len() as u64).to_le_bytes();
        let record = [&length[..], &masked_crc(&length), &event, &masked_crc(&event)].concat();
        self.file.write_all(&record).with_context(|| self.path.display().to_string())
    }
}

fn step_field(step: usize) -> Vec<u8> {
    [varint(2 << 3), varint(step as u64)].concat()
}

/// A field of a length and bytes: a string or a message.
fn message(field: u64, bytes: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2)[..], &varint(bytes.len() as u64), bytes].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// TensorFlow's: rotated, and moved by a constant, so that a checksum of checksums stays one.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    CRC_32C.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}
