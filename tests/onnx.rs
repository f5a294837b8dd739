//! ONNX files: what every exporter makes of one ELECTRA is read to the same weights, and anything else is refused with
//! what was found. `tests/onnx/make.py` made `tests/golden/onnx`, and makes twelve larger ones for `ELECTRET_ONNX`.

mod common;

use std::path::{Path, PathBuf};

use common::golden::Golden;
use electret::import::{Checkpoint, ImportError};
use electret::quantize::{Recipe, onnx, quantize_by};
use electret::reference::{Reference, Sequence};
use electret::weights::AlignedBytes;
use electret::{HeadKind, Model};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/onnx").join(name)
}

#[test]
fn every_exporter_is_read_to_the_same_weights() {
    let weights = Golden::open().weights(Some("pretraining"));
    for name in ["older.onnx", "old.onnx", "new.onnx"] {
        let (found, agreement) = Checkpoint::open_onnx(&golden(name)).expect(name);
        assert!(agreement.relative_error < 1e-5, "{name}: {agreement:?}");
        assert_eq!(found.config.num_attention_heads, 4);
        assert_eq!(found.heads.iter().map(|head| head.kind).collect::<Vec<_>>(), [HeadKind::Detect]);
        let tensors: Vec<_> = found.tensors.iter().collect();
        assert!(tensors.len() > 40, "{}", tensors.len());
        for (tensor, values) in tensors {
            let expected = weights.iter().find(|(name, _)| *name == tensor).map(|(_, values)| values);
            assert_eq!(Some(values), expected, "{name}: {tensor}");
        }
    }
    let (found, agreement) = Checkpoint::open_onnx(&golden("int8.onnx")).expect("int8");
    assert!(agreement.relative_error < 0.05, "{agreement:?}");
    for (tensor, values) in found.tensors.iter() {
        let expected =
            weights.iter().find(|(name, _)| *name == tensor).map(|(_, values)| values).expect(tensor);
        let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let step = values.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(step <= largest / 100.0, "{tensor}: {step} of {largest}");
    }
}

/// What is written of a quantised model computes, run by tract, what its own weights in f32 compute; and is read to
/// these.
#[test]
fn a_quantised_model_goes_to_onnx_and_comes_back() {
    for (head, kind) in [
        ("pretraining", HeadKind::Detect),
        ("mlm", HeadKind::FillMask),
        ("seqcls", HeadKind::Classify),
        ("tokcls", HeadKind::Tag),
        ("qa", HeadKind::Answer),
    ] {
        let checkpoint = Golden::open().checkpoint(Some(head));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("to-onnx-{head}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("vocab.txt"), checkpoint.pieces.join("\n")).unwrap();
        for recipe in [Recipe::default(), Recipe::all_int4(&checkpoint)] {
            let file = AlignedBytes::copy_of(&quantize_by(&checkpoint, "", "", &recipe).unwrap());
            let model = Model::open(file.as_slice()).unwrap();
            std::fs::write(folder.join("model.onnx"), onnx(&model, Some(kind)).unwrap()).unwrap();
            let (found, agreement) = Checkpoint::open_onnx(&folder.join("model.onnx")).expect(head);
            assert!(agreement.relative_error < 1e-5, "{head}: {agreement:?}");
            assert_eq!(found.heads.iter().map(|head| head.kind).collect::<Vec<_>>(), [kind]);
            let own = Checkpoint::of_model(&model, None);
            for (tensor, values) in found.tensors.iter() {
                let expected = own.tensors.iter().find(|(name, _)| *name == tensor).expect(tensor).1;
                let equal = values.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs());
                assert!(equal && values.shape() == expected.shape(), "{head}: {tensor}");
            }
        }
        let file = AlignedBytes::copy_of(&quantize_by(&checkpoint, "", "", &Recipe::default()).unwrap());
        let other = if kind == HeadKind::Tag { HeadKind::Detect } else { HeadKind::Tag };
        assert!(onnx(&Model::open(file.as_slice()).unwrap(), Some(other)).is_err());
    }
}

#[test]
fn what_onnx_runtime_computes_is_what_the_reference_computes() {
    let Some(root) = std::env::var_os("ELECTRET_ONNX").map(PathBuf::from) else {
        println!(
            "SKIPPED: set ELECTRET_ONNX to a folder that tests/onnx/make.py has filled to run this test"
        );
        return;
    };
    let mut files = 0;
    for folder in std::fs::read_dir(root).expect("the folder").map(|entry| entry.expect("an entry").path()) {
        let (found, agreement) = Checkpoint::open_onnx(&folder.join("model.onnx")).expect("a model");
        let expected = std::fs::read(folder.join("expected.json")).expect("expected.json");
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&expected).expect("JSON");
        let numbers = |value: &serde_json::Value| -> Vec<f64> {
            value.as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64).collect()
        };
        let mut worst = 0f64;
        for row in &rows {
            let input_ids: Vec<u32> = numbers(&row["ids"]).iter().map(|&id| id as u32).collect();
            let token_type_ids = numbers(&row["types"]).iter().map(|&id| id as u32).collect();
            let padding = vec![false; input_ids.len()];
            let sequence = Sequence { input_ids, token_type_ids, padding };
            let reference = Reference(&found);
            let hidden = reference.hidden_states(&sequence).expect("hidden states").pop().expect("layers");
            let theirs = numbers(&row["outputs"][0]);
            let ours: Vec<f32> = match found.heads.first() {
                None => hidden.iter().copied().collect(),
                Some(head) => {
                    let first = matches!(head.kind, HeadKind::Classify | HeadKind::Regress);
                    let rows = if first { 1 } else { hidden.nrows() };
                    let logits =
                        reference.logits(head, hidden.slice(ndarray::s![..rows, ..])).expect("logits");
                    let columns = if head.kind == HeadKind::Answer { 1 } else { logits.ncols() };
                    logits.slice(ndarray::s![.., ..columns]).iter().copied().collect()
                }
            };
            assert_eq!(ours.len(), theirs.len());
            for (a, b) in ours.iter().zip(&theirs) {
                worst = worst.max((f64::from(*a) - b).abs() / b.abs().max(1.0));
            }
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("{name:22} from ONNX Runtime {worst:.1e}, from tract {:.1e}", agreement.relative_error);
        let allowed = if name.ends_with("int8") {
            0.2
        } else if name.ends_with("f16") {
            0.02
        } else {
            1e-4
        };
        assert!(worst <= allowed, "{name}");
        files += 1;
    }
    assert_eq!(files, 12);
}

/// A protocol buffer's fields: a number, and what it holds.
#[derive(Clone)]
struct Message(Vec<(u64, Wire)>);

#[derive(Clone)]
enum Wire {
    Number(u64),
    Fixed([u8; 4]),
    Bytes(Vec<u8>),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Message {
    fn parse(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let wire = match key & 7 {
                0 => Wire::Number(varint(&mut bytes)),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    let (field, rest) = bytes.split_at(length);
                    bytes = rest;
                    Wire::Bytes(field.to_vec())
                }
                5 => {
                    let (field, rest) = bytes.split_first_chunk().expect("four bytes");
                    bytes = rest;
                    Wire::Fixed(*field)
                }
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, wire));
        }
        Self(fields)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, wire) in &self.0 {
            match wire {
                Wire::Number(value) => {
                    put_varint(number << 3, &mut out);
                    put_varint(*value, &mut out);
                }
                Wire::Fixed(bytes) => {
                    put_varint(number << 3 | 5, &mut out);
                    out.extend(bytes);
                }
                Wire::Bytes(bytes) => {
                    put_varint(number << 3 | 2, &mut out);
                    put_varint(bytes.len() as u64, &mut out);
                    out.extend(bytes);
                }
            }
        }
        out
    }

    /// Changes each message in the field of that number.
    fn each(&mut self, number: u64, mut change: impl FnMut(&mut Message)) {
        for (field, wire) in &mut self.0 {
            if let (true, Wire::Bytes(bytes)) = (*field == number, wire) {
                let mut message = Message::parse(bytes);
                change(&mut message);
                *bytes = message.bytes();
            }
        }
    }

    fn text(&self, number: u64) -> String {
        let found = self.0.iter().find_map(|(field, wire)| match wire {
            Wire::Bytes(bytes) if *field == number => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        });
        found.unwrap_or_default()
    }

    fn without(&mut self, number: u64) {
        self.0.retain(|(field, _)| *field != number);
    }

    fn set(&mut self, number: u64, wire: Wire) {
        self.without(number);
        self.0.push((number, wire));
    }
}

const GRAPH: u64 = 7;
const NODE: u64 = 1;
const INITIALIZER: u64 = 5;
const OP_TYPE: u64 = 4;
const INPUT: u64 = 1;
const DIMS: u64 = 1;
const RAW_DATA: u64 = 9;

fn text(words: &str) -> Wire {
    Wire::Bytes(words.as_bytes().to_vec())
}

/// The golden graph with its nodes changed.
fn nodes(change: impl FnMut(&mut Message)) -> Vec<u8> {
    let mut change = change;
    let mut model = model();
    model.each(GRAPH, |graph| graph.each(NODE, &mut change));
    model.bytes()
}

/// The golden graph with its first large weight changed.
fn weight(change: impl Fn(&mut Message)) -> Vec<u8> {
    let (mut model, mut done) = (model(), false);
    model.each(GRAPH, |graph| {
        graph.each(INITIALIZER, |tensor| {
            let large = tensor.0.iter().any(|(field, wire)| {
                *field == RAW_DATA && matches!(wire, Wire::Bytes(bytes) if bytes.len() > 1000)
            });
            if large && !done {
                change(tensor);
                done = true;
            }
        });
    });
    assert!(done);
    model.bytes()
}

fn model() -> Message {
    Message::parse(&std::fs::read(golden("old.onnx")).expect("old.onnx"))
}

/// An external weight in `location` at `offset`.
fn external(location: &str, offset: &str) -> Vec<u8> {
    weight(|tensor| {
        tensor.without(RAW_DATA);
        tensor.set(14, Wire::Number(1));
        for (key, value) in [("location", location), ("offset", offset)] {
            tensor.0.push((13, Wire::Bytes(Message(vec![(1, text(key)), (2, text(value))]).bytes())));
        }
    })
}

fn renamed(from: &'static str, to: &'static str) -> Vec<u8> {
    nodes(move |node| {
        if node.text(OP_TYPE) == from {
            node.set(OP_TYPE, text(to));
        }
    })
}

#[test]
fn broken_and_foreign_files_are_refused_with_what_was_found() {
    let whole = std::fs::read(golden("old.onnx")).expect("old.onnx");
    let with = |change: &dyn Fn(&mut Message)| {
        let mut model = model();
        change(&mut model);
        model.bytes()
    };
    let with_graph = |change: &dyn Fn(&mut Message)| with(&|model| model.each(GRAPH, change));
    let opset = |version| with(&|model| model.each(8, |opset| opset.set(2, Wire::Number(version))));
    let cut = |length: usize| whole[..length].to_vec();
    let unreadable = "no readable ONNX file";
    let mut first_add = true;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "names no opset"),
        ("one byte", cut(1), unreadable),
        ("ten bytes", cut(10), ""),
        ("a hundred bytes", cut(100), unreadable),
        ("a quarter", cut(whole.len() / 4), unreadable),
        ("half", cut(whole.len() / 2), unreadable),
        ("three quarters", cut(whole.len() * 3 / 4), unreadable),
        ("all but one byte", cut(whole.len() - 1), ""),
        ("text", b"This is no model, but a sentence.".to_vec(), unreadable),
        ("zeros", vec![0; 5000], unreadable),
        ("an .electret file", std::fs::read("models/electret-tiny.electret").expect("the model"), unreadable),
        (
            "weights alone",
            std::fs::read("tests/golden/tiny_random/weights.safetensors").expect("weights"),
            "",
        ),
        ("GPT-2", std::fs::read(golden("gpt2.onnx")).expect("gpt2.onnx"), "no transformer encoder"),
        ("opset 3", opset(3), "opset 3: 7 or later"),
        ("no opset", with(&|model| model.without(8)), "names no opset"),
        ("no graph", with(&|model| model.without(GRAPH)), "holds no graph"),
        ("functions", with(&|model| model.0.push((25, text("")))), "functions of its own"),
        ("backwards", with_graph(&|graph| graph.0.reverse()), "which nothing before it makes"),
        (
            "a cycle",
            nodes(|node| {
                if node.text(OP_TYPE) == "Erf" {
                    let output = node.text(2);
                    node.set(INPUT, text(&output));
                }
            }),
            "a cycle",
        ),
        (
            "its own maker",
            nodes(|node| {
                if node.text(OP_TYPE) == "Erf" {
                    let input = node.text(INPUT);
                    node.set(2, text(&input));
                }
            }),
            "is made twice",
        ),
        (
            "huge dimensions",
            weight(|tensor| tensor.set(DIMS, Wire::Number(1 << 40))),
            "needs 1099511627776 values",
        ),
        (
            "overflowing dimensions",
            weight(|tensor| tensor.0.extend(vec![(DIMS, Wire::Number(1 << 40)); 4])),
            "no shape",
        ),
        ("negative dimensions", weight(|tensor| tensor.set(DIMS, Wire::Number(u64::MAX))), "no shape"),
        ("strings", weight(|tensor| tensor.set(2, Wire::Number(8))), "values of type STRING"),
        ("too few values", weight(|tensor| tensor.set(RAW_DATA, Wire::Bytes(vec![0; 8]))), "the file has 2"),
        ("a weight elsewhere", external("weights.bin", "0"), "weights.bin: No such file"),
        ("a weight outside", external("../../Cargo.toml", "0"), "outside the model's folder"),
        ("a weight at the root", external("/etc/passwd", "0"), "outside the model's folder"),
        ("a weight past the end", external("vocab.txt", "700"), "ends before its"),
        ("no offset", external("vocab.txt", "x"), "no offset"),
        ("no softmax", renamed("Softmax", "Sigmoid"), "0 attentions"),
        ("no erf", renamed("Erf", "Tanh"), "not activated by GELU"),
        ("another activation", renamed("Erf", "Atan"), "not activated by GELU"),
        ("no LayerNorm", renamed("LayerNormalization", "RMSNormalization"), "0 LayerNorms"),
        ("fused", nodes(|node| node.set(7, text("com.microsoft"))), "com.microsoft"),
        ("no embeddings", renamed("Gather", "GatherElements"), "no LayerNorm over looked-up embeddings"),
        (
            "a residual that is taken away",
            nodes(|node| {
                if node.text(OP_TYPE) == "Add" && node.text(3).contains("layer.0/output/Add") && first_add {
                    node.set(OP_TYPE, text("Sub"));
                    first_add = false;
                }
            }),
            "no last LayerNorm",
        ),
        (
            "a softmax over another axis",
            nodes(|node| {
                if node.text(OP_TYPE) == "Softmax" {
                    node.each(5, |attribute| attribute.set(3, Wire::Number(2)));
                }
            }),
            "computes something else",
        ),
        (
            "another ε",
            nodes(|node| {
                if node.text(OP_TYPE) == "LayerNormalization" && node.text(3).contains("layer.1") {
                    node.each(5, |attribute| {
                        if attribute.text(1) == "epsilon" {
                            attribute.set(2, Wire::Fixed(1f32.to_le_bytes()));
                        }
                    });
                }
            }),
            "computes something else",
        ),
    ];
    assert!(cases.len() >= 30);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken-onnx");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::copy(golden("vocab.txt"), folder.join("vocab.txt")).expect("a vocabulary");
    for (name, bytes, words) in cases {
        let path = folder.join("model.onnx");
        std::fs::write(&path, bytes).expect("written");
        let refused = Checkpoint::open_onnx(&path).map(|_| ()).expect_err(name);
        assert!(matches!(refused, ImportError::Onnx { .. }), "{name}: {refused}");
        println!("{name}: {refused}");
        assert!(refused.to_string().contains(words), "{name}: {refused}");
    }
    let said = Checkpoint::open_onnx(Path::new("nowhere.onnx")).map(|_| ()).expect_err("no file").to_string();
    assert!(said.starts_with("nowhere.onnx: "), "{said}");
}
