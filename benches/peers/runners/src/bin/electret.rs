use electret::text::Token;
use electret::weights::AlignedBytes;
use electret::{HeadKind, Model, Plan, Session, kernels};

fn main() {
    let file = AlignedBytes::copy_of(&std::fs::read(electret_peers::path()).expect("a model file"));
    let model = Model::open(file.as_slice()).expect("a model");
    let plan = Plan::with_block_rows(model.config(), 512, 32);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let mut session = Session::with(model, arena.as_mut_slice(), plan, kernels::best()).expect("a session");
    electret_peers::serve(|ids| {
        let mut tokens = vec![Token::default(); ids.len()];
        for (token, &id) in tokens.iter_mut().zip(ids) {
            token.id = id as u32;
        }
        session.token_logits_of(HeadKind::Detect, &tokens).expect("logits");
    });
}
