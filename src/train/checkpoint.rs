//! A run on disk: rotating checkpoints, each one safetensors file that holds the
//! weights under their own names and the optimiser's moments under `adam.first.` and
//! `adam.second.`. A file is renamed into place when it is whole, so the newest one is always good.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::backend::Backend;

use super::optimizer::Moments;
use super::weights::Weights;
use crate::import::Tensors;

/// Checkpoints that are kept.
const KEPT: usize = 2;

/// All state of a run after `step` steps. Random draws depend on the seed and the step alone, so
/// there is no generator state to keep.
#[derive(Debug)]
pub struct Checkpoint<B: Backend> {
    /// Steps done.
    pub step: usize,
    /// Both networks.
    pub weights: Weights<B>,
    /// The optimiser's.
    pub moments: Moments<B>,
}

impl<B: Backend> Checkpoint<B> {
    /// Weights that nothing has been learnt of yet.
    pub fn fresh(weights: Weights<B>) -> Self {
        Self { step: 0, weights, moments: Moments::default() }
    }

    /// Writes the checkpoint into the run's folder and removes those beyond the newest two.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut all = Tensors::default();
        let parts = [
            ("", self.weights.to_tensors()?),
            ("adam.first.", self.moments.first.to_tensors()?),
            ("adam.second.", self.moments.second.to_tensors()?),
        ];
        for (prefix, tensors) in parts {
            for (name, array) in tensors.iter() {
                all.insert(&format!("{prefix}{name}"), array.shape(), array.iter().copied().collect());
            }
        }
        all.write(&folder.join(format!("step-{:08}.safetensors", self.step)))?;
        let mut old = checkpoints(folder)?;
        old.truncate(old.len().saturating_sub(KEPT));
        for (_, path) in old {
            std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// The newest checkpoint of the folder, if there is one.
    pub fn newest(folder: &Path, device: &B::Device) -> Result<Option<Self>> {
        let Some((step, all)) = read_newest(folder)? else { return Ok(None) };
        let part = |prefix: &str| all.clone().renamed(|name| Some(name.strip_prefix(prefix)?.to_owned()));
        let weights = without_moments(all.clone());
        Ok(Some(Self {
            step,
            weights: Weights::from_tensors(&weights, device)?,
            moments: Moments {
                first: Weights::from_tensors(&part("adam.first."), device)?,
                second: Weights::from_tensors(&part("adam.second."), device)?,
            },
        }))
    }
}

/// Whether the folder has a checkpoint; nothing of it is read.
pub fn has_checkpoint(folder: &Path) -> Result<bool> {
    Ok(!checkpoints(folder)?.is_empty())
}

/// The weights of a run's newest checkpoint on the host, with its step.
pub fn newest_weights(folder: &Path) -> Result<(usize, Tensors)> {
    let (step, all) =
        read_newest(folder)?.with_context(|| format!("{}: no checkpoint here", folder.display()))?;
    Ok((step, without_moments(all)))
}

/// All tensors of the newest checkpoint, with its step.
fn read_newest(folder: &Path) -> Result<Option<(usize, Tensors)>> {
    let mut found = checkpoints(folder)?;
    let Some((step, path)) = found.pop() else { return Ok(None) };
    let mut all = Tensors::default();
    all.read(&path).with_context(|| match found.pop() {
        Some((before, _)) => {
            format!("the checkpoint of step {step} is damaged; once it is removed the run goes on from step {before}")
        }
        None => format!("the checkpoint of step {step} is damaged, and there is no other"),
    })?;
    Ok(Some((step, all)))
}

fn without_moments(all: Tensors) -> Tensors {
    all.renamed(|name| (!name.starts_with("adam.")).then(|| name.to_owned()))
}

/// The checkpoints of a folder, oldest first.
fn checkpoints(folder: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let step = name.strip_prefix("step-").and_then(|rest| rest.strip_suffix(".safetensors"));
        if let Some(Ok(step)) = step.map(str::parse) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}
