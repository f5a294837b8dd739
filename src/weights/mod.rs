//! The `.electret` file: opened in place from flash, a mapping or memory, checked, never copied.
//!
//! A file is a [`Header`] and one `rkyv` archive of [`format::Root`]. [`Model::open`] promises:
//! whatever the bytes, it answers in time linear in their number with a model whose every part has
//! the shape its config says, or with an error that names the field.

mod adapter;
mod document;
pub mod format;
mod header;
mod linear;
#[cfg(any(feature = "app", feature = "convert"))]
mod mapped;
#[cfg(feature = "std")]
pub mod owned;
pub mod strategy;

pub use adapter::{Adapter, Labels};
pub(crate) use adapter::{LowRank, OWN_LABELS, check_labels};
pub use document::{Document, Take};
pub use format::{Channels, HalfTile, HeadKind, Tile};
pub(crate) use header::CRC_32C;
pub use header::{FORMAT_VERSION, FileKind, HEADER_BYTES, Header, checksum};
#[cfg(any(feature = "app", feature = "convert"))]
pub use mapped::map;
#[cfg(feature = "convert")]
pub(crate) use mapped::release;
#[cfg(feature = "std")]
pub use owned::AlignedBytes;

use format::{Head, Linear, Norm, Root};
pub(crate) use linear::{Int4, native};
use rkyv::option::ArchivedOption;
use rkyv::rancor::Failure;
use rkyv::rend::f32_le;
use rkyv::vec::ArchivedVec;

use crate::{ElectraConfig, Error};

/// Aligns what it holds as a model must be: `static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!(…))`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Aligned<T: ?Sized>(pub T);

/// An opened model. Copying it copies a pointer.
#[derive(Clone, Copy, Debug)]
pub struct Model<'m> {
    root: &'m Root,
    config: ElectraConfig,
    bytes: usize,
    payload_crc: u32,
    is_int4: bool,
}

impl<'m> Model<'m> {
    /// Opens a file in place. `file` starts at a multiple of 64 bytes and may be longer than the
    /// model.
    ///
    /// # Errors
    /// [`Error::ModelMisaligned`], what [`Header::parse`] and [`Header::payload`] say,
    /// [`Error::InvalidArchive`], or [`Error::InvalidModel`] with the field.
    pub fn open(file: &'m [u8]) -> Result<Self, Error> {
        if !file.as_ptr().addr().is_multiple_of(64) {
            return Err(Error::ModelMisaligned);
        }
        let header = Header::parse(FileKind::Model, file)?;
        let payload = header.payload(file)?;
        let root = rkyv::api::low::access::<Root, Failure>(payload).map_err(|_| Error::InvalidArchive)?;
        let config = checked_config(root)?;
        check_parts(root, &config)?;
        let (bytes, payload_crc) = (HEADER_BYTES + payload.len(), header.payload_crc);
        let model = Self { root, config, bytes, payload_crc, is_int4: false };
        Ok(Self { is_int4: model.linears().any(Linear::is_int4), ..model })
    }

    /// Reads a file from a stream into `buffer`, which starts at a multiple of 64 bytes, and opens
    /// it there.
    ///
    /// # Errors
    /// [`Error::ReadFailed`], [`Error::ModelBufferTooSmall`], or those of [`Model::open`].
    pub fn read(mut reader: impl embedded_io::Read, buffer: &'m mut [u8]) -> Result<Self, Error> {
        let found = buffer.len();
        let too_small = |needed| Error::ModelBufferTooSmall { needed, found };
        let start = buffer.get_mut(..HEADER_BYTES).ok_or(too_small(HEADER_BYTES as u64))?;
        reader.read_exact(start).map_err(|_| Error::ReadFailed)?;
        let needed =
            Header::parse(FileKind::Model, start)?.payload_length.saturating_add(HEADER_BYTES as u64);
        let end = usize::try_from(needed).unwrap_or(usize::MAX);
        let rest = buffer.get_mut(HEADER_BYTES..end).ok_or(too_small(needed))?;
        reader.read_exact(rest).map_err(|_| Error::ReadFailed)?;
        Self::open(buffer)
    }

    /// The shape.
    pub fn config(&self) -> &ElectraConfig {
        &self.config
    }

    /// Everything in the file.
    pub fn root(&self) -> &'m Root {
        self.root
    }

    /// All weight matrices.
    pub fn linears(&self) -> impl Iterator<Item = &'m Linear> + use<'m> {
        let Root { embeddings, layers, heads, .. } = self.root;
        let layers = layers.iter().flat_map(|layer| {
            let format::Layer { query, key, value, attention_output, intermediate, output, .. } = layer;
            [query, key, value, attention_output, intermediate, output]
        });
        let heads = heads.iter().flat_map(|head| head.dense.iter().chain(head.output.iter()));
        [&embeddings.words].into_iter().chain(embeddings.projection.iter()).chain(layers).chain(heads)
    }

    /// Whether any of its weights are int4, for which a session needs [`Plan::for_model`](crate::Plan::for_model).
    pub fn is_int4(&self) -> bool {
        self.is_int4
    }

    /// Bytes of the file, header included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What binds an adapter to this model: the CRC-32C of the file's payload, and its length.
    pub fn fingerprint(&self) -> [u32; 2] {
        [self.payload_crc, (self.bytes - HEADER_BYTES) as u32]
    }

    /// The head of that kind.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`].
    pub fn head(&self, kind: HeadKind) -> Result<&'m Head, Error> {
        self.root.heads.iter().find(|head| head.kind == kind).ok_or(Error::NoSuchHead(kind.name()))
    }

    /// Names of the classes, or else of the tags, of its own head; none without either.
    pub fn label_names(&self) -> impl Iterator<Item = &'m str> + use<'m> {
        let named = [HeadKind::Classify, HeadKind::Tag].into_iter().find_map(|kind| self.head(kind).ok());
        named.into_iter().flat_map(|head| head.labels.iter()).map(|label| label.as_str())
    }

    /// Inputs of the output layer of a head of that kind: those of the model's own, or the hidden size, which
    /// a learned head has where the model has none.
    pub fn head_width(&self, kind: HeadKind) -> usize {
        let dense = self.head(kind).ok().and_then(|head| head.dense.as_ref());
        dense.map_or(self.config.hidden_size, |dense| dense.outputs())
    }
}

/// A vocabulary that was archived by itself.
///
/// # Errors
/// [`Error::InvalidArchive`].
pub fn access_vocabulary(archive: &[u8]) -> Result<&format::Vocabulary, Error> {
    let vocabulary = own_vocabulary(archive)?;
    if vocabulary.is_whole() { Ok(vocabulary) } else { Err(Error::InvalidArchive) }
}

/// The same of one that was archived here: its trie is not looked through again.
pub(crate) fn own_vocabulary(archive: &[u8]) -> Result<&format::Vocabulary, Error> {
    rkyv::api::low::access::<_, Failure>(archive).map_err(|_| Error::InvalidArchive)
}

impl HeadKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Detect, Self::FillMask, Self::Classify, Self::Regress, Self::Tag, Self::Answer];

    /// The kind whose place in the enumeration that is.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == number)
    }

    /// Whether its outputs have the names that were given where it was trained.
    pub const fn has_label_names(self) -> bool {
        matches!(self, Self::Classify | Self::Tag)
    }

    /// Whether it answers once a text, from the first token.
    pub const fn answers_from_first_token(self) -> bool {
        matches!(self, Self::Classify | Self::Regress)
    }

    /// Rows of `tokens` hidden states that it answers from.
    pub(crate) const fn answering_rows(self, tokens: usize) -> usize {
        if self.answers_from_first_token() { 1 } else { tokens }
    }

    /// As the command and errors call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::FillMask => "fill-mask",
            Self::Classify => "classify",
            Self::Regress => "regress",
            Self::Tag => "tag",
            Self::Answer => "answer",
        }
    }
}

/// The config, if every size is one that a network can have and that no product of two overflows.
fn checked_config(root: &Root) -> Result<ElectraConfig, Error> {
    let stored = &root.config;
    let size = |value: rkyv::rend::u32_le| value.to_native() as usize;
    let config = ElectraConfig {
        vocab_size: size(stored.vocab_size),
        embedding_size: size(stored.embedding_size),
        hidden_size: size(stored.hidden_size),
        num_hidden_layers: size(stored.num_hidden_layers),
        num_attention_heads: size(stored.num_attention_heads),
        intermediate_size: size(stored.intermediate_size),
        max_position_embeddings: size(stored.max_position_embeddings),
        type_vocab_size: size(stored.type_vocab_size),
        layer_norm_eps: stored.layer_norm_eps.to_native(),
    };
    for (field, index, most) in config.sizes() {
        if !(1..=most).contains(&index) {
            return Err(Error::InvalidModel { field, index });
        }
    }
    if !config.has_usable_heads() {
        let (field, index) = ("config.num_attention_heads", config.num_attention_heads);
        return Err(Error::InvalidModel { field, index });
    }
    if !(config.layer_norm_eps > 0.0 && config.layer_norm_eps < 1.0) {
        return Err(Error::InvalidModel { field: "config.layer_norm_eps", index: 0 });
    }
    Ok(config)
}

/// Compares the shape of every part with the config.
fn check_parts(root: &Root, config: &ElectraConfig) -> Result<(), Error> {
    let (embedding, hidden, inner) = (config.embedding_size, config.hidden_size, config.intermediate_size);
    let embeddings = &root.embeddings;
    check_linear("embeddings.words", 0, &embeddings.words, config.vocab_size, embedding)?;
    for (field, table, rows) in [
        ("embeddings.positions", &embeddings.positions, config.max_position_embeddings),
        ("embeddings.token_types", &embeddings.token_types, config.type_vocab_size),
    ] {
        if table.len() != rows * embedding || !finite(table) {
            return Err(Error::InvalidModel { field, index: table.len() });
        }
    }
    check_norm("embeddings.norm", 0, &embeddings.norm, embedding)?;
    match (&embeddings.projection, config.has_projection()) {
        (ArchivedOption::Some(linear), true) => {
            check_linear("embeddings.projection", 0, linear, hidden, embedding)?;
        }
        (ArchivedOption::None, false) => {}
        _ => return Err(Error::InvalidModel { field: "embeddings.projection", index: 0 }),
    }
    if root.layers.len() != config.num_hidden_layers {
        return Err(Error::InvalidModel { field: "layers", index: root.layers.len() });
    }
    for (index, layer) in root.layers.iter().enumerate() {
        check_linear("layer.query", index, &layer.query, hidden, hidden)?;
        check_linear("layer.key", index, &layer.key, hidden, hidden)?;
        check_linear("layer.value", index, &layer.value, hidden, hidden)?;
        check_linear("layer.attention_output", index, &layer.attention_output, hidden, hidden)?;
        check_norm("layer.attention_norm", index, &layer.attention_norm, hidden)?;
        check_linear("layer.intermediate", index, &layer.intermediate, inner, hidden)?;
        check_linear("layer.output", index, &layer.output, hidden, inner)?;
        check_norm("layer.output_norm", index, &layer.output_norm, hidden)?;
    }
    for (index, head) in root.heads.iter().enumerate() {
        check_head(index, head, config)?;
    }
    let vocabulary = &root.vocabulary;
    if !vocabulary.is_whole() {
        return Err(Error::InvalidModel { field: "vocabulary", index: vocabulary.labels.len() });
    }
    if let Some(index) = vocabulary.ids().position(|id| id as usize >= config.vocab_size) {
        return Err(Error::InvalidModel { field: "vocabulary.ids", index });
    }
    for (index, id) in vocabulary.special.iter().enumerate() {
        if id.to_native() as usize >= config.vocab_size {
            return Err(Error::InvalidModel { field: "vocabulary.special", index });
        }
    }
    Ok(())
}

/// A head's layers follow each other, and it has as many labels as outputs.
fn check_head(index: usize, head: &Head, config: &ElectraConfig) -> Result<(), Error> {
    let hidden = config.hidden_size;
    let mut width = hidden;
    if let ArchivedOption::Some(dense) = &head.dense {
        width = dense.outputs();
        check_linear("head.dense", index, dense, width, hidden)?;
    }
    if let ArchivedOption::Some(norm) = &head.norm {
        check_norm("head.norm", index, norm, width)?;
    }
    let labels = head.labels.len();
    let fits = match head.kind {
        // A prediction takes two numbers of a row.
        HeadKind::FillMask => {
            head.dense.is_some() && width == config.embedding_size && labels == 0 && hidden >= 2
        }
        HeadKind::Detect | HeadKind::Regress => labels == 1,
        HeadKind::Answer => labels == 2 && hidden >= 2,
        HeadKind::Classify | HeadKind::Tag => labels >= 1 && labels <= hidden,
    };
    // The arena holds `intermediate_size` values a row, and hidden_size before that.
    if !fits || width > hidden.max(config.intermediate_size) {
        return Err(Error::InvalidModel { field: "head.labels", index });
    }
    match &head.output {
        ArchivedOption::Some(output) if head.kind != HeadKind::FillMask => {
            check_linear("head.output", index, output, labels, width)
        }
        ArchivedOption::None if head.kind == HeadKind::FillMask => Ok(()),
        _ => Err(Error::InvalidModel { field: "head.output", index }),
    }
}

fn check_linear(
    field: &'static str,
    index: usize,
    linear: &Linear,
    outputs: usize,
    inputs: usize,
) -> Result<(), Error> {
    let blocks = outputs.div_ceil(16);
    let consistent = linear.outputs() == outputs
        && linear.inputs() == inputs
        && (linear.smoothing.is_empty() || linear.smoothing.len() == inputs)
        && finite(&linear.smoothing)
        && linear.channels.len() == blocks
        && linear.channels.iter().all(|channels| is_sound(channels, inputs))
        && linear.is_whole()
        && outputs > 0;
    if consistent { Ok(()) } else { Err(Error::InvalidModel { field, index }) }
}

fn check_norm(field: &'static str, index: usize, norm: &Norm, width: usize) -> Result<(), Error> {
    let consistent = norm.weight.len() == width && norm.bias.len() == width;
    if consistent && finite(&norm.weight) && finite(&norm.bias) {
        Ok(())
    } else {
        Err(Error::InvalidModel { field, index })
    }
}

fn finite(values: &ArchivedVec<f32_le>) -> bool {
    check_finite(native(values)).is_ok()
}

/// [`Error::NotFinite`] if a value is none.
pub(crate) fn check_finite(values: &[f32]) -> Result<(), Error> {
    if values.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(Error::NotFinite) }
}

/// Whether a product's epilogue stays within its numbers: a column sum that no weights have would overflow there.
fn is_sound(channels: &Channels, inputs: usize) -> bool {
    let floats = channels.scale.iter().chain(&channels.bias).all(|x| x.is_finite());
    floats && channels.column_sum.iter().all(|sum| sum.unsigned_abs() as usize <= 128 * inputs)
}
