//! Real checkpoints: bert-tiny-mlm and all-MiniLM-L6-v2, f32 against PyTorch and int8 against f32.
//! Run with ELECTRET_SHARED, and ELECTRET_MINILM set to the folder of the unpacked MiniLM.
#![cfg(feature = "convert")]

mod common;

use std::path::PathBuf;

use electret::import::Checkpoint;
use electret::quantize::{cosine, quantize, verify};
use electret::reference::{Reference, Sequence};
use electret::tasks::Pooling;
use electret::text::Input;
use electret::weights::{AlignedBytes, HeadKind};
use electret::{Model, Plan, Session};
use ndarray::{Array1, Array2, Axis};
use serde_json::Value;

fn cases() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/real_weights.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn integers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

fn sequence(case: &Value) -> Sequence {
    let input_ids = integers(&case["input_ids"]);
    Sequence {
        padding: vec![false; input_ids.len()],
        token_type_ids: integers(&case["token_type_ids"]),
        input_ids,
    }
}

fn bert_tiny() -> Option<Checkpoint> {
    Some(Checkpoint::open(&common::shared("models/bert-tiny-mlm")?).unwrap())
}

fn mini_lm() -> Option<Checkpoint> {
    let Some(folder) = std::env::var_os("ELECTRET_MINILM") else {
        println!("SKIPPED: set ELECTRET_MINILM to a folder with all-MiniLM-L6-v2 and its vocab.txt");
        return None;
    };
    Some(Checkpoint::open(&PathBuf::from(folder)).unwrap())
}

fn last_hidden(checkpoint: &Checkpoint, sequence: &Sequence) -> Array2<f32> {
    Reference(checkpoint).hidden_states(sequence).unwrap().pop().unwrap()
}

fn lines(path: &str, column: usize, count: usize) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(common::shared(path)?).unwrap();
    Some(
        text.lines()
            .skip(1)
            .filter_map(|line| line.split('\t').nth(column))
            .take(count)
            .map(str::to_owned)
            .collect(),
    )
}

#[test]
fn bert_tiny_in_f32_is_pytorchs() {
    let Some(checkpoint) = bert_tiny() else { return };
    let head = checkpoint.heads.iter().find(|head| head.kind == HeadKind::FillMask).unwrap();
    for case in cases()["cases"].as_array().unwrap() {
        let hidden = last_hidden(&checkpoint, &sequence(case));
        let expected = &case["bert_tiny"];
        common::assert_close(
            hidden.row(0).iter().take(8),
            floats(&expected["cls_hidden_first8"]).iter(),
            1e-4,
        );
        let mean = hidden.mean().unwrap();
        assert!((mean - expected["hidden_mean"].as_f64().unwrap() as f32).abs() < 1e-4);
        let logits = Reference(&checkpoint).logits(head, hidden.view()).unwrap();
        for (position, row) in logits.rows().into_iter().enumerate() {
            let ids = integers(&expected["top5_ids_per_position"][position]);
            let found: Vec<f32> = ids.iter().map(|&id| row[id as usize]).collect();
            let top = floats(&expected["top5_logits_per_position"][position]);
            common::assert_close(found.iter(), top.iter(), 1e-4);
        }
    }
}

#[test]
fn mini_lm_in_f32_is_pytorchs() {
    let Some(checkpoint) = mini_lm() else { return };
    for case in cases()["cases"].as_array().unwrap() {
        let hidden = last_hidden(&checkpoint, &sequence(case));
        let expected = &case["minilm"];
        common::assert_close(
            hidden.row(0).iter().take(8),
            floats(&expected["cls_hidden_first8"]).iter(),
            1e-4,
        );
        let mean = hidden.mean_axis(Axis(0)).unwrap();
        let mean = &mean / mean.dot(&mean).sqrt();
        let pooled = floats(&expected["mean_pooled_normalised_first8"]);
        common::assert_close(mean.iter().take(8), pooled.iter(), 1e-4);
    }
}

#[test]
fn the_tokeniser_agrees_with_the_golden_cases() {
    let Some(checkpoint) = bert_tiny() else { return };
    let file = AlignedBytes::copy_of(&quantize(&checkpoint, "", "").unwrap());
    let model = Model::open(file.as_slice()).unwrap();
    let tokenizer = electret::text::Tokenizer::new(&model.root().vocabulary);
    for case in cases()["cases"].as_array().unwrap() {
        let mut tokens = [electret::text::Token::default(); 128];
        let text = &case["text"];
        let first = text.as_str().or(text[0].as_str()).unwrap();
        // A special token written out in a text is text to us, by design.
        if first.contains("[MASK]") {
            continue;
        }
        let input = Input { text: first, pair: text[1].as_str(), truncate: false };
        let length = tokenizer.encode(input, &mut tokens).unwrap();
        let ids: Vec<u32> = tokens[..length].iter().map(|token| token.id).collect();
        assert_eq!(ids, integers(&case["input_ids"]), "{case}");
    }
}

#[test]
fn mini_lm_has_the_same_bits_on_every_kernel_set() {
    let Some(checkpoint) = mini_lm() else { return };
    let file = AlignedBytes::copy_of(&quantize(&checkpoint, "", "").unwrap());
    let model = Model::open(file.as_slice()).unwrap();
    let plan = Plan::inference(model.config(), 64);
    let hidden = |set| {
        let mut arena = AlignedBytes::zeroed(plan.bytes());
        let mut session = Session::with(model, arena.as_mut_slice(), plan, set).unwrap();
        let mut bits = Vec::new();
        for case in cases()["cases"].as_array().unwrap() {
            let text = case["text"].as_str().or(case["text"][0].as_str()).unwrap();
            let input = Input { truncate: true, ..text.into() };
            bits.extend(session.encode(input).unwrap().1.iter().map(|x| x.to_bits()));
        }
        bits
    };
    let mut sets = electret::kernels::available();
    let expected = hidden(sets.next().unwrap());
    for set in sets {
        assert!(hidden(set) == expected, "{}", set.name);
    }
}

#[test]
fn mini_lm_in_int8_keeps_its_embeddings() {
    let Some(checkpoint) = mini_lm() else { return };
    let Some(texts) = lines("data/tasks/stsb/dev.tsv", 1, 1000) else { return };
    let file = AlignedBytes::copy_of(&quantize(&checkpoint, "", "").unwrap());
    let model = Model::open(file.as_slice()).unwrap();
    let report = verify(model, &checkpoint, &texts).unwrap();
    println!(
        "{} sentences: cosine min {:.5}, mean {:.5}",
        report.sentences, report.min_cosine, report.mean_cosine
    );
    assert!(report.sentences >= 990 && report.min_cosine >= 0.998, "{report:?}");

    let plan = Plan::inference(model.config(), 128);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let mut session = Session::new(model, arena.as_mut_slice(), 128).unwrap();
    let golden = cases();
    let mut worst = 0.0_f64;
    for pair in golden["minilm_cosine_pairs"].as_array().unwrap() {
        let mut embed = |index: usize| {
            let embedding = session.embed(pair[index].as_str().unwrap().into(), Pooling::Mean).unwrap();
            Array1::from(embedding.to_vec())
        };
        let (a, b) = (embed(0), embed(1));
        worst = worst.max((cosine(a.view(), b.view()) - pair[2].as_f64().unwrap()).abs());
    }
    println!("golden pairs: largest difference of a cosine {worst:.5}");
    assert!(worst <= 0.01);
}

#[test]
fn bert_tiny_in_int8_keeps_its_predictions() {
    let Some(checkpoint) = bert_tiny() else { return };
    let Some(texts) = lines("data/tasks/trec6/train.tsv", 1, 1000) else { return };
    let file = AlignedBytes::copy_of(&quantize(&checkpoint, "", "").unwrap());
    let report = verify(Model::open(file.as_slice()).unwrap(), &checkpoint, &texts).unwrap();
    let head = &report.heads[0];
    println!("{:.4} of {} predictions agree", head.agreement, head.decisions);
    assert!(head.decisions >= 10_000 && head.agreement >= 0.98, "{head:?}");
}
