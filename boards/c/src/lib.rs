//! electret for programs in C: `electret.h` beside this folder, all of it from `electret::ffi`.
#![cfg_attr(not(feature = "app"), no_std)]

pub use source::ffi::*;

/// Whoever links this without an operating system brings `abort`.
#[cfg(not(feature = "app"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn abort() -> !;
    }
    // SAFETY: C's own.
    unsafe { abort() }
}
