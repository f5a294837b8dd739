//! What was learned on a device, back where models come from.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
#[cfg(feature = "onnx")]
use electret::HeadKind;
use electret::import::{Checkpoint, write_atomically};
use electret::quantize::{merge, peft};
use electret::{Adapter, Model};
use serde_json::json;

use super::{AdapterFile, ModelFile, Output};

/// An adapter merged into its model: one .electret file, a Hugging Face folder, or PEFT's layout.
///
/// Without --adapter the model itself goes back to a folder, or to ONNX.
///
/// Example: electret merge --model m.electret --adapter intents.adapter -o intents.electret
#[derive(Args)]
pub struct Merge {
    #[command(flatten)]
    model: ModelFile,
    #[command(flatten)]
    adapter: AdapterFile,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

/// Where to.
#[derive(Args)]
#[group(required = true, multiple = true)]
struct Target {
    /// Write an .electret file of its own.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a folder that transformers loads.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Write an ONNX file of the quantised model with one head.
    #[cfg(feature = "onnx")]
    #[arg(long, value_name = "FILE", conflicts_with = "adapter")]
    onnx: Option<PathBuf>,
    /// Which head the ONNX file has, where the model has several: detect, fill-mask, classify, ….
    #[cfg(feature = "onnx")]
    #[arg(long, value_name = "KIND", requires = "onnx")]
    head: Option<String>,
    /// Write the adapter alone as peft stores one, to be laid on the folder of the bare model.
    #[arg(long, value_name = "FOLDER", requires = "adapter")]
    peft: Option<PathBuf>,
}

impl Merge {
    pub fn run(&self) -> Result<()> {
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let file = self.adapter.bytes()?;
        let adapter = file.as_ref().map(|file| Adapter::open(file.as_slice(), &model)).transpose()?;
        let Target { out, folder, peft: peft_folder, .. } = &self.target;
        let mut written = Vec::new();
        if let Some(path) = out {
            let provenance = &model.root().provenance;
            let source = match &adapter {
                Some(adapter) => format!("{} with {}", provenance.name, adapter.layout.strategy),
                None => provenance.source.as_str().to_owned(),
            };
            let file = merge(&model, adapter.as_ref(), &source, &provenance.licence)?;
            write_atomically(path, &file).with_context(|| path.display().to_string())?;
            written.push(path);
        }
        if let Some(folder) = folder {
            let merged = Checkpoint::of_model(&model, adapter.as_ref());
            merged.with_dense_heads()?.write(folder)?;
            written.push(folder);
        }
        #[cfg(feature = "onnx")]
        if let Some(path) = &self.target.onnx {
            let file = electret::quantize::onnx(&model, self.target.head_of(&model)?)?;
            write_atomically(path, &file).with_context(|| path.display().to_string())?;
            written.push(path);
        }
        if let Some((folder, adapter)) = peft_folder.as_ref().zip(adapter.as_ref()) {
            peft(&model, adapter, folder)?;
            written.push(folder);
        }
        if self.output.json {
            say!("{}", json!({ "written": written }));
            return Ok(());
        }
        for path in written {
            say!("{}", path.display());
        }
        Ok(())
    }
}

#[cfg(feature = "onnx")]
impl Target {
    /// The head that was named, or the only one; none where there is none.
    fn head_of(&self, model: &Model<'_>) -> Result<Option<HeadKind>> {
        let kinds: Vec<HeadKind> = model.root().heads.iter().map(|head| head.kind).collect();
        let names = || kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        match (&self.head, &kinds[..]) {
            (Some(name), _) => {
                let found = kinds.iter().find(|kind| kind.name() == name);
                Ok(Some(*found.with_context(|| format!("--head {name}: the model has {}", names()))?))
            }
            (None, []) => Ok(None),
            (None, [only]) => Ok(Some(*only)),
            (None, _) => anyhow::bail!("the model has several heads ({}): --head names one", names()),
        }
    }
}
