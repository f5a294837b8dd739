//! What can be wrong with weights that come from elsewhere.

use std::path::{Path, PathBuf};

/// Why a folder or file could not be imported. Every message names the file, field or tensor.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("{}: not a readable safetensors file ({error})", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        error: safetensors::SafeTensorError,
    },
    /// Not a file of NumPy's arrays, or a damaged one.
    #[error("{}: not a readable .npz file ({message})", path.display())]
    Npz {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        message: String,
    },
    /// PyTorch's own format.
    #[error(
        "{}: a pickle, which is not read; load the model in transformers and save it again, as safetensors",
        path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A JSON file that does not parse, or lacks a field.
    #[error("{}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// A field of `config.json` with a value that ELECTRA cannot have here.
    #[error("config.json: {field}: {message}")]
    Config {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A tensor the network needs is not in the weights.
    #[error("tensor {0}: missing from the weights")]
    MissingTensor(String),
    /// A tensor has another shape than the config says.
    #[error("tensor {name}: shape {found:?} where the config says {expected:?}")]
    WrongShape {
        /// The tensor.
        name: String,
        /// Shape by the config.
        expected: Vec<usize>,
        /// Shape found.
        found: Vec<usize>,
    },
    /// An ONNX file that is unreadable, or computes something else than an ELECTRA or BERT.
    #[cfg(feature = "onnx")]
    #[error("{}: {message}", path.display())]
    Onnx {
        /// The file.
        path: PathBuf,
        /// What was found.
        message: String,
    },
    /// A vocabulary that cannot be used.
    #[error("{}: {message}", path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        message: String,
    },
}

impl ImportError {
    /// An error of the file system at `path`.
    pub fn io(path: &Path, error: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}
