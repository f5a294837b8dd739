//! Where the desktop's arithmetic is done: the one place that knows the backends of a build.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, OnceLock};

use anyhow::{Result, bail};
use burn::tensor::{Tensor, backend::Backend};
use clap::ValueEnum;
use electret::train::optimizer::scalar;

use super::pretrain::spelled;

/// Where the arithmetic of a run is done. Each but the first is a feature of the build.
#[derive(Clone, Copy, ValueEnum)]
pub enum Device {
    /// The processor, by Burn itself.
    Cpu,
    /// libtorch's processor backend.
    #[cfg(feature = "tch")]
    Tch,
    /// libtorch's first CUDA device.
    #[cfg(feature = "tch")]
    TchCuda,
    /// The first GPU of NVIDIA's, by Burn itself.
    #[cfg(feature = "cuda")]
    Cuda,
    /// The first GPU that Vulkan, Metal or DirectX finds.
    #[cfg(feature = "wgpu")]
    Wgpu,
}

/// What MKL, which is inside of libtorch, asks before it looks for AVX-512: on a processor of another maker's it would
/// be content with AVX2, and is not where the program answers in its place. What instructions there are it sees for itself.
#[cfg(feature = "tch")]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn mkl_serv_intel_cpu_true() -> std::ffi::c_int {
    1
}

/// Does a little on a device. Backends panic where there is none, or no driver, on whatever thread noticed it: what was
/// said first is the error.
pub(super) fn probe<B: Backend>(device: Device, at: &B::Device) -> Result<()> {
    let said = Arc::new(OnceLock::new());
    let (first, hook) = (Arc::clone(&said), take_hook());
    set_hook(Box::new(move |panic| {
        let words = panic.payload_as_str().unwrap_or("no reason was given");
        first.get_or_init(|| words.to_owned());
    }));
    let works = catch_unwind(AssertUnwindSafe(|| scalar(Tensor::<B, 1>::ones([1], at))));
    set_hook(hook);
    if works.is_ok() {
        return Ok(());
    }
    let words = said.get().map_or("", |words| first_words(words));
    let name = spelled(device).unwrap_or_default();
    bail!("--device {name}: no such device can be used here ({words}); --device cpu is everywhere")
}

/// What a panic says before the stack of the C++ exception that it tells of, or the list of libraries that were tried.
fn first_words(panic: &str) -> &str {
    let inner = panic.rsplit("Torch(\"").next().unwrap_or(panic);
    let line = inner.split("\\n").next().unwrap_or(inner);
    let sentence = line.split(". ").next().unwrap_or(line);
    sentence.split([':', '[', '\n']).next().unwrap_or(sentence)
}

/// `on_device!(device, B, at => work)`: `work` with the backend `B` of that device, which is `at`; both may fail.
macro_rules! on_device {
    ($device:expr, $backend:ident, $at:ident => $work:expr) => {
        match $device {
            Device::Cpu => on_device!(@ $device, Flex, Default::default(), $backend, $at, $work),
            #[cfg(feature = "tch")]
            Device::Tch => on_device!(@ $device, LibTorch, Default::default(), $backend, $at, $work),
            #[cfg(feature = "tch")]
            Device::TchCuda => {
                let first = burn::backend::libtorch::LibTorchDevice::Cuda(0);
                on_device!(@ $device, LibTorch, first, $backend, $at, $work)
            }
            #[cfg(feature = "cuda")]
            Device::Cuda => on_device!(@ $device, Cuda, Default::default(), $backend, $at, $work),
            #[cfg(feature = "wgpu")]
            Device::Wgpu => on_device!(@ $device, Wgpu, Default::default(), $backend, $at, $work),
        }
    };
    (@ $device:expr, $inner:ident, $place:expr, $backend:ident, $at:ident, $work:expr) => {{
        type $backend = burn::backend::Autodiff<burn::backend::$inner>;
        let $at = &$place;
        super::device::probe::<$backend>($device, $at).and_then(|()| $work)
    }};
}

pub(super) use on_device;
