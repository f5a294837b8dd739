//! A Hugging Face folder, or one with Google's weights → config, vocabulary, and f32 tensors under ELECTRA's names.
//!
//! ELECTRA's own names are kept. BERT is structurally an ELECTRA without a projection, and comes
//! in under `bert.`, bare names, or with the old `LayerNorm.gamma` and `beta`; its masked language
//! model is ELECTRA's generator head.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{ImportError, Tensors, read_vocabulary, tensorflow};
use crate::ElectraConfig;
use crate::text::SpecialTokens;
use crate::weights::HeadKind;

/// The word embeddings' name.
pub const WORDS: &str = "electra.embeddings.word_embeddings.weight";

/// The position embeddings' name.
pub const POSITIONS: &str = "electra.embeddings.position_embeddings.weight";

/// Everything a folder holds, in f32.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The folder's name.
    pub name: String,
    /// The shape.
    pub config: ElectraConfig,
    /// Tensors by ELECTRA's names, `electra.…` and the heads'.
    pub tensors: Tensors,
    /// The heads that the tensors make.
    pub heads: Vec<HeadTensors>,
    /// The pieces by id.
    pub pieces: Vec<String>,
    /// The special tokens among them.
    pub special: SpecialTokens,
    /// Whether text is lower-cased and loses its accents.
    pub uncased: bool,
}

/// A head by the names of its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadTensors {
    /// What it answers.
    pub kind: HeadKind,
    /// A dense layer followed by GELU: its name, and its outputs.
    pub dense: Option<(&'static str, usize)>,
    /// A LayerNorm after it.
    pub norm: Option<&'static str>,
    /// The output layer; none where the word embeddings are.
    pub output: Option<&'static str>,
    /// Names of the outputs.
    pub labels: Vec<String>,
}

impl HeadTensors {
    /// ELECTRA's own head.
    pub fn discriminator(hidden_size: usize) -> Self {
        Self {
            kind: HeadKind::Detect,
            dense: Some(("discriminator_predictions.dense", hidden_size)),
            norm: None,
            output: Some("discriminator_predictions.dense_prediction"),
            labels: vec!["replaced".to_owned()],
        }
    }

    /// ELECTRA's generator head, which is BERT's.
    pub fn generator(embedding_size: usize) -> Self {
        Self {
            kind: HeadKind::FillMask,
            dense: Some(("generator_predictions.dense", embedding_size)),
            norm: Some("generator_predictions.LayerNorm"),
            output: None,
            labels: Vec::new(),
        }
    }

    /// The head of `ElectraForSequenceClassification`: one label is a value.
    pub fn classifier(hidden_size: usize, labels: Vec<String>) -> Self {
        Self {
            kind: if labels.len() == 1 { HeadKind::Regress } else { HeadKind::Classify },
            dense: Some(("classifier.dense", hidden_size)),
            norm: None,
            output: Some("classifier.out_proj"),
            labels,
        }
    }

    /// The head of `ElectraForTokenClassification`.
    pub fn tagger(labels: Vec<String>) -> Self {
        Self { kind: HeadKind::Tag, dense: None, norm: None, output: Some("classifier"), labels }
    }

    /// The head of `ElectraForQuestionAnswering`.
    pub fn answerer() -> Self {
        let labels = vec!["start".to_owned(), "end".to_owned()];
        Self { kind: HeadKind::Answer, dense: None, norm: None, output: Some("qa_outputs"), labels }
    }
}

impl Checkpoint {
    /// Reads `config.json`, `vocab.txt`, `tokenizer_config.json` and the weights of a folder (safetensors,
    /// else `model.npz`), and checks every tensor's shape.
    pub fn open(folder: &Path) -> Result<Self, ImportError> {
        let json = read_json(&folder.join("config.json"))?;
        let config = parse_config(&json)?;
        let (pieces, special) = read_vocabulary(&folder.join("vocab.txt"))?;
        if pieces.len() > config.vocab_size {
            let message = format!("{} pieces where config.json says {}", pieces.len(), config.vocab_size);
            return Err(ImportError::Vocabulary { path: folder.join("vocab.txt"), message });
        }
        let mut tensors = Tensors::default();
        for file in weight_files(folder)? {
            tensors.read(&file)?;
        }
        let pooled = tensors.names().any(|name| name.contains("pooler."));
        let tensors = tied(tensorflow::renamed(tensors).renamed(electra_name))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let uncased = is_uncased(folder)?;
        let heads = heads(&tensors, &config, &json, pooled)?;
        let checkpoint = Self { name, config, tensors, heads, pieces, special, uncased };
        checkpoint.check_shapes()?;
        Ok(checkpoint)
    }

    /// Asks for every tensor that the config names, so that what is missing is named at once.
    pub(super) fn check_shapes(&self) -> Result<(), ImportError> {
        let ElectraConfig { embedding_size, hidden_size, intermediate_size, .. } = self.config;
        let tensors = &self.tensors;
        for (table, rows) in self.embedding_tables() {
            tensors.check(&table, &[rows, embedding_size])?;
        }
        check_norm(tensors, "electra.embeddings.LayerNorm", embedding_size)?;
        if self.config.has_projection() {
            check_linear(tensors, "electra.embeddings_project", hidden_size, embedding_size)?;
        }
        for layer in 0..self.config.num_hidden_layers {
            let layer = format!("electra.encoder.layer.{layer}");
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                check_linear(tensors, &format!("{layer}.attention.{part}"), hidden_size, hidden_size)?;
            }
            check_norm(tensors, &format!("{layer}.attention.output.LayerNorm"), hidden_size)?;
            check_linear(tensors, &format!("{layer}.intermediate.dense"), intermediate_size, hidden_size)?;
            check_linear(tensors, &format!("{layer}.output.dense"), hidden_size, intermediate_size)?;
            check_norm(tensors, &format!("{layer}.output.LayerNorm"), hidden_size)?;
        }
        for head in &self.heads {
            let width = head.dense.map_or(hidden_size, |(_, outputs)| outputs);
            if let Some((name, outputs)) = head.dense {
                check_linear(tensors, name, outputs, hidden_size)?;
            }
            if let Some(name) = head.norm {
                check_norm(tensors, name, width)?;
            }
            match head.output {
                Some(name) => check_linear(tensors, name, head.labels.len(), width)?,
                None => tensors.check("generator_lm_head.bias", &[self.config.vocab_size])?,
            }
        }
        Ok(())
    }

    /// Names of the three embedding tables, and their rows.
    pub fn embedding_tables(&self) -> [(String, usize); 3] {
        let name = |table| format!("electra.embeddings.{table}.weight");
        [
            (name("word_embeddings"), self.config.vocab_size),
            (name("position_embeddings"), self.config.max_position_embeddings),
            (name("token_type_embeddings"), self.config.type_vocab_size),
        ]
    }
}

fn check_linear(tensors: &Tensors, name: &str, outputs: usize, inputs: usize) -> Result<(), ImportError> {
    tensors.check(&format!("{name}.weight"), &[outputs, inputs])?;
    tensors.check(&format!("{name}.bias"), &[outputs])
}

fn check_norm(tensors: &Tensors, name: &str, width: usize) -> Result<(), ImportError> {
    tensors.check(&format!("{name}.weight"), &[width])?;
    tensors.check(&format!("{name}.bias"), &[width])
}

fn read_json(path: &Path) -> Result<Value, ImportError> {
    let bytes = std::fs::read(path).map_err(|error| ImportError::io(path, error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ImportError::Json { path: path.to_owned(), message: error.to_string() })
}

/// `model.safetensors`, the shards that `model.safetensors.index.json` lists, or `model.npz`. A pickle is refused.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        let names = ["model.safetensors", "model.npz", "pytorch_model.bin"].map(|name| folder.join(name));
        return match names.iter().position(|path| path.exists()) {
            Some(2) => Err(ImportError::Pickle { path: names[2].clone() }),
            found => Ok(vec![names[found.unwrap_or(0)].clone()]),
        };
    }
    let json = read_json(&index)?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| ImportError::Json {
        path: index.clone(),
        message: "weight_map: missing".to_owned(),
    })?;
    let mut files: Vec<PathBuf> =
        map.values().filter_map(Value::as_str).map(|file| folder.join(file)).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

fn parse_config(json: &Value) -> Result<ElectraConfig, ImportError> {
    let error = |field, message: String| Err(ImportError::Config { field, message });
    let size = |field: &'static str| match json.get(field).map(|value| (value, value.as_u64())) {
        Some((_, Some(value @ 1..=0xffff_ffff))) => Ok(value as usize),
        Some((value, _)) => Err(ImportError::Config { field, message: format!("{value} is no size") }),
        None => Err(ImportError::Config { field, message: "missing".to_owned() }),
    };
    let text = |field| json.get(field).and_then(Value::as_str);
    match text("model_type") {
        Some("electra" | "bert") | None => {}
        Some(other) => return error("model_type", format!("{other:?}; electra and bert can be imported")),
    }
    if let Some(other) = text("hidden_act").filter(|&act| act != "gelu") {
        return error("hidden_act", format!("{other:?}; only \"gelu\" (the exact erf form) is supported"));
    }
    if let Some(other) = text("position_embedding_type").filter(|&kind| kind != "absolute") {
        return error("position_embedding_type", format!("{other:?}; only \"absolute\" is supported"));
    }
    let hidden_size = size("hidden_size")?;
    let embedding_size =
        if json.get("embedding_size").is_some() { size("embedding_size")? } else { hidden_size };
    let num_attention_heads = size("num_attention_heads")?;
    if !hidden_size.is_multiple_of(num_attention_heads) {
        return error("num_attention_heads", format!("{num_attention_heads} does not divide {hidden_size}"));
    }
    Ok(ElectraConfig {
        vocab_size: size("vocab_size")?,
        embedding_size,
        hidden_size,
        num_hidden_layers: size("num_hidden_layers")?,
        num_attention_heads,
        intermediate_size: size("intermediate_size")?,
        max_position_embeddings: size("max_position_embeddings")?,
        type_vocab_size: size("type_vocab_size")?,
        layer_norm_eps: json.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-12) as f32,
    })
}

/// `do_lower_case` of `tokenizer_config.json`; uncased where nothing is said, as BERT's tokeniser. Accents go with the
/// capitals here, and Chinese characters stand alone.
pub(super) fn is_uncased(folder: &Path) -> Result<bool, ImportError> {
    let path = folder.join("tokenizer_config.json");
    if !path.exists() {
        return Ok(true);
    }
    let json = read_json(&path)?;
    let says = |field| json.get(field).and_then(Value::as_bool);
    let uncased = says("do_lower_case").unwrap_or(true);
    let expected = [("strip_accents", uncased), ("tokenize_chinese_chars", true)];
    match expected.into_iter().find(|&(field, value)| says(field).is_some_and(|said| said != value)) {
        Some((field, value)) => {
            let message =
                format!("{field}: {}; with do_lower_case {uncased}, only {value} is supported", !value);
            Err(ImportError::Json { path, message })
        }
        None => Ok(uncased),
    }
}

/// A fill-mask head's matrix, where a file has one beside the word embeddings.
const LM_MATRIX: &str = "generator_lm_head.weight";

/// The tensors without that matrix; and without all of the head, should the matrix not be the word embeddings, which
/// answer here.
fn tied(tensors: Tensors) -> Result<Tensors, ImportError> {
    if !tensors.contains(LM_MATRIX) {
        return Ok(tensors);
    }
    let tied = tensors.array(LM_MATRIX)? == tensors.array(WORDS)?;
    tensors.release();
    if !tied {
        log::warn!("the fill-mask head is left out: its matrix is not that of the word embeddings");
    }
    Ok(tensors.renamed(|name| {
        let needed = if tied { name != LM_MATRIX } else { !name.starts_with("generator_") };
        needed.then(|| name.to_owned())
    }))
}

/// A tensor's name in ELECTRA's terms; `None` for what no head here needs.
fn electra_name(name: &str) -> Option<String> {
    let name =
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
    let unneeded = ["position_ids", "pooler.", "seq_relationship", "cls.predictions.decoder.bias"];
    if unneeded.iter().any(|part| name.contains(part)) {
        return None;
    }
    for (theirs, ours) in [
        ("bert.", "electra."),
        ("embeddings", "electra.embeddings"),
        ("encoder.", "electra.encoder."),
        ("cls.predictions.transform.", "generator_predictions."),
        ("cls.predictions.bias", "generator_lm_head.bias"),
        ("cls.predictions.decoder.", "generator_lm_head."),
    ] {
        if let Some(rest) = name.strip_prefix(theirs) {
            return Some(format!("{ours}{rest}"));
        }
    }
    Some(name)
}

/// The heads that stand among the tensors; `pooled` if BERT's pooler is there too, on which its classifier of texts
/// stands and, mostly, not that of tokens.
fn heads(
    tensors: &Tensors,
    config: &ElectraConfig,
    json: &Value,
    pooled: bool,
) -> Result<Vec<HeadTensors>, ImportError> {
    let (hidden, embedding) = (config.hidden_size, config.embedding_size);
    let labels = labels(json)?;
    let mut heads = Vec::new();
    if tensors.contains("discriminator_predictions.dense.weight") {
        heads.push(HeadTensors::discriminator(hidden));
    }
    if tensors.contains("generator_predictions.dense.weight") {
        heads.push(HeadTensors::generator(embedding));
    }
    if tensors.contains("classifier.out_proj.weight") {
        heads.push(HeadTensors::classifier(hidden, labels.clone()));
    }
    if tensors.contains("classifier.weight") {
        let architecture = json.pointer("/architectures/0").and_then(Value::as_str).unwrap_or_default();
        let of_tokens = architecture.ends_with("ForTokenClassification");
        if architecture.ends_with("ForSequenceClassification") || (pooled && !of_tokens) {
            let message =
                format!("{architecture:?}: its classifier pools with tanh, which is no head of ELECTRA");
            return Err(ImportError::Config { field: "architectures", message });
        }
        heads.push(HeadTensors::tagger(labels));
    }
    if tensors.contains("qa_outputs.weight") {
        heads.push(HeadTensors::answerer());
    }
    Ok(heads)
}

/// The labels that `config.json` names, if it is there.
#[cfg(feature = "onnx")]
pub(super) fn labels_beside(folder: &Path) -> Result<Option<Vec<String>>, ImportError> {
    let path = folder.join("config.json");
    if path.exists() { labels(&read_json(&path)?).map(Some) } else { Ok(None) }
}

/// Labels that a head may have: their numbers are u16.
const MOST_LABELS: u64 = 1 << 16;

/// `id2label` by id; two numbered labels where it is missing, as in `transformers`.
fn labels(json: &Value) -> Result<Vec<String>, ImportError> {
    let Some(map) = json.get("id2label").and_then(Value::as_object) else {
        let count = json.get("num_labels").and_then(Value::as_u64).unwrap_or(2);
        if count > MOST_LABELS {
            let message = format!("{count}: at most {MOST_LABELS}");
            return Err(ImportError::Config { field: "num_labels", message });
        }
        return Ok((0..count).map(|id| format!("LABEL_{id}")).collect());
    };
    let mut labels: Vec<(usize, String)> =
        map.iter().filter_map(|(id, label)| Some((id.parse().ok()?, label.as_str()?.to_owned()))).collect();
    labels.sort();
    Ok(labels.into_iter().map(|(_, label)| label).collect())
}
