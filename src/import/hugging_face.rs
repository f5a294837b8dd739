//! A checkpoint → a folder that `transformers` loads, or that `peft` lays on top of one.

use std::path::Path;

use serde_json::{Value, json};

use super::{Checkpoint, HeadTensors, ImportError, Tensors, write_atomically, write_vocabulary};
use crate::ElectraConfig;
use crate::weights::HeadKind;

impl Checkpoint {
    /// Writes `config.json`, `model.safetensors`, `vocab.txt` and `tokenizer_config.json` into `folder`. With
    /// several heads the first names the architecture.
    pub fn write(&self, folder: &Path) -> Result<(), ImportError> {
        std::fs::create_dir_all(folder).map_err(|error| ImportError::io(folder, error))?;
        self.tensors.write(&folder.join("model.safetensors"))?;
        write_json(&folder.join("config.json"), &config_json(&self.config, self.heads.first()))?;
        let tokenizer = json!({"do_lower_case": self.uncased, "tokenizer_class": "ElectraTokenizer",
                               "model_max_length": self.config.max_position_embeddings});
        write_json(&folder.join("tokenizer_config.json"), &tokenizer)?;
        write_vocabulary(&folder.join("vocab.txt"), &self.pieces)
    }
}

/// Writes an adapter as `peft` stores one: `adapter_config.json` and `adapter_model.safetensors`.
///
/// `modules` is a regular expression of the adapted layers, `tensors` have `peft`'s names, `head` is the module
/// that was trained whole.
pub fn write_peft(
    folder: &Path,
    tensors: &Tensors,
    kind: HeadKind,
    rank: usize,
    alpha: usize,
    modules: &str,
    head: Option<&str>,
) -> Result<(), ImportError> {
    std::fs::create_dir_all(folder).map_err(|error| ImportError::io(folder, error))?;
    let task = match kind {
        HeadKind::Classify | HeadKind::Regress => Some("SEQ_CLS"),
        HeadKind::Tag => Some("TOKEN_CLS"),
        HeadKind::Answer => Some("QUESTION_ANS"),
        HeadKind::Detect | HeadKind::FillMask => None,
    };
    let config = json!({
        "peft_type": "LORA", "task_type": task, "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0,
        "bias": "none", "target_modules": modules, "modules_to_save": head.map(|head| vec![head]),
        "fan_in_fan_out": false, "inference_mode": true, "base_model_name_or_path": null,
    });
    write_json(&folder.join("adapter_config.json"), &config)?;
    tensors.write(&folder.join("adapter_model.safetensors"))
}

fn write_json(path: &Path, value: &Value) -> Result<(), ImportError> {
    let text = format!("{value:#}\n");
    write_atomically(path, text.as_bytes()).map_err(|error| ImportError::io(path, error))
}

fn config_json(config: &ElectraConfig, head: Option<&HeadTensors>) -> Value {
    let architecture = match head.map(|head| head.kind) {
        Some(HeadKind::Detect) => "ElectraForPreTraining",
        Some(HeadKind::FillMask) => "ElectraForMaskedLM",
        Some(HeadKind::Classify | HeadKind::Regress) => "ElectraForSequenceClassification",
        Some(HeadKind::Tag) => "ElectraForTokenClassification",
        Some(HeadKind::Answer) => "ElectraForQuestionAnswering",
        None => "ElectraModel",
    };
    let mut json = json!({
        "architectures": [architecture],
        "model_type": "electra",
        "vocab_size": config.vocab_size,
        "embedding_size": config.embedding_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "type_vocab_size": config.type_vocab_size,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        "tie_word_embeddings": true,
    });
    let named =
        head.filter(|head| matches!(head.kind, HeadKind::Classify | HeadKind::Regress | HeadKind::Tag));
    if let Some(HeadTensors { kind, labels, .. }) = named {
        let by_id: serde_json::Map<String, Value> =
            labels.iter().enumerate().map(|(id, label)| (id.to_string(), json!(label))).collect();
        let by_label: serde_json::Map<String, Value> =
            labels.iter().enumerate().map(|(id, label)| (label.clone(), json!(id))).collect();
        (json["id2label"], json["label2id"]) = (by_id.into(), by_label.into());
        if *kind == HeadKind::Regress {
            json["problem_type"] = json!("regression");
        }
    }
    json
}
