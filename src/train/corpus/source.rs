//! Text as it comes: plain, zstd or JSON lines, from files or standard input, a few megabytes at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Text that is handed on together, across all cores.
const BATCH_BYTES: usize = 4 << 20;

/// A line may not be longer: what is longer is no text of paragraphs.
const MOST_LINE_BYTES: usize = 64 << 20;

/// Paragraphs of a source, an empty one after each document.
///
/// Plain text has a paragraph a line and an empty line between documents; a line of `.jsonl` is a document whose
/// paragraphs are the lines of its field `text`. Either may be compressed (`.zst`); `-` is standard input, plain.
pub struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    path: PathBuf,
    json: bool,
    /// Lines read.
    number: u64,
}

impl Lines {
    /// Opens a source.
    ///
    /// # Errors
    /// What the system says, by the file's name.
    pub fn open(path: &Path) -> Result<Self> {
        let mut name = path.to_owned();
        let reader: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            let file = File::open(path).with_context(|| path.display().to_string())?;
            if path.extension().is_some_and(|end| end == "zst") {
                name.set_extension("");
                let mut decoder = zstd::Decoder::new(file).with_context(|| path.display().to_string())?;
                decoder.window_log_max(27)?;
                Box::new(decoder)
            } else {
                Box::new(file)
            }
        };
        let json = name.extension().is_some_and(|end| end == "jsonl");
        Ok(Self { reader: BufReader::with_capacity(1 << 20, reader), path: path.to_owned(), json, number: 0 })
    }

    /// Lines of the source that were read so far.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Passes over the next `lines` lines, which an earlier run has packed.
    ///
    /// # Errors
    /// A source that has fewer.
    pub fn skip(&mut self, lines: u64) -> Result<()> {
        let mut line = Vec::new();
        while self.number < lines {
            if !self.next_line(&mut line)? {
                bail!("{}: has {} lines where {lines} were read before", self.path.display(), self.number);
            }
        }
        Ok(())
    }

    /// Fills `paragraphs` with the next megabytes; `false` at the end, when there are none.
    ///
    /// # Errors
    /// A line that is too long, no UTF-8 or no JSON with a `text`, by its number.
    pub fn next_batch(&mut self, paragraphs: &mut Vec<String>) -> Result<bool> {
        paragraphs.clear();
        let (mut bytes, mut line) = (0, Vec::new());
        while bytes < BATCH_BYTES && self.next_line(&mut line)? {
            bytes += line.len();
            let text = std::str::from_utf8(&line).map_err(|error| {
                self.fault(&format!("not UTF-8 text after byte {} of the line", error.valid_up_to()))
            })?;
            if self.json {
                if !text.trim().is_empty() {
                    paragraphs.extend(self.document(text)?);
                }
            } else {
                paragraphs.push(text.to_owned());
            }
        }
        Ok(!paragraphs.is_empty())
    }

    /// The paragraphs of a JSON line, and the document's end.
    fn document(&self, line: &str) -> Result<Vec<String>> {
        let json: Value = serde_json::from_str(line).map_err(|error| self.fault(&error.to_string()))?;
        let text = json.get("text").and_then(Value::as_str);
        let text = text.ok_or_else(|| self.fault("a JSON object with a string \"text\" is wanted"))?;
        let paragraphs = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned);
        Ok(paragraphs.chain([String::new()]).collect())
    }

    /// Reads a line without its end; `false` after the last.
    fn next_line(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        line.clear();
        let most = MOST_LINE_BYTES as u64 + 1;
        let read = self.reader.by_ref().take(most).read_until(b'\n', line);
        let read = read.with_context(|| format!("{}: after line {}", self.path.display(), self.number))?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        if read > MOST_LINE_BYTES {
            return Err(self.fault("longer than 64 MiB; text needs a line end after each paragraph"));
        }
        while line.last().is_some_and(|&byte| byte == b'\n' || byte == b'\r') {
            line.pop();
        }
        Ok(true)
    }

    fn fault(&self, what: &str) -> anyhow::Error {
        anyhow::anyhow!("{}: line {}: {what}", self.path.display(), self.number)
    }
}
