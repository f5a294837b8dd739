//! Raw text → a vocabulary, and packed training examples in memory-mapped `u16` shards.
//!
//! [`build`](build()) streams its sources: every paragraph is cut into sentences, sentences are packed into
//! examples of one or two segments as `build_pretraining_dataset.py` does, and each example becomes one
//! record of a shard: `[length, first segment's length, ids…, 0…]`, `2 + sequence` little-endian `u16`. One document
//! in [`HELDOUT_EVERY`] goes to the held-out shard, which training never reads. Records are of one length, so a shard
//! needs no index; `corpus.json` keeps how many there are and each shard's checksum.

pub mod build;
mod pack;
mod source;
mod vocabulary;

pub use build::{BuildOptions, build};

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use crate::import::read_vocabulary;
use crate::text::SpecialTokens;
use crate::weights::CRC_32C;

/// One document in so many is held out.
pub const HELDOUT_EVERY: usize = 200;

/// One training example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`.
    pub ids: Vec<u16>,
    /// Tokens of segment 0: `[CLS] A [SEP]`.
    pub first_segment: usize,
}

/// `corpus.json`: what a built corpus holds.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Manifest {
    /// Longest example in tokens.
    pub sequence: usize,
    /// Pieces in `vocab.txt`.
    pub vocab_size: usize,
    /// Records of `train.u16`.
    pub train_examples: usize,
    /// Records of `heldout.u16`.
    pub heldout_examples: usize,
    /// Tokens in all records, special tokens included.
    pub tokens: usize,
    /// Documents read.
    pub documents: usize,
    /// CRC-32C of `vocab.txt`: which pieces the ids stand for.
    pub vocabulary_crc: u32,
    /// CRC-32C of `train.u16`.
    pub train_crc: u32,
    /// CRC-32C of `heldout.u16`.
    pub heldout_crc: u32,
    /// File names of the sources.
    pub sources: Vec<String>,
    /// Seed of the packing.
    pub seed: u64,
}

impl Manifest {
    /// Reads a `corpus.json`.
    ///
    /// # Errors
    /// If there is none, or it is another version's.
    pub fn read(path: &Path) -> Result<Self> {
        let json = std::fs::read(path).with_context(|| {
            format!("{}: no corpus here; make one with `electret corpus build`", path.display())
        })?;
        serde_json::from_slice(&json)
            .with_context(|| format!("{}: cannot be used; build the corpus again", path.display()))
    }
}

/// A built corpus, opened for reading.
#[derive(Debug)]
pub struct Corpus {
    /// What it holds.
    pub manifest: Manifest,
    /// The pieces of its vocabulary, by id.
    pub pieces: Vec<String>,
    /// The special tokens among them.
    pub special: SpecialTokens,
    /// Examples to train on.
    pub train: Examples,
    /// Examples of held-out documents.
    pub heldout: Examples,
}

impl Corpus {
    /// Opens the folder that [`build`](build()) wrote.
    pub fn open(folder: &Path) -> Result<Self> {
        let manifest = Manifest::read(&folder.join("corpus.json"))?;
        let vocabulary = folder.join("vocab.txt");
        ensure!(
            checksum(&vocabulary)? == manifest.vocabulary_crc,
            "{}: not what `corpus build` wrote; build the corpus again",
            vocabulary.display()
        );
        let (pieces, special) = read_vocabulary(&vocabulary)?;
        let open = |name, examples| Examples::open(&folder.join(name), &manifest, examples);
        Ok(Self {
            train: open("train.u16", manifest.train_examples)?,
            heldout: open("heldout.u16", manifest.heldout_examples)?,
            manifest,
            pieces,
            special,
        })
    }
}

impl Corpus {
    /// Reads both shards through and compares their checksums.
    ///
    /// # Errors
    /// A shard that has changed, by name.
    pub fn verify(&self) -> Result<()> {
        let shards = [
            ("train.u16", &self.train, self.manifest.train_crc),
            ("heldout.u16", &self.heldout, self.manifest.heldout_crc),
        ];
        for (name, shard, expected) in shards {
            let found = CRC_32C.checksum(&shard.map);
            ensure!(found == expected, "{name}: not what `corpus build` wrote; build the corpus again");
        }
        Ok(())
    }

    /// Natural logarithms of the pieces' frequencies in the training text, each counted once more.
    pub fn log_frequencies(&self) -> Vec<f32> {
        let mut counts = vec![1u64; self.pieces.len()];
        for index in 0..self.train.len() {
            for id in self.train.get(index).ids {
                counts[usize::from(id)] += 1;
            }
        }
        let total: u64 = counts.iter().sum();
        counts.iter().map(|&count| (count as f64 / total as f64).ln() as f32).collect()
    }
}

/// CRC-32C of a small file.
fn checksum(path: &Path) -> Result<u32> {
    Ok(CRC_32C.checksum(&std::fs::read(path).with_context(|| path.display().to_string())?))
}

/// The records of one shard, memory-mapped.
#[derive(Debug)]
pub struct Examples {
    map: Mmap,
    record: usize,
    count: usize,
}

impl Examples {
    fn open(path: &Path, manifest: &Manifest, count: usize) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let map = crate::weights::map(&file).with_context(|| path.display().to_string())?;
        let record = 2 + manifest.sequence;
        ensure!(
            map.len() == count * record * 2,
            "{}: {} bytes where corpus.json says {}",
            path.display(),
            map.len(),
            count * record * 2
        );
        Ok(Self { map, record, count })
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The example of that number, below [`Examples::len`].
    pub fn get(&self, index: usize) -> Example {
        let bytes = &self.map[index * self.record * 2..(index + 1) * self.record * 2];
        let mut words = bytes.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes));
        let length = words.next().unwrap_or_default() as usize;
        let first_segment = words.next().unwrap_or_default() as usize;
        Example { ids: words.take(length).collect(), first_segment }
    }
}
