//! Inference and nothing else, without a panic: the panic handler calls a function that does not exist, so that
//! firmware in which any panic can be reached does not link.
//!
//! It opens the model of the first slot, detects and classifies what lies in memory as a text, and ends QEMU with
//! success if the model's self-test gives the bits that it was shipped with.

#![no_std]
#![no_main]

use cortex_m::singleton;
use cortex_m_rt::{ExceptionFrame, entry, exception};
use electret::{Arena, Error, HeadKind, Model, Plan, Session, TINY};

#[entry]
fn main() -> ! {
    // SAFETY: QEMU's loader has filled this memory before the core starts.
    let file = unsafe { core::slice::from_raw_parts(0x6000_0000 as *const u8, 16 << 20) };
    let arena = singleton!(: Arena<{ Plan::inference(&TINY, 64).bytes() }> = Arena::new());
    let agree = arena.is_some_and(|arena| infer(file, arena.as_mut_slice()).unwrap_or(false));
    semihosting::process::exit(if agree { 0 } else { 1 })
}

/// Whether the self-test agrees; with each head on the way.
fn infer(file: &'static [u8], arena: &mut [u8]) -> Result<bool, Error> {
    let mut session = Session::new(Model::open(file)?, arena, 64)?;
    let text = "The cat sat on the banana and purred.";
    let mut suspects = session.detect(text)?.filter(|detection| detection.replaced > 0.5).count();
    for kind in [HeadKind::Tag, HeadKind::Answer] {
        suspects += session.token_logits(kind, text.into()).map_or(0, |found| found.logits.len());
    }
    suspects += session.classify(text.into()).map_or(0, <[f32]>::len);
    suspects += session.embed(text.into(), electret::tasks::Pooling::Mean).map_or(0, <[f32]>::len);
    #[cfg(feature = "overflow")]
    dig(suspects);
    #[cfg(feature = "panic")]
    assert!(core::hint::black_box(suspects) < 1000);
    core::hint::black_box(suspects);
    Ok(session.self_test()?.1)
}

/// Ends QEMU as failed. The stack may be at its end: what this pushes is a fault again, and ends QEMU as well.
#[exception]
unsafe fn HardFault(_: &ExceptionFrame) -> ! {
    semihosting::process::exit(1)
}

/// Without end.
#[cfg(feature = "overflow")]
#[expect(unconditional_recursion, reason = "the memory below the stack is what ends it")]
fn dig(depth: usize) {
    let taken = core::hint::black_box([depth; 64]);
    dig(depth + 1);
    core::hint::black_box(taken);
}

unsafe extern "C" {
    /// Nobody defines it.
    fn a_panic_can_be_reached() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: if this is linked, the firmware is not.
    unsafe { a_panic_can_be_reached() }
}
