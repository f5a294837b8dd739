//! `corpus build`: sources → shards, in bounded memory, and after an interruption from where it was.
//!
//! What is held at a time is a few megabytes of text and their tokens. Every so many megabytes the shards are flushed
//! and `corpus.part.json` says how far they are good and what the packer held then; a later build of the same sources
//! cuts the shards there and goes on to the same bytes.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::pack::{Packer, sentences};
use super::source::Lines;
use super::{Example, HELDOUT_EVERY, Manifest, checksum, vocabulary};
use crate::Error;
use crate::import::{read_vocabulary, write_atomically};
use crate::quantize::vocabulary_archive;
use crate::text::{Token, Tokenizer};
use crate::weights::{AlignedBytes, CRC_32C, access_vocabulary};

/// Batches of text between two notes of how far the shards are good.
const BATCHES_A_NOTE: usize = 16;

/// What `corpus build` is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildOptions {
    /// Text, `.jsonl`, either of them `.zst`, or `-`.
    pub sources: Vec<PathBuf>,
    /// Folder that receives `vocab.txt`, `train.u16`, `heldout.u16` and `corpus.json`. It decides nothing of them.
    #[serde(skip)]
    pub out: PathBuf,
    /// A vocabulary to use; without it one of `vocab_size` pieces is trained on the sources.
    pub vocab: Option<PathBuf>,
    /// Pieces of a vocabulary that is to be trained.
    pub vocab_size: usize,
    /// Longest example in tokens.
    pub sequence: usize,
    /// Seed of the packing.
    pub seed: u64,
}

/// `corpus.part.json`: how far a build has come.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    asked: BuildOptions,
    /// The source that is being read, and its lines that are packed.
    source: usize,
    lines: u64,
    /// Documents that have ended, and whether another has begun.
    documents: usize,
    in_document: bool,
    train: Written,
    heldout: Written,
    packer: Packer,
}

/// What a shard holds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Written {
    examples: usize,
    tokens: usize,
}

/// Reads all sources once to train a vocabulary (unless one is given) and once to pack them.
///
/// # Errors
/// Options out of range; a source that is no text, by line; what a disk says, after which the same call goes on.
pub fn build(options: &BuildOptions) -> Result<Manifest> {
    ensure!((8..=65_535).contains(&options.sequence), "--seq {}: 8 to 65,535 tokens", options.sequence);
    ensure!(options.vocab_size <= 1 << 16, "--vocab-size {}: shards hold u16", options.vocab_size);
    let piped = options.sources.iter().any(|source| source == Path::new("-"));
    ensure!(
        !piped || options.vocab.is_some(),
        "-: standard input is read once; give a --vocab to read it with"
    );
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let (mut building, vocabulary) = Building::open(options)?;
    building.pack(options, &Tokenizer::new(access_vocabulary(vocabulary.as_slice())?))?;
    building.finish(options)
}

struct Building {
    note: Note,
    vocab_size: usize,
    train: Shard,
    heldout: Shard,
}

impl Building {
    /// Goes on with what an interrupted build of the same sources left, or begins; and the vocabulary to read with.
    fn open(options: &BuildOptions) -> Result<(Self, AlignedBytes)> {
        // A mistyped name is found before anything is written.
        options.sources.iter().try_for_each(|source| Lines::open(source).map(drop))?;
        let vocab = options.out.join("vocab.txt");
        let left = std::fs::read(note_path(&options.out)).ok();
        let left: Option<Note> = left.and_then(|json| serde_json::from_slice(&json).ok());
        let is_same =
            |note: &Note| BuildOptions { out: options.out.clone(), ..note.asked.clone() } == *options;
        let left = left.filter(is_same);
        if left.is_none() {
            match &options.vocab {
                Some(given) => {
                    // It may be the very file that it is written to, and is good before it stands there.
                    read_vocabulary(given)?;
                    let pieces = std::fs::read(given).with_context(|| given.display().to_string())?;
                    write_atomically(&vocab, &pieces).with_context(|| vocab.display().to_string())?;
                }
                None => vocabulary::train(&options.sources, options.vocab_size, &vocab)?,
            }
        }
        let (pieces, special) = read_vocabulary(&vocab)?;
        ensure!(
            pieces.len() <= 1 << 16,
            "{}: {} pieces, of which a corpus's shards can hold 65,536",
            vocab.display(),
            pieces.len()
        );
        let vocabulary = vocabulary_archive(&pieces, &special, true);
        let note = match left {
            Some(note) => {
                log::info!("going on after {} documents", note.documents);
                note
            }
            None => Note {
                asked: options.clone(),
                source: 0,
                lines: 0,
                documents: 0,
                in_document: false,
                train: Written::default(),
                heldout: Written::default(),
                packer: Packer::new(options.sequence, special, options.seed),
            },
        };
        let shard = |name, written| Shard::open(&options.out.join(name), options.sequence, written);
        let (train, heldout) = (shard("train.u16", note.train)?, shard("heldout.u16", note.heldout)?);
        Ok((Self { note, vocab_size: pieces.len(), train, heldout }, vocabulary))
    }

    fn pack(&mut self, options: &BuildOptions, tokenizer: &Tokenizer<'_>) -> Result<()> {
        let mut paragraphs = Vec::new();
        for (index, source) in options.sources.iter().enumerate().skip(self.note.source) {
            log::info!("packing {}", source.display());
            let mut lines = Lines::open(source)?;
            lines.skip(self.note.lines)?;
            let mut batches = 0;
            while lines.next_batch(&mut paragraphs)? {
                self.pack_batch(&paragraphs, tokenizer)?;
                batches += 1;
                if batches % BATCHES_A_NOTE == 0 {
                    self.keep_note(options, index, lines.number())?;
                }
            }
            self.end_document()?;
            self.keep_note(options, index + 1, 0)?;
        }
        Ok(())
    }

    fn pack_batch(&mut self, paragraphs: &[String], tokenizer: &Tokenizer<'_>) -> Result<()> {
        let sentences: Vec<&str> = paragraphs.iter().flat_map(|paragraph| sentences(paragraph)).collect();
        let ids: Vec<Vec<u16>> = sentences
            .par_iter()
            .map_init(Vec::new, |room, sentence| ids(tokenizer, sentence, room))
            .collect::<Result<_, _>>()?;
        for (sentence, ids) in sentences.iter().zip(ids) {
            if sentence.is_empty() {
                self.end_document()?;
                continue;
            }
            self.note.in_document = true;
            if let Some(example) = self.note.packer.add(ids) {
                self.shard().write(&example)?;
            }
        }
        Ok(())
    }

    fn end_document(&mut self) -> Result<()> {
        if let Some(example) = self.note.packer.end_document() {
            self.shard().write(&example)?;
        }
        self.note.documents += usize::from(std::mem::take(&mut self.note.in_document));
        Ok(())
    }

    /// Where the document that is being read goes: the first ones are learned, so that a source without a blank line is.
    fn shard(&mut self) -> &mut Shard {
        let is_held_out = (self.note.documents + 1).is_multiple_of(HELDOUT_EVERY);
        if is_held_out { &mut self.heldout } else { &mut self.train }
    }

    fn keep_note(&mut self, options: &BuildOptions, source: usize, lines: u64) -> Result<()> {
        self.note.train = self.train.flush()?;
        self.note.heldout = self.heldout.flush()?;
        (self.note.source, self.note.lines) = (source, lines);
        let path = note_path(&options.out);
        write_atomically(&path, &serde_json::to_vec(&self.note)?).with_context(|| path.display().to_string())
    }

    fn finish(self, options: &BuildOptions) -> Result<Manifest> {
        let (train, heldout) = (self.note.train, self.note.heldout);
        if train.examples == 0 {
            // Once there is some, it is not to be passed over as read.
            remove_note(options)?;
            bail!("the sources hold no text to train on");
        }
        if heldout.examples == 0 {
            log::warn!(
                "no text is held out: one document in {HELDOUT_EVERY} is, and there are {}; in plain text a blank line \
                 ends a document",
                self.note.documents
            );
        }
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifest = Manifest {
            sequence: options.sequence,
            vocab_size: self.vocab_size,
            tokens: train.tokens + heldout.tokens,
            train_examples: train.examples,
            heldout_examples: heldout.examples,
            documents: self.note.documents,
            vocabulary_crc: checksum(&options.out.join("vocab.txt"))?,
            train_crc: self.train.crc()?,
            heldout_crc: self.heldout.crc()?,
            sources: options.sources.iter().map(name).collect(),
            seed: options.seed,
        };
        let path = options.out.join("corpus.json");
        write_atomically(&path, &serde_json::to_vec_pretty(&manifest)?)
            .with_context(|| path.display().to_string())?;
        remove_note(options)?;
        Ok(manifest)
    }
}

/// The pieces of a sentence by the core's own tokeniser, which `tests/tokenizer.rs` holds against Hugging Face's.
fn ids(tokenizer: &Tokenizer<'_>, sentence: &str, room: &mut Vec<Token>) -> Result<Vec<u16>, Error> {
    // A piece stands for a byte at least; [CLS] and [SEP] stand around them.
    room.resize(room.len().max(sentence.len() + 3), Token::default());
    let length = tokenizer.encode(sentence.into(), room)?;
    Ok(room[1..length - 1].iter().map(|token| token.id as u16).collect())
}

fn note_path(out: &Path) -> PathBuf {
    out.join("corpus.part.json")
}

fn remove_note(options: &BuildOptions) -> Result<()> {
    let note = note_path(&options.out);
    std::fs::remove_file(&note).with_context(|| note.display().to_string())
}

/// A shard that is being written.
struct Shard {
    file: BufWriter<File>,
    path: PathBuf,
    sequence: usize,
    written: Written,
}

impl Shard {
    /// Opens a shard and cuts off what was written after `written`.
    fn open(path: &Path, sequence: usize, written: Written) -> Result<Self> {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = opened.with_context(|| path.display().to_string())?;
        let bytes = (written.examples * (2 + sequence) * 2) as u64;
        ensure!(
            file.metadata()?.len() >= bytes,
            "{}: shorter than it was; build into another folder",
            path.display()
        );
        file.set_len(bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file: BufWriter::new(file), path: path.to_owned(), sequence, written })
    }

    fn write(&mut self, example: &Example) -> Result<()> {
        let mut record = vec![0u16; 2 + self.sequence];
        record[0] = example.ids.len() as u16;
        record[1] = example.first_segment as u16;
        record[2..2 + example.ids.len()].copy_from_slice(&example.ids);
        let bytes: Vec<u8> = record.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.write_all(&bytes).with_context(|| self.path.display().to_string())?;
        self.written.examples += 1;
        self.written.tokens += example.ids.len();
        Ok(())
    }

    fn flush(&mut self) -> Result<Written> {
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().sync_data())
            .with_context(|| self.path.display().to_string())?;
        Ok(self.written)
    }

    /// CRC-32C of the whole file, read a megabyte at a time: a mapping would count as memory.
    fn crc(&self) -> Result<u32> {
        let mut file = self.file.get_ref();
        file.seek(SeekFrom::Start(0))?;
        let (mut digest, mut buffer) = (CRC_32C.digest(), vec![0; 1 << 20]);
        loop {
            let read = file.read(&mut buffer).with_context(|| self.path.display().to_string())?;
            if read == 0 {
                return Ok(digest.finalize());
            }
            digest.update(&buffer[..read]);
        }
    }
}
