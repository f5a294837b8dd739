//! Encodes one sequence some number of times: `electret-arm-bench MODEL KERNELS TOKENS RUNS`. The
//! instructions of two runs less those of one are those of a sequence.

use electret::text::Token;
use electret::weights::AlignedBytes;
use electret::{HeadKind, Model, Plan, Session, kernels};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, name, tokens, runs] = &arguments[..] else {
        panic!("MODEL KERNELS TOKENS RUNS, or MODEL - 0 0 for the sets and multiply-accumulates");
    };
    let file = AlignedBytes::copy_of(&std::fs::read(path).expect("a model file"));
    let model = Model::open(file.as_slice()).expect("a model");
    if name == "-" {
        let sets: Vec<&str> = kernels::available().map(|set| set.name).collect();
        println!("{} {}", model.config().multiply_accumulates(32), sets.join(" "));
        return;
    }
    let set = kernels::available().find(|set| set.name == name).expect("a kernel set of this processor");
    let tokens: usize = tokens.parse().expect("a number of tokens");
    let mut sequence = vec![Token::default(); tokens];
    for (index, token) in sequence.iter_mut().enumerate() {
        token.id = (index * 7919 % model.config().vocab_size) as u32;
    }
    let plan = Plan::inference(model.config(), tokens).for_model(&model);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let mut session = Session::with(model, arena.as_mut_slice(), plan, set).expect("a session");
    for _ in 0..runs.parse().expect("a number of runs") {
        session.token_logits_of(HeadKind::Detect, &sequence).expect("logits");
    }
}
