//! The `.adapter` file: what was learned on top of one model, read in place.
//!
//! A [`Header`], then, little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | the model's [fingerprint](Model::fingerprint) |
//! | 8 | head kind, as in a model |
//! | 9 | 1 if the head was trained |
//! | 10 | the parts that have a low-rank update ([`Parts::bits`]) |
//! | 11 | rank of the word embeddings' update; 0 if they were not trained |
//! | 12..16 | rank; 0 if there are no low-rank updates |
//! | 16..20 | layers that have them, from the last |
//! | 20..24 | layers whose biases were trained, from the last |
//! | 24..28 | labels |
//! | 28..32 | bytes of the labels' names, one a line, padded with line ends to a multiple of 4 |
//! | 32.. | the names, then the parameters, f32, as [`Layout`] says |

use core::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::document::{Document, Take};
use super::header::{FileKind, Header};
use super::strategy::{Layout, Lora, MAX_RANK, NormPart, Part, Parts, Strategy};
use super::{HeadKind, Model, check_finite};
use crate::Error;

/// Names of a head's outputs.
#[derive(Clone, Copy, Debug)]
pub enum Labels<'a> {
    /// One a string.
    Names(&'a [&'a str]),
    /// One a line.
    Lines(&'a str),
}

impl<'a> Labels<'a> {
    /// Each name.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let (names, lines) = match *self {
            Self::Names(names) => (names, ""),
            Self::Lines(lines) => (&[][..], lines),
        };
        names.iter().copied().chain(lines.lines())
    }

    /// Bytes of all names, each with a line end.
    fn unpadded(&self) -> usize {
        self.iter().map(|name| name.len() + 1).sum()
    }

    /// The same, padded.
    fn bytes(&self) -> usize {
        self.unpadded().next_multiple_of(4)
    }
}

/// What was learned on top of a model. Copying it copies pointers; the parameters stay where they are.
#[derive(Clone, Copy, Debug)]
pub struct Adapter<'a> {
    /// [`Model::fingerprint`] of the model that it belongs to.
    pub base: [u32; 2],
    /// What its head answers.
    pub kind: HeadKind,
    /// Names of the head's outputs.
    pub labels: Labels<'a>,
    /// What was trained, and where it lies.
    pub layout: Layout,
    /// All trained tensors.
    pub parameters: &'a [f32],
}

/// What stands in front of the names.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Record {
    base: [u32; 2],
    kind: u8,
    head: u8,
    parts: u8,
    words: u8,
    rank: u32,
    lora_layers: u32,
    bias_layers: u32,
    labels: u32,
    name_bytes: u32,
}

impl<'a> Adapter<'a> {
    /// Opens an adapter of `model` in place. `file` starts at a multiple of 4 bytes.
    ///
    /// # Errors
    /// What [`Header::parse`] and [`Header::payload`] say, [`Error::ForeignAdapter`], or
    /// [`Error::InvalidAdapter`] with the field.
    pub fn open(file: &'a [u8], model: &Model<'_>) -> Result<Self, Error> {
        let payload = Header::parse(FileKind::Adapter, file)?.payload(file)?;
        let invalid = |field| Error::InvalidAdapter { field };
        let (record, rest) = payload.split_at_checked(size_of::<Record>()).ok_or(invalid("length"))?;
        let record: Record = bytemuck::try_pod_read_unaligned(record).map_err(|_| invalid("length"))?;
        let [expected, _] = record.base;
        if record.base != model.fingerprint() {
            return Err(Error::ForeignAdapter { expected, found: model.fingerprint()[0] });
        }
        let kind = HeadKind::from_number(record.kind).ok_or(invalid("kind"))?;
        let (names, parameters) =
            rest.split_at_checked(record.name_bytes as usize).ok_or(invalid("names"))?;
        let names = core::str::from_utf8(names).map_err(|_| invalid("names"))?.trim_end_matches('\n');
        let labels = Labels::Lines(names);
        if labels.iter().count() != record.labels as usize {
            return Err(invalid("labels"));
        }
        let layout = Layout {
            config: *model.config(),
            strategy: strategy_of(&record)?,
            width: model.head_width(kind),
            labels: record.labels as usize,
        };
        check_labels(model, kind, layout.labels, layout.strategy.head).map_err(|_| invalid("labels"))?;
        let parameters: &[f32] = bytemuck::try_cast_slice(parameters).map_err(|_| invalid("alignment"))?;
        if parameters.len() != layout.len() {
            return Err(invalid("parameters"));
        }
        check_finite(parameters).map_err(|_| invalid("parameters"))?;
        Ok(Self { base: record.base, kind, labels, layout, parameters })
    }

    /// What stands in front of the parameters: the record and the names.
    pub(crate) fn preamble(&self, take: &mut Take<'_>) -> Result<(), Error> {
        take(bytemuck::bytes_of(&self.record()))?;
        for name in self.labels.iter() {
            take(name.as_bytes())?;
            take(b"\n")?;
        }
        let padding = self.labels.bytes() - self.labels.unpadded();
        take(b"\n\n\n".get(..padding).unwrap_or_default())
    }

    /// Bytes of it.
    pub(crate) fn preamble_bytes(&self) -> usize {
        size_of::<Record>() + self.labels.bytes()
    }

    /// Whether `piece`, at place `at` of a payload, has the preamble's bytes where it overlaps it.
    pub(crate) fn preamble_agrees(&self, at: usize, piece: &[u8]) -> bool {
        let (mut start, mut agrees) = (0usize, true);
        let compared = self.preamble(&mut |own| {
            let theirs = piece.get(start.saturating_sub(at)..).unwrap_or_default();
            let ours = own.get(at.saturating_sub(start)..).unwrap_or_default();
            agrees &= ours.iter().zip(theirs).all(|(a, b)| a == b);
            start += own.len();
            Ok(())
        });
        compared.is_ok() && agrees
    }

    fn record(&self) -> Record {
        let Strategy { head, bias_layers, lora, words } = self.layout.strategy;
        let lora = lora.map(|lora| (lora.parts.bits(), lora.rank as u32, lora.last_layers as u32));
        let (parts, rank, lora_layers) = lora.unwrap_or_default();
        Record {
            base: self.base,
            kind: self.kind as u8,
            head: head.into(),
            parts,
            words: words as u8,
            rank,
            lora_layers,
            bias_layers: u32::try_from(bias_layers).unwrap_or(u32::MAX),
            labels: self.layout.labels as u32,
            name_bytes: self.labels.bytes() as u32,
        }
    }

    /// The head's weight `[labels, width]` and bias `[labels]`, if it was trained.
    pub(crate) fn head(&self) -> Option<(&'a [f32], &'a [f32])> {
        self.layout.head().map(|(weight, bias)| (self.at(weight), self.at(bias)))
    }

    /// The word embeddings' update: what each piece has learned `[vocab_size, rank]`, and its directions `[rank,
    /// embedding_size]`.
    pub(crate) fn words(&self) -> Option<(&'a [f32], &'a [f32])> {
        self.layout.words().map(|(pieces, directions)| (self.at(pieces), self.at(directions)))
    }

    /// The low-rank update of a dense layer.
    pub(crate) fn low_rank(&self, layer: usize, part: Part) -> Option<LowRank<'a>> {
        let (a, b) = self.layout.low_rank(layer, part)?;
        let lora = self.layout.strategy.lora?;
        Some(LowRank { a: self.at(a), b: self.at(b), rank: lora.rank, scale: lora.scale() })
    }

    /// What is added to a dense layer's bias; empty if it was not trained.
    pub(crate) fn bias(&self, layer: usize, part: Part) -> &'a [f32] {
        self.layout.bias(layer, part).map(|range| self.at(range)).unwrap_or_default()
    }

    /// The weight and bias of a trained LayerNorm.
    pub(crate) fn norm(&self, layer: usize, norm: NormPart) -> Option<(&'a [f32], &'a [f32])> {
        self.layout.norm(layer, norm).map(|(weight, bias)| (self.at(weight), self.at(bias)))
    }

    fn at(&self, range: Range<usize>) -> &'a [f32] {
        self.parameters.get(range).unwrap_or_default()
    }
}

impl Document for Adapter<'_> {
    const KIND: FileKind = FileKind::Adapter;

    fn payload(&self, take: &mut Take<'_>) -> Result<(), Error> {
        // What could not be opened again is not written.
        check_finite(self.parameters)?;
        self.preamble(take)?;
        take(bytemuck::cast_slice(self.parameters))
    }
}

/// A and Bᵀ of a low-rank update, `[rank, inputs]` and `[rank, outputs]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowRank<'a> {
    pub a: &'a [f32],
    pub b: &'a [f32],
    pub rank: usize,
    pub scale: f32,
}

fn strategy_of(record: &Record) -> Result<Strategy, Error> {
    let lora = match record.rank as usize {
        0 => None,
        rank if rank > MAX_RANK => return Err(Error::InvalidAdapter { field: "rank" }),
        rank => {
            let parts = Parts::from_bits(record.parts).ok_or(Error::InvalidAdapter { field: "parts" })?;
            Some(Lora { rank, last_layers: record.lora_layers as usize, parts })
        }
    };
    let bias_layers = match record.bias_layers {
        u32::MAX => usize::MAX,
        layers => layers as usize,
    };
    let words = usize::from(record.words);
    if words > MAX_RANK {
        return Err(Error::InvalidAdapter { field: "words" });
    }
    Ok(Strategy { head: record.head == 1, bias_layers, lora, words })
}

/// Whether a head of that kind may have that many outputs; one that is not trained has the model's.
pub(crate) fn check_labels(
    model: &Model<'_>,
    kind: HeadKind,
    labels: usize,
    trained: bool,
) -> Result<(), Error> {
    if !trained {
        let found = model.head(kind)?.labels.len();
        return if found == labels {
            Ok(())
        } else {
            Err(Error::InvalidSetting { field: "labels", range: OWN_LABELS })
        };
    }
    let (fewest, most) = match kind {
        HeadKind::FillMask => return Err(Error::NoSuchHead(kind.name())),
        HeadKind::Detect | HeadKind::Regress => (1, 1),
        HeadKind::Answer => (2, 2),
        HeadKind::Classify | HeadKind::Tag => (2, model.config().hidden_size),
    };
    let range =
        "two or more for classes and tags, at most the model's hidden size; one for a value, two for a span";
    let fits = (fewest..=most).contains(&labels);
    if fits { Ok(()) } else { Err(Error::InvalidSetting { field: "labels", range }) }
}

/// What labels must be of a head that is not trained.
pub(crate) const OWN_LABELS: &str = "the model's own, where its head is not trained";
