//! `tests/golden/tiny_random`: a random ELECTRA and what PyTorch makes of three sequences.

use std::path::{Path, PathBuf};

use electret::import::{Checkpoint, Tensors};
use electret::reference::Sequence;
use ndarray::ArrayD;
use safetensors::SafeTensors;

pub struct Golden {
    folder: PathBuf,
    inputs: Vec<u8>,
    expected: Tensors,
}

impl Golden {
    pub fn open() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny_random");
        let mut expected = Tensors::default();
        expected.read(&folder.join("expected.safetensors")).unwrap();
        Self { inputs: std::fs::read(folder.join("inputs.safetensors")).unwrap(), folder, expected }
    }

    /// The weights with one head (its tensors lose their prefix), as a Hugging Face folder would
    /// hold them. There is no vocabulary: numbered pieces take its place.
    pub fn checkpoint(&self, head: Option<&str>) -> Checkpoint {
        Checkpoint::open(&self.hugging_face_folder(head)).unwrap()
    }

    pub fn weights(&self, head: Option<&str>) -> Tensors {
        let mut tensors = Tensors::default();
        tensors.read(&self.folder.join("weights.safetensors")).unwrap();
        tensors.renamed(|name| {
            let own = head.and_then(|head| name.strip_prefix(&format!("{head}.")));
            own.or_else(|| name.starts_with("electra.").then_some(name)).map(str::to_owned)
        })
    }

    pub fn hugging_face_folder(&self, head: Option<&str>) -> PathBuf {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("golden-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        self.weights(head).write(&folder.join("model.safetensors")).unwrap();
        std::fs::copy(self.folder.join("config.json"), folder.join("config.json")).unwrap();
        let mut pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).to_vec();
        pieces.extend(('a'..='z').map(String::from));
        pieces.extend(('a'..='z').map(|c| format!("##{c}")));
        pieces.extend((pieces.len()..100).map(|id| format!("piece{id}")));
        std::fs::write(folder.join("vocab.txt"), pieces.join("\n")).unwrap();
        folder
    }

    pub fn input(&self, name: &str) -> Vec<i64> {
        let file = SafeTensors::deserialize(&self.inputs).unwrap();
        let tensor = file.tensor(name).unwrap();
        tensor.data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()
    }

    /// Class ids; −100 does not count.
    pub fn targets(&self, name: &str) -> Vec<Option<usize>> {
        self.input(name).into_iter().map(|label| usize::try_from(label).ok()).collect()
    }

    pub fn sequences(&self) -> Vec<Sequence> {
        let ids = self.input("input_ids");
        let types = self.input("token_type_ids");
        let mask = self.input("attention_mask");
        let row = |values: &[i64], row: usize| -> Vec<u32> {
            values[row * 12..(row + 1) * 12].iter().map(|&value| value as u32).collect()
        };
        (0..3)
            .map(|index| Sequence {
                input_ids: row(&ids, index),
                token_type_ids: row(&types, index),
                padding: row(&mask, index).into_iter().map(|mask| mask == 0).collect(),
            })
            .collect()
    }

    pub fn expected(&self, name: &str) -> ArrayD<f32> {
        let found = self.expected.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("{name} is not among the golden tensors")).1.into_owned()
    }

    /// All tensors whose name begins so, without that prefix.
    pub fn expected_under(&self, prefix: &str) -> Tensors {
        self.expected.clone().renamed(|name| Some(name.strip_prefix(prefix)?.to_owned()))
    }

    #[track_caller]
    pub fn assert_loss(&self, head: &str, loss: f64) {
        let expected = f64::from(self.expected(&format!("{head}.loss"))[[0]]);
        assert!((loss - expected).abs() <= 1e-5, "{head}: loss {loss}, PyTorch has {expected}");
    }
}
