//! `pytorch_model.bin` is read to the weights of the safetensors file, and a damaged one is refused.
//! `tests/golden/pytorch` was written by `torch.save`: f32, f16, and a tensor in the format before 1.6.
#![cfg(feature = "train")]

mod common;

use std::path::{Path, PathBuf};

use common::golden::Golden;
use electret::import::{Checkpoint, ImportError, Tensors};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pytorch").join(name)
}

fn read(path: &Path) -> Result<Tensors, ImportError> {
    let mut tensors = Tensors::default();
    tensors.read(path).map(|()| tensors)
}

#[test]
fn a_folder_with_pytorchs_file_is_the_one_with_safetensors() {
    let folder = Golden::open().hugging_face_folder(Some("pretraining"));
    let expected = Checkpoint::open(&folder).unwrap();
    let other = Golden::open().hugging_face_folder(Some("pretraining"));
    std::fs::remove_file(other.join("model.safetensors")).unwrap();
    std::fs::copy(golden("pytorch_model.bin"), other.join("pytorch_model.bin")).unwrap();
    let found = Checkpoint::open(&other).unwrap();
    assert!(found.tensors == expected.tensors && found.heads == expected.heads);
}

#[test]
fn f16_is_read() {
    let (found, expected) = (read(&golden("half.bin")).unwrap(), read(&golden("pytorch_model.bin")).unwrap());
    let mut compared = 0;
    for ((name, found), (other, expected)) in found.iter().zip(expected.iter()) {
        assert!(name == other && found.shape() == expected.shape());
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() / 1024.0 + 1e-7;
        assert!(found.iter().zip(&expected).all(near), "{name}");
        compared += 1;
    }
    assert!(compared > 40);
}

#[test]
fn damaged_files_are_refused() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pytorch-damaged");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("pytorch_model.bin");
    let whole = std::fs::read(golden("pytorch_model.bin")).unwrap();
    for part in 0..20 {
        std::fs::write(&path, &whole[..whole.len() * part / 20]).unwrap();
        let error = read(&path).expect_err("a part of a file").to_string();
        assert!(error.contains("pytorch_model.bin"), "{error}");
    }
    // A flipped bit is noticed, or lies where nothing is kept.
    let expected = read(&golden("pytorch_model.bin")).unwrap();
    for step in 0..500 {
        let mut damaged = whole.clone();
        let at = step * 7919 % damaged.len();
        damaged[at] ^= 1 << (step % 8);
        std::fs::write(&path, &damaged).unwrap();
        if let Ok(found) = read(&path) {
            assert!(found == expected, "byte {at}");
        }
    }
    std::fs::write(&path, b"I am no model").unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("no whole zip archive"));
    assert!(read(&golden("older.bin")).unwrap_err().to_string().contains("save it anew"));
}
