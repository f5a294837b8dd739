//! What may be learned on top of a frozen model, and where each learned tensor lies in one flat row of
//! floats: the head first, the word embeddings' update, then layer by layer what that layer has.

use core::ops::Range;

use crate::ElectraConfig;

/// A dense layer of a transformer layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `[hidden, hidden]`, as the next three.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// After the heads are joined.
    AttentionOutput,
    /// `[intermediate, hidden]`.
    Intermediate,
    /// `[hidden, intermediate]`.
    Output,
}

impl Part {
    /// All six, in the order of a forward pass.
    pub const ALL: [Self; 6] =
        [Self::Query, Self::Key, Self::Value, Self::AttentionOutput, Self::Intermediate, Self::Output];

    /// (inputs, outputs).
    pub const fn shape(self, config: &ElectraConfig) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        match self {
            Self::Intermediate => (hidden, inner),
            Self::Output => (inner, hidden),
            _ => (hidden, hidden),
        }
    }

    /// The letter that names it in a strategy.
    const fn letter(self) -> u8 {
        match self {
            Self::Query => b'q',
            Self::Key => b'k',
            Self::Value => b'v',
            Self::AttentionOutput => b'a',
            Self::Intermediate => b'i',
            Self::Output => b'o',
        }
    }
}

/// A set of dense layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts(u8);

impl Parts {
    /// Query and value, as in the LoRA paper (Hu et al. 2021, §4.2).
    pub const QUERY_VALUE: Self = Self(0b00_0101);
    /// All six.
    pub const ALL: Self = Self(0b11_1111);

    /// The set of those whose bit is set, the query's being the lowest. `None` for an empty set or a
    /// bit that is no part's.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits == 0 || bits > Self::ALL.0 { None } else { Some(Self(bits)) }
    }

    /// As [`Parts::from_bits`] takes it.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether `part` is one of them.
    pub const fn contains(self, part: Part) -> bool {
        self.0 >> part as u8 & 1 == 1
    }

    /// Of letters `q k v a i o`, or `all`.
    fn parse(letters: &str) -> Option<Self> {
        if letters == "all" {
            return Some(Self::ALL);
        }
        let mut bits = 0;
        for letter in letters.bytes() {
            bits |= 1 << Part::ALL.iter().position(|part| part.letter() == letter)?;
        }
        Self::from_bits(bits)
    }
}

/// Low-rank adaptation: y = W·x + `scale` · B·(A·x) with A `[rank, inputs]` and B `[outputs, rank]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lora {
    /// Rank of the update, 1..=[`MAX_RANK`].
    pub rank: usize,
    /// How many layers have one, counted from the last.
    pub last_layers: usize,
    /// Which of their dense layers have one.
    pub parts: Parts,
}

/// Largest rank.
pub const MAX_RANK: usize = 64;

/// α of the LoRA paper: updates are scaled by α / rank.
pub const LORA_ALPHA: usize = 16;

impl Lora {
    /// What multiplies B·A.
    pub fn scale(&self) -> f32 {
        LORA_ALPHA as f32 / self.rank as f32
    }
}

/// Which tensors are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// The head's output layer.
    pub head: bool,
    /// Biases and LayerNorms of that many layers, counted from the last (BitFit, Ben Zaken et al.
    /// 2021); as many as there are if fewer.
    pub bias_layers: usize,
    /// Low-rank updates of dense layers.
    pub lora: Option<Lora>,
    /// Rank of an update of the word embeddings, up to [`MAX_RANK`]: every piece of the vocabulary learns so
    /// many numbers. 0 for none.
    pub words: usize,
}

impl Strategy {
    /// What is trained where nothing is said, for [`Strategy::parse`].
    pub const DEFAULT: &str = "head+lora:8:4";
    /// The head alone.
    pub const HEAD: Self = Self { head: true, bias_layers: 0, lora: None, words: 0 };
    /// What [`Strategy::parse`] takes, for whoever gave something else.
    pub const WANTED: &str =
        "wanted are head, bias[:LAYERS], words:RANK, lora:RANK:LAYERS[:PARTS] or several joined by +";
    /// Biases and LayerNorms of all layers.
    pub const BIAS: Self = Self { head: false, bias_layers: usize::MAX, lora: None, words: 0 };

    /// Low-rank updates of query and value in the last layers.
    pub const fn lora(rank: usize, last_layers: usize) -> Self {
        let lora = Lora { rank, last_layers, parts: Parts::QUERY_VALUE };
        Self { head: false, bias_layers: 0, lora: Some(lora), words: 0 }
    }

    /// The same and the head.
    pub const fn with_head(mut self) -> Self {
        self.head = true;
        self
    }

    /// Reads `head`, `bias`, `bias:LAYERS`, `words:RANK`, `lora:RANK:LAYERS`, `lora:RANK:LAYERS:PARTS`, or several joined
    /// by `+`. PARTS are letters of `qkvaio` (query, key, value, attention output, intermediate, output)
    /// or `all`; without them `qv`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut strategy = Self { head: false, bias_layers: 0, lora: None, words: 0 };
        for word in text.split('+') {
            let mut fields = word.split(':');
            // Each at most once: of two the first would be lost without a word.
            match (fields.next()?, fields.next(), fields.next(), fields.next(), fields.next()) {
                ("head", None, ..) if !strategy.head => strategy.head = true,
                ("bias", None, ..) if strategy.bias_layers == 0 => strategy.bias_layers = usize::MAX,
                ("bias", Some(layers), None, ..) if strategy.bias_layers == 0 => {
                    strategy.bias_layers = positive(layers)?;
                }
                ("words", Some(rank), None, ..) if strategy.words == 0 => {
                    strategy.words = positive(rank).filter(|&rank| rank <= MAX_RANK)?;
                }
                ("lora", Some(rank), Some(layers), parts, None) if strategy.lora.is_none() => {
                    let rank = positive(rank).filter(|&rank| rank <= MAX_RANK)?;
                    let parts = parts.map_or(Some(Parts::QUERY_VALUE), Parts::parse)?;
                    strategy.lora = Some(Lora { rank, last_layers: positive(layers)?, parts });
                }
                _ => return None,
            }
        }
        Some(strategy)
    }
}

fn positive(text: &str) -> Option<usize> {
    text.parse().ok().filter(|&number| number > 0)
}

impl core::fmt::Display for Strategy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut join = "";
        if self.head {
            f.write_str("head")?;
            join = "+";
        }
        match self.bias_layers {
            0 => {}
            usize::MAX => write!(f, "{join}bias")?,
            layers => write!(f, "{join}bias:{layers}")?,
        }
        if self.words > 0 {
            let join = if self.head || self.bias_layers > 0 { "+" } else { "" };
            write!(f, "{join}words:{}", self.words)?;
        }
        if let Some(lora) = self.lora {
            let join = if self.head || self.bias_layers > 0 || self.words > 0 { "+" } else { "" };
            write!(f, "{join}lora:{}:{}", lora.rank, lora.last_layers)?;
            if lora.parts == Parts::ALL {
                f.write_str(":all")?;
            } else if lora.parts != Parts::QUERY_VALUE {
                f.write_str(":")?;
                for part in Part::ALL.into_iter().filter(|&part| lora.parts.contains(part)) {
                    write!(f, "{}", part.letter() as char)?;
                }
            }
        }
        Ok(())
    }
}

/// Where each trained tensor lies. Ranges are of floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// The model's shape.
    pub config: ElectraConfig,
    /// Which tensors there are.
    pub strategy: Strategy,
    /// Inputs of the head's output layer.
    pub width: usize,
    /// Its outputs.
    pub labels: usize,
}

/// One of a layer's two LayerNorms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPart {
    /// After the first residual.
    Attention,
    /// After the second.
    Output,
}

impl Layout {
    /// Floats of all trained tensors.
    pub const fn len(&self) -> usize {
        self.layer_start(self.config.num_hidden_layers)
    }

    /// Whether the tensors of another layout have the same shapes, and its backward pass works in the same room.
    pub fn has_shape_of(&self, other: &Self) -> bool {
        let sizes = |layout: &Self| {
            let config = &layout.config;
            [
                config.hidden_size,
                config.num_hidden_layers,
                config.num_attention_heads,
                config.intermediate_size,
                config.embedding_size,
                config.vocab_size,
                layout.width,
                layout.labels,
            ]
        };
        self.strategy == other.strategy && sizes(self) == sizes(other)
    }

    /// Whether nothing is trained.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The head's weight `[labels, width]` and bias `[labels]`.
    pub const fn head(&self) -> Option<(Range<usize>, Range<usize>)> {
        if !self.strategy.head {
            return None;
        }
        let weight = self.labels * self.width;
        Some((0..weight, weight..weight + self.labels))
    }

    /// The word embeddings' update: what each piece has learned `[vocab_size, rank]`, and its directions `[rank,
    /// embedding_size]`.
    pub const fn words(&self) -> Option<(Range<usize>, Range<usize>)> {
        if self.strategy.words == 0 {
            return None;
        }
        let start = self.head_length();
        let pieces = start + self.config.vocab_size * self.strategy.words;
        Some((start..pieces, pieces..pieces + self.config.embedding_size * self.strategy.words))
    }

    const fn head_length(&self) -> usize {
        if self.strategy.head { self.labels * (self.width + 1) } else { 0 }
    }

    /// The lowest layer that a gradient goes through; the number of layers if there is none.
    pub const fn first_layer(&self) -> usize {
        if self.strategy.words > 0 {
            return 0;
        }
        let mut layer = 0;
        while layer < self.config.num_hidden_layers && !self.has_bias(layer) && !self.has_lora(layer) {
            layer += 1;
        }
        layer
    }

    /// A of a dense layer `[rank, inputs]` and Bᵀ `[rank, outputs]`.
    pub const fn low_rank(&self, layer: usize, part: Part) -> Option<(Range<usize>, Range<usize>)> {
        let Some(lora) = self.strategy.lora else { return None };
        if !self.has_lora(layer) || !lora.parts.contains(part) {
            return None;
        }
        let a = self.layer_start(layer) + self.lora_length(part as usize);
        let (inputs, outputs) = part.shape(&self.config);
        let b = a + lora.rank * inputs;
        Some((a..b, b..b + lora.rank * outputs))
    }

    /// What is added to the bias of a dense layer, `[outputs]`.
    pub const fn bias(&self, layer: usize, part: Part) -> Option<Range<usize>> {
        if !self.has_bias(layer) {
            return None;
        }
        let mut start = self.bias_start(layer);
        let mut before = 0;
        while before < part as usize {
            start += Part::ALL[before].shape(&self.config).1;
            before += 1;
        }
        Some(start..start + part.shape(&self.config).1)
    }

    /// A LayerNorm's weight and bias `[hidden]`, in the place of the model's.
    pub const fn norm(&self, layer: usize, norm: NormPart) -> Option<(Range<usize>, Range<usize>)> {
        if !self.has_bias(layer) {
            return None;
        }
        let hidden = self.config.hidden_size;
        let biases = 5 * hidden + self.config.intermediate_size;
        let weight = self.bias_start(layer) + biases + 2 * hidden * norm as usize;
        Some((weight..weight + hidden, weight + hidden..weight + 2 * hidden))
    }

    const fn has_bias(&self, layer: usize) -> bool {
        layer.saturating_add(self.strategy.bias_layers) >= self.config.num_hidden_layers
            && layer < self.config.num_hidden_layers
    }

    const fn has_lora(&self, layer: usize) -> bool {
        match self.strategy.lora {
            Some(lora) => {
                layer.saturating_add(lora.last_layers) >= self.config.num_hidden_layers
                    && layer < self.config.num_hidden_layers
            }
            None => false,
        }
    }

    /// Where a layer's biases begin.
    const fn bias_start(&self, layer: usize) -> usize {
        let lora = if self.has_lora(layer) { self.lora_length(Part::ALL.len()) } else { 0 };
        self.layer_start(layer) + lora
    }

    /// Floats of a layer's low-rank updates of the first `parts` parts.
    const fn lora_length(&self, parts: usize) -> usize {
        let Some(lora) = self.strategy.lora else { return 0 };
        let (mut length, mut part) = (0, 0);
        while part < parts {
            if lora.parts.contains(Part::ALL[part]) {
                let (inputs, outputs) = Part::ALL[part].shape(&self.config);
                length += lora.rank * (inputs + outputs);
            }
            part += 1;
        }
        length
    }

    /// Where a layer's tensors begin.
    const fn layer_start(&self, layer: usize) -> usize {
        let words = self.strategy.words * (self.config.vocab_size + self.config.embedding_size);
        let biases = 9 * self.config.hidden_size + self.config.intermediate_size;
        let (mut start, mut before) = (self.head_length() + words, 0);
        while before < layer {
            if self.has_lora(before) {
                start += self.lora_length(Part::ALL.len());
            }
            if self.has_bias(before) {
                start += biases;
            }
            before += 1;
        }
        start
    }
}
