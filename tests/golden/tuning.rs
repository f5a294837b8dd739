// What electret-tiny learns in a few steps: one hash of every bit of it, the same on all machines.

use electret::tune::{Settings, Target, Task};
use electret::{Error, Model, Strategy, TINY, Tuner, TuningPlan, kernels::KernelSet};

/// FNV-1a of the parameters' bits after the steps.
pub const TUNED: u64 = 0xddcb_c582_733e_2b23;

const STRATEGY: Strategy = Strategy { bias_layers: 1, ..Strategy::lora(4, 2).with_head() };

/// The arena's.
pub const PLAN: TuningPlan = TuningPlan::new(&TINY, 16, STRATEGY, 2);

const EXAMPLES: [(&str, usize); 4] = [
    ("where is the old house?", 0),
    ("the old house is near the river.", 1),
    ("who saw the king?", 0),
    ("we saw the king.", 1),
];

/// Learns three rounds of four examples, two a step.
pub fn tuned_hash(model: Model<'_>, arena: &mut [u8], set: &'static KernelSet) -> Result<u64, Error> {
    let task = Task::classify(&["question", "statement"]);
    let mut tuner = Tuner::with(model, arena, PLAN, task, Settings::default(), set)?;
    for _ in 0..3 {
        for pair in EXAMPLES.chunks(2) {
            for &(text, label) in pair {
                tuner.learn(text.into(), Target::Class(label))?;
            }
            tuner.step();
        }
    }
    let bytes = tuner.adapter().parameters.iter().flat_map(|x| x.to_bits().to_le_bytes());
    Ok(bytes
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}
