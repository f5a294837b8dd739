//! Google's variable names, from safetensors and from `.npz`, are read to the same weights as Hugging Face's.

mod common;

use std::fs::File;

use common::golden::Golden;
use electret::import::{Checkpoint, Tensors};
use ndarray_npy::NpzWriter;

/// What Google's code calls a tensor, and whether it holds it the other way round.
fn google(name: &str) -> (String, bool) {
    let is_table = name.ends_with("_embeddings.weight");
    let is_norm = name.contains("LayerNorm");
    let (path, last) = name.rsplit_once('.').expect("a part");
    let path = path.replace("layer.", "layer_").replace('.', "/").replace("dense_prediction", "dense_1");
    match last {
        "weight" if is_table => (path, false),
        "weight" if is_norm => (format!("{path}/gamma"), false),
        "bias" if is_norm => (format!("{path}/beta"), false),
        "weight" => (format!("{path}/kernel"), true),
        _ => (format!("{path}/bias"), false),
    }
}

#[test]
fn googles_names_are_hugging_faces() {
    let golden = Golden::open();
    let expected = golden.checkpoint(Some("pretraining"));
    let mut theirs = Tensors::default();
    for (name, array) in expected.tensors.iter() {
        let (name, turned) = google(name);
        let array = if turned { array.t().to_owned() } else { array.into_owned() };
        theirs.insert(&name, array.shape(), array.iter().copied().collect());
        theirs.insert(&format!("{name}/adam_m"), array.shape(), vec![0.0; array.len()]);
    }
    // The other encoder, and the pooler, which nobody trained.
    theirs.insert("generator/encoder/layer_0/output/dense/kernel", &[2, 3], vec![0.5; 6]);
    theirs.insert("generator_predictions/output_bias", &[100], vec![0.5; 100]);
    theirs.insert("electra/pooler/dense/kernel", &[2, 2], vec![0.5; 4]);

    let folder = golden.hugging_face_folder(Some("pretraining"));
    theirs.write(&folder.join("model.safetensors")).expect("written");
    let found = Checkpoint::open(&folder).expect("from safetensors");
    assert_eq!(found.tensors, expected.tensors);
    assert_eq!(found.heads, expected.heads);

    std::fs::remove_file(folder.join("model.safetensors")).expect("removed");
    let mut npz = NpzWriter::new_compressed(File::create(folder.join("model.npz")).expect("a file"));
    for (name, array) in theirs.iter() {
        npz.add_array(name.as_str(), &array).expect(name);
    }
    npz.add_array("global_step", &ndarray::arr0(7i64)).expect("a number");
    npz.finish().expect("finished");
    let found = Checkpoint::open(&folder).expect("from .npz");
    assert_eq!(found.tensors, expected.tensors);

    let whole = std::fs::read(folder.join("model.npz")).expect("the file");
    let mut npz = NpzWriter::new(File::create(folder.join("model.npz")).expect("a file"));
    npz.add_array("half", &ndarray::arr1(&[0x3c00u16])).expect("two bytes a number");
    npz.finish().expect("finished");
    let mut half = std::fs::read(folder.join("model.npz")).expect("the file");
    let kind = half.windows(4).position(|bytes| bytes == b"'<u2").expect("NumPy's name of the type") + 2;
    half[kind] = b'f';
    std::fs::write(folder.join("model.npz"), half).expect("written");
    let said = Checkpoint::open(&folder).expect_err("halves").to_string();
    assert!(said.contains("half: '<f2', where f4 and f8 are read"), "{said}");

    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        std::fs::write(folder.join("model.npz"), &whole[..length]).expect("cut");
        let said = Checkpoint::open(&folder).expect_err("half a file").to_string();
        assert!(said.contains("model.npz: not a readable .npz file"), "{said}");
    }
}
