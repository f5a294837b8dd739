//! Raw text → a vocabulary, and packed training examples in memory-mapped `u16` shards.
//!
//! Text comes as one paragraph a line with a blank line between documents, plain or `.zst`. Every
//! paragraph is cut into sentences, sentences are packed into examples of one or two segments as
//! `build_pretraining_dataset.py` does, and each example becomes one record of a shard:
//! `[length, first segment's length, ids…, 0…]`, `2 + sequence` little-endian `u16`. One document
//! in [`HELDOUT_EVERY`] goes to the held-out shard, which training never reads.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use memmap2::Mmap;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer, models::TrainerWrapper};

use crate::import::{read_vocabulary, write_atomically};
use crate::text::SpecialTokens;

/// One document in so many is held out.
pub const HELDOUT_EVERY: usize = 200;

/// Lines that are tokenised together, across all cores.
const LINES_AT_ONCE: usize = 4096;

/// One training example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`.
    pub ids: Vec<u16>,
    /// Tokens of segment 0: `[CLS] A [SEP]`.
    pub first_segment: usize,
}

/// What `corpus build` is asked for.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// Text files, `.zst` or plain.
    pub sources: Vec<PathBuf>,
    /// Folder that receives `vocab.txt`, `train.u16`, `heldout.u16` and `corpus.json`.
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
    /// File names of the sources.
    pub sources: Vec<String>,
    /// Seed of the packing.
    pub seed: u64,
}

/// Reads all sources once to train a vocabulary (unless one is given) and once to pack them.
pub fn build(options: &BuildOptions) -> Result<Manifest> {
    ensure!(options.sequence >= 8, "--seq {}: at least 8 tokens are needed", options.sequence);
    ensure!(options.vocab_size <= 1 << 16, "--vocab-size {}: shards hold u16", options.vocab_size);
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let vocab = options.out.join("vocab.txt");
    match &options.vocab {
        Some(given) => drop(std::fs::copy(given, &vocab).with_context(|| given.display().to_string())?),
        None => train_vocabulary(options, &vocab)?,
    }
    let (tokenizer, special, vocab_size) = open_tokenizer(&vocab)?;
    let mut packer = Packer::new(options.sequence, special, options.seed);
    let mut train = Shard::create(&options.out.join("train.u16"), options.sequence)?;
    let mut heldout = Shard::create(&options.out.join("heldout.u16"), options.sequence)?;
    let mut documents = 0;
    let mut lines = Vec::with_capacity(LINES_AT_ONCE);
    for source in &options.sources {
        log::info!("packing {}", source.display());
        let mut reader = Lines::open(source)?;
        loop {
            let more = reader.next_batch(&mut lines)?;
            let sentences: Vec<&str> = lines.iter().flat_map(|line| sentences(line)).collect();
            let encodings =
                tokenizer.encode_batch_fast(sentences.clone(), false).map_err(|error| anyhow!("{error}"))?;
            for (sentence, encoding) in sentences.iter().zip(&encodings) {
                let shard = if documents % HELDOUT_EVERY == 0 { &mut heldout } else { &mut train };
                let example = if sentence.is_empty() {
                    documents += 1;
                    packer.end_document()
                } else {
                    packer.add(encoding.get_ids())
                };
                if let Some(example) = example {
                    shard.write(&example)?;
                }
            }
            if !more {
                break;
            }
        }
        if let Some(example) = packer.end_document() {
            train.write(&example)?;
        }
        documents += 1;
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let manifest = Manifest {
        sequence: options.sequence,
        vocab_size,
        tokens: train.tokens + heldout.tokens,
        train_examples: train.finish()?,
        heldout_examples: heldout.finish()?,
        documents,
        sources: options.sources.iter().map(name).collect(),
        seed: options.seed,
    };
    ensure!(manifest.train_examples > 0, "the sources hold no text to train on");
    let json = serde_json::to_vec_pretty(&manifest)?;
    write_atomically(&options.out.join("corpus.json"), &json)?;
    Ok(manifest)
}

/// Trains an uncased WordPiece vocabulary on every fourth line of the sources.
fn train_vocabulary(options: &BuildOptions, path: &Path) -> Result<()> {
    let mut tokenizer = Tokenizer::new(WordPiece::default());
    tokenizer.with_normalizer(Some(BertNormalizer::default()));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let special = SpecialTokens::NAMES.map(|name| AddedToken::from(name, true));
    let trainer = WordPieceTrainer::builder()
        .vocab_size(options.vocab_size)
        .limit_alphabet(256)
        .special_tokens(special.to_vec())
        .show_progress(false)
        .build();
    let mut text = Vec::new();
    for source in &options.sources {
        let mut reader = Lines::open(source)?;
        let mut lines = Vec::new();
        loop {
            let more = reader.next_batch(&mut lines)?;
            text.extend(lines.drain(..).step_by(4));
            if !more {
                break;
            }
        }
    }
    log::info!("training a vocabulary of {} pieces on {} lines", options.vocab_size, text.len());
    tokenizer
        .train(&mut TrainerWrapper::from(trainer), text.into_iter())
        .map_err(|error| anyhow!("{error}"))?;
    let mut pieces: Vec<(String, u32)> = tokenizer.get_vocab(true).into_iter().collect();
    pieces.sort_by_key(|&(_, id)| id);
    let lines: Vec<String> = pieces.into_iter().map(|(piece, _)| piece).collect();
    write_atomically(path, (lines.join("\n") + "\n").as_bytes())?;
    Ok(())
}

/// Hugging Face's uncased tokeniser over a `vocab.txt`.
fn open_tokenizer(path: &Path) -> Result<(Tokenizer, SpecialTokens, usize)> {
    let (pieces, special) = read_vocabulary(path)?;
    let vocab = pieces.iter().zip(0u32..).map(|(piece, id)| (piece.clone(), id));
    let model = WordPiece::builder()
        .vocab(vocab.collect::<ahash::AHashMap<_, _>>())
        .unk_token("[UNK]".to_owned())
        .build();
    let mut tokenizer = Tokenizer::new(model.map_err(|error| anyhow!("{error}"))?);
    tokenizer.with_normalizer(Some(BertNormalizer::default()));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    Ok((tokenizer, special, pieces.len()))
}

/// Cuts a paragraph after `.`, `!` or `?` and a space, where an upper-case letter or a quote
/// follows. A blank line gives one empty sentence: the end of a document.
fn sentences(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    for (at, mark) in line.match_indices(['.', '!', '?']) {
        let after = &line[at + mark.len()..];
        let mut next = after.chars();
        let opens =
            next.next() == Some(' ') && next.next().is_some_and(|c| c.is_uppercase() || c == '"' || c == '“');
        if opens {
            found.push(line[start..at + mark.len()].trim());
            start = at + mark.len() + 1;
        }
    }
    found.push(line[start..].trim());
    found.retain(|sentence| !sentence.is_empty() || line.trim().is_empty());
    found
}

/// Packs sentences into examples, as ELECTRA's data builder does.
struct Packer {
    sequence: usize,
    special: SpecialTokens,
    rng: ChaCha8Rng,
    sentences: Vec<Vec<u16>>,
    length: usize,
    target: usize,
}

impl Packer {
    fn new(sequence: usize, special: SpecialTokens, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { sequence, special, rng, sentences: Vec::new(), length: 0, target: sequence }
    }

    fn add(&mut self, ids: &[u32]) -> Option<Example> {
        self.length += ids.len();
        self.sentences.push(ids.iter().map(|&id| id as u16).collect());
        (self.length >= self.target).then(|| self.pack())
    }

    fn end_document(&mut self) -> Option<Example> {
        (self.length > 0).then(|| self.pack())
    }

    /// One example of all sentences held. One in ten is a single segment; of the others, the
    /// first segment takes what fits into half, and a sentence that would overflow it half the time.
    /// One in twenty aims at a random shorter length.
    fn pack(&mut self) -> Example {
        let single = self.rng.random_bool(0.1);
        let first_target = if single { usize::MAX } else { self.target.saturating_sub(3) / 2 };
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for sentence in self.sentences.drain(..) {
            let fits = first.len() + sentence.len() < first_target;
            let overflows = second.is_empty() && first.len() < first_target;
            if first.is_empty() || fits || (overflows && self.rng.random_bool(0.5)) {
                first.extend(sentence);
            } else {
                second.extend(sentence);
            }
        }
        first.truncate(self.sequence - 2);
        second.truncate((self.sequence - first.len()).saturating_sub(3));
        self.length = 0;
        let short = self.rng.random_bool(0.05);
        self.target = if short { self.rng.random_range(5..=self.sequence) } else { self.sequence };

        let (cls, sep) = (self.special.cls as u16, self.special.sep as u16);
        let first_segment = first.len() + 2;
        let mut ids = vec![cls];
        ids.extend(first);
        ids.push(sep);
        if !second.is_empty() {
            ids.extend(second);
            ids.push(sep);
        }
        Example { ids, first_segment }
    }
}

/// A shard that is being written.
struct Shard {
    file: BufWriter<File>,
    sequence: usize,
    examples: usize,
    tokens: usize,
}

impl Shard {
    fn create(path: &Path, sequence: usize) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self { file: BufWriter::new(file), sequence, examples: 0, tokens: 0 })
    }

    fn write(&mut self, example: &Example) -> Result<()> {
        let mut record = vec![0u16; 2 + self.sequence];
        record[0] = example.ids.len() as u16;
        record[1] = example.first_segment as u16;
        record[2..2 + example.ids.len()].copy_from_slice(&example.ids);
        let bytes: Vec<u8> = record.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.file.write_all(&bytes)?;
        self.examples += 1;
        self.tokens += example.ids.len();
        Ok(())
    }

    fn finish(self) -> Result<usize> {
        self.file.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        Ok(self.examples)
    }
}

/// Lines of a text file, decompressed where its name ends in `.zst`.
struct Lines {
    reader: BufReader<Box<dyn Read>>,
    path: PathBuf,
}

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let reader: Box<dyn Read> = if path.extension().is_some_and(|end| end == "zst") {
            let mut decoder = zstd::Decoder::new(file)?;
            decoder.window_log_max(27)?;
            Box::new(decoder)
        } else {
            Box::new(file)
        };
        Ok(Self { reader: BufReader::with_capacity(1 << 20, reader), path: path.to_owned() })
    }

    /// Fills `lines` with the next lines; `false` once the file has ended.
    fn next_batch(&mut self, lines: &mut Vec<String>) -> Result<bool> {
        lines.clear();
        while lines.len() < LINES_AT_ONCE {
            let mut line = String::new();
            let read = self.reader.read_line(&mut line);
            if read.with_context(|| format!("{}: not UTF-8 text", self.path.display()))? == 0 {
                return Ok(false);
            }
            lines.push(line);
        }
        Ok(true)
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
    /// Opens the folder that [`build`] wrote.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("corpus.json");
        let json = std::fs::read(&path).with_context(|| {
            format!("{}: no corpus here; make one with `electret corpus build`", path.display())
        })?;
        let manifest: Manifest = serde_json::from_slice(&json).with_context(|| path.display().to_string())?;
        let (pieces, special) = read_vocabulary(&folder.join("vocab.txt"))?;
        ensure!(
            pieces.len() == manifest.vocab_size,
            "{}: vocab.txt has {} pieces where corpus.json says {}",
            folder.display(),
            pieces.len(),
            manifest.vocab_size
        );
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
