//! SysTick, once a millisecond: the clock of a Cortex-M, and what wakes it from its sleep.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::exception;

/// Milliseconds since the timer was started.
static TICKS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    // One core, and nobody else writes.
    TICKS.store(TICKS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Lets SysTick fire every millisecond of a processor of so many Hz.
pub fn start(timer: &mut SYST, hz: u32) {
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(hz / 1000 - 1);
    timer.clear_current();
    timer.enable_interrupt();
    timer.enable_counter();
}

/// Microseconds since then.
pub fn micros() -> u64 {
    loop {
        let (ticks, left) = (TICKS.load(Ordering::Relaxed), SYST::get_current());
        // Unless a tick came in between.
        if TICKS.load(Ordering::Relaxed) == ticks {
            let reload = SYST::get_reload();
            // It stands at 0 when a tick has just come.
            let gone = if left == 0 { 0 } else { reload - left.min(reload) };
            return u64::from(ticks) * 1000 + u64::from(gone * 1000 / (reload + 1));
        }
    }
}
