//! ONNX → f32 tensors under ELECTRA's names.
//!
//! Weights are found by what the graph does with them, never by their names: exporters rename, fold and transpose. A
//! [`graph`] of nodes and constants is cut into [`parts`] (linear layers, LayerNorms, attentions), and these are read
//! from the embeddings upwards ([`encoder`]). Graphs in f32, f16 and int8 (dynamic, or with QuantizeLinear and
//! DequantizeLinear) can be read; weights may lie in a file beside.
//!
//! Reading is generous, because it is proven: `tract` runs the same graph, and what was read must give the same outputs
//! ([`oracle`]). A graph that computes anything else is refused.

mod encoder;
mod graph;
mod oracle;
mod parts;

use std::path::Path;

use super::{Checkpoint, ImportError, read_vocabulary};
use graph::Graph;
pub use oracle::Agreement;

impl Checkpoint {
    /// Reads an ONNX file of an ELECTRA or BERT, with the `vocab.txt` beside it; `config.json` and
    /// `tokenizer_config.json` beside it give the names of labels and whether text is lower-cased, where they are there.
    /// Says how far `tract` and the f32 reference agree on what the graph computes.
    ///
    /// # Errors
    /// [`ImportError::Onnx`] with what was found where something else is needed; [`ImportError::Vocabulary`].
    pub fn open_onnx(path: &Path) -> Result<(Self, Agreement), ImportError> {
        let fail = |message: String| ImportError::Onnx { path: path.to_owned(), message };
        let graph = Graph::open(path).map_err(fail)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let (pieces, special) = read_vocabulary(&folder.join("vocab.txt"))?;
        let labels = super::checkpoint::labels_beside(folder)?;
        let read = encoder::read(&graph, labels).map_err(fail)?;
        if pieces.len() > read.config.vocab_size {
            let message = format!(
                "{} pieces where the graph has {} word embeddings",
                pieces.len(),
                read.config.vocab_size
            );
            return Err(ImportError::Vocabulary { path: folder.join("vocab.txt"), message });
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let uncased = super::checkpoint::is_uncased(folder)?;
        let encoder::Read { config, tensors, heads, .. } = read;
        let checkpoint = Self { name, config, tensors, heads, pieces, special, uncased };
        checkpoint.check_shapes()?;
        let agreement = oracle::compare(path, &graph, &read.inputs, &checkpoint).map_err(fail)?;
        Ok((checkpoint, agreement))
    }
}
