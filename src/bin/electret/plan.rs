//! How much memory a job takes, and which boards hold it.

use anyhow::{Result, ensure};
use clap::Args;
use electret::plan::BLOCK_ROWS;
use electret::{ElectraConfig, Model, Plan, TuningPlan};
use serde_json::{Value, json};

use super::convert::{Weights, WeightsOptions};
use super::tune::parse_strategy;
use super::{ModelFile, Output, preset};

/// Bytes of arena and flash, and the boards that hold them.
///
/// Example: electret plan --preset small --seq 128
#[derive(Args)]
pub struct PlanVerb {
    #[command(flatten)]
    model: ModelFile,
    /// nano, tiny, small, base or large, instead of a model.
    #[arg(long, conflicts_with = "model")]
    preset: Option<String>,
    #[command(flatten)]
    weights: WeightsOptions,
    /// Longest sequence in tokens, special tokens included; without it 128, or the model's longest.
    #[arg(long)]
    seq: Option<usize>,
    /// Room for learning too: head, bias[:LAYERS], words:RANK, lora:RANK:LAYERS[:qkvaio or all], joined by +.
    #[arg(long, value_name = "STRATEGY")]
    tune: Option<String>,
    /// Labels of the head that is learned.
    #[arg(long, default_value_t = 2)]
    labels: usize,
    #[command(flatten)]
    output: Output,
}

/// What is planned for.
struct Subject {
    config: ElectraConfig,
    /// Bytes of the weights: the file's, or an estimate for a preset.
    weights: usize,
    int4: bool,
}

/// Boards by their data sheets: name, bytes of the largest contiguous RAM, bytes of mapped flash. `boards/` has no firmware
/// for the first and the third yet.
const BOARDS: [(&str, usize, usize); 6] = [
    ("nRF52840-DK (Cortex-M4)", 256 << 10, 1 << 20),
    ("STM32H747I-DISCO (Cortex-M7, 64 MB QSPI)", 512 << 10, 64 << 20),
    ("i.MX RT1060-EVK (Cortex-M7, 8 MB QSPI)", 1 << 20, 8 << 20),
    ("nRF5340 DK (Cortex-M33, 8 MB QSPI)", 512 << 10, 8 << 20),
    ("RP2350 (Cortex-M33, 16 MB QSPI)", 520 << 10, 16 << 20),
    ("STM32N6570-DK (Cortex-M55, 128 MB OSPI)", 4200 << 10, 128 << 20),
];

/// Room for the stack and the firmware's own buffers beside the arena: on a Cortex-M4 the stack is 26.6 KiB at the deepest.
const STACK: usize = 32 << 10;
/// Room for the code beside the weights.
const CODE: usize = 160 << 10;

impl PlanVerb {
    pub fn run(&self) -> Result<()> {
        let Subject { config, weights, int4 } = self.subject()?;
        let tokens = self.seq.unwrap_or(config.max_position_embeddings.min(128));
        ensure!(
            (3..=config.max_position_embeddings).contains(&tokens),
            "--seq {tokens}: this model takes 3 to {} tokens",
            config.max_position_embeddings
        );
        let unpacking = |plan: Plan| if int4 { plan.unpacking(&config) } else { plan };
        let inference = unpacking(Plan::inference(&config, tokens)).bytes();
        let arena = match &self.tune {
            None => inference,
            Some(text) => {
                let plan = TuningPlan::new(&config, tokens, parse_strategy(text)?, self.labels);
                if int4 { plan.unpacking().bytes() } else { plan.bytes() }
            }
        };
        let boards: Vec<&str> = BOARDS
            .iter()
            .filter(|&&(_, ram, flash)| arena + STACK <= ram && weights + CODE <= flash)
            .map(|&(name, ..)| name)
            .collect();
        let blocks: Vec<Value> = [1, 2, 4, 8, 16, 32]
            .iter()
            .map(|&rows| {
                let plan = unpacking(Plan::with_block_rows(&config, tokens, rows));
                json!({"rows": rows, "arena_bytes": plan.bytes()})
            })
            .collect();
        if self.output.json {
            say!(
                "{}",
                json!({"arena_bytes": arena, "inference_bytes": inference, "weights_bytes": weights, "block_rows": BLOCK_ROWS,
                       "blocks": blocks, "boards": boards})
            );
            return Ok(());
        }
        say!("arena    {arena:>10} bytes ({:.1} KiB) for {} tokens", arena as f64 / 1024.0, tokens);
        if let Some(strategy) = &self.tune {
            say!(
                "         {inference:>10} of them for answering, {} more for learning ({strategy})",
                arena - inference
            );
        }
        say!("weights  {weights:>10} bytes ({:.1} MiB)", weights as f64 / (1 << 20) as f64);
        say!("blocks of rows, and the arena they take:");
        for row in &blocks {
            say!("  {:>3} rows {:>10} bytes", row["rows"], row["arena_bytes"]);
        }
        say!("boards that hold arena, {} KiB of stack, weights and code:", STACK >> 10);
        for board in &boards {
            say!("  {board}");
        }
        if boards.is_empty() {
            say!("  none of those known here");
        }
        Ok(())
    }

    /// The model, or what one of a preset would be.
    fn subject(&self) -> Result<Subject> {
        if let Some(name) = &self.preset {
            let config = preset(name)?;
            let int4 = self.weights.weights == Weights::Int4;
            let weights = if int4 { config.int4_weight_bytes() } else { config.weight_bytes() };
            return Ok(Subject { config, weights, int4 });
        }
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        Ok(Subject { config: *model.config(), weights: model.bytes(), int4: model.is_int4() })
    }
}
