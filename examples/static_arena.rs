//! The core as firmware uses it: model in flash, arena in static memory, no allocation.
//!
//! `cargo run --release --example static_arena`

use electret::{Aligned, Arena, Error, Model, Plan, Session, TINY};
use std::sync::Mutex;

/// Longest sequence, `[CLS]` and `[SEP]` included.
const TOKENS: usize = 32;

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/electret-tiny.electret"));
static ARENA: Mutex<Arena<{ Plan::inference(&TINY, TOKENS).bytes() }>> = Mutex::new(Arena::new());

fn main() -> Result<(), Error> {
    let mut arena = ARENA.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    println!("{} bytes of model, {} of arena", MODEL.0.len(), size_of_val(&*arena));
    let model = Model::open(&MODEL.0)?;
    let mut session = Session::new(model, arena.as_mut_slice(), TOKENS)?;
    for text in ["The dog ran after the ball.", "The dog ran after the of."] {
        let suspect = session.detect(text)?.max_by(|a, b| a.replaced.total_cmp(&b.replaced));
        if let Some(suspect) = suspect {
            let span = suspect.token.start as usize..suspect.token.end as usize;
            println!("{text}  most suspect: {:?}, {:.0} %", &text[span], suspect.replaced * 100.0);
        }
    }
    Ok(())
}
