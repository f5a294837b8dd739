//! Firmware for QEMU's Cortex-M boards: proves on every kernel set that the logits are those of all
//! other machines, and counts the instructions of a sentence.
//!
//! The model lies at 0x6000_0000, where QEMU's loader puts it. Under `-icount shift=0` SysTick runs
//! in proportion to executed instructions; a loop of known length says in which.
#![no_std]
#![no_main]

#[path = "../../../tests/golden/logits.rs"]
mod golden;
#[path = "../../../tests/golden/softmax.rs"]
mod softmax;
#[path = "../../../tests/golden/tuning.rs"]
mod tuning;

use core::arch::asm;
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::{SYST, syst::SystClkSource};
use cortex_m_rt::{ExceptionFrame, entry, exception};
use cortex_m_semihosting::{debug, hio};
use electret::kernels::{self, KernelSet};
use electret::text::Token;
use electret::{Aligned, Error, HeadKind, Model, Plan, Session};

const MODEL: *const u8 = 0x6000_0000 as *const u8;
const MODEL_ROOM: usize = 15 << 20;
const TOKENS: usize = 32;

static mut ARENA: Aligned<[u8; 256 << 10]> = Aligned([0; 256 << 10]);

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say(format_args!("{info}"));
    fail()
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    say(format_args!("hard fault at {:#x}", frame.pc()));
    fail()
}

/// How often the 24 bits of the timer went round.
static ROUNDS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    // One core, and nobody else writes.
    ROUNDS.store(ROUNDS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Ticks since the start.
fn now() -> u64 {
    let rounds = ROUNDS.load(Ordering::Relaxed);
    (u64::from(rounds) << 24) + u64::from(0x00ff_ffff - SYST::get_current())
}

fn say(text: core::fmt::Arguments<'_>) {
    if let Ok(mut out) = hio::hstdout() {
        let _ = writeln!(out, "{text}");
    }
}

fn fail() -> ! {
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}

#[entry]
fn main() -> ! {
    let Some(peripherals) = cortex_m::Peripherals::take() else { fail() };
    let mut timer = peripherals.SYST;
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(0x00ff_ffff);
    timer.clear_current();
    timer.enable_interrupt();
    timer.enable_counter();
    // SAFETY: QEMU's loader has filled this memory before the core starts.
    let model = unsafe { core::slice::from_raw_parts(MODEL, MODEL_ROOM) };
    for set in kernels::available() {
        if let Err(error) = run(model, set) {
            say(format_args!("{}: {error}", set.name));
            fail();
        }
    }
    loop {
        debug::exit(debug::EXIT_SUCCESS);
    }
}

fn run(file: &[u8], set: &'static KernelSet) -> Result<(), Error> {
    let model = Model::open(file)?;
    let config = model.config();
    // SAFETY: one session at a time, on one core; the timer's interrupt touches only its counter.
    let arena = unsafe { &mut (*(&raw mut ARENA)).0 };
    if model.root().provenance.name.as_str() == "electret-tiny" {
        let hash =
            golden::logits_hash(&mut Session::with(model, arena, Plan::inference(config, TOKENS), set)?)?;
        let verdict = if hash == golden::LOGITS { "the golden logits" } else { "OTHER LOGITS" };
        say(format_args!("{}: {hash:016x}, {verdict}", set.name));
        let begin = now();
        let tuned = tuning::tuned_hash(model, arena, set)?;
        let instructions = ((now() - begin) as f64 * instructions_a_tick()) as u64;
        let learned = if tuned == tuning::TUNED { "the golden adapter" } else { "ANOTHER ADAPTER" };
        say(format_args!("{}: {tuned:016x}, {learned}; 12 lessons in {instructions} instructions", set.name));
        let vanishing = softmax::softmax_bits(set);
        if hash != golden::LOGITS || tuned != tuning::TUNED || vanishing != softmax::SOFTMAX {
            fail();
        }
    }
    let mut tokens = [Token::default(); TOKENS];
    for (index, token) in tokens.iter_mut().enumerate() {
        token.id = (index * 7919 % config.vocab_size) as u32;
    }
    let mut session = Session::with(model, arena, Plan::inference(config, TOKENS), set)?;
    let begin = now();
    session.token_logits_of(HeadKind::Detect, &tokens)?;
    let ticks = now() - begin;
    let instructions = (ticks as f64 * instructions_a_tick()) as u64;
    let products = config.multiply_accumulates(TOKENS) as u64;
    say(format_args!(
        "{}: {} of {TOKENS} tokens: {instructions} instructions, {products} multiply-accumulates, {:.3} each",
        set.name,
        model.root().provenance.name.as_str(),
        instructions as f64 / products as f64
    ));
    Ok(())
}

/// Times a loop of two million instructions.
fn instructions_a_tick() -> f64 {
    let begin = now();
    // SAFETY: a register counts down to zero.
    unsafe { asm!("2: subs {0}, #1", "bne 2b", inout(reg) 1_000_000 => _) };
    2_000_000.0 / (now() - begin) as f64
}
