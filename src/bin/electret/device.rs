//! Where the desktop's arithmetic is done: the one place that knows the backends of a build.

use clap::ValueEnum;

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

/// `on_device!(device, B, at => work)`: `work` with the backend `B` of that device, which is `at`.
macro_rules! on_device {
    ($device:expr, $backend:ident, $at:ident => $work:expr) => {
        match $device {
            Device::Cpu => {
                type $backend = burn::backend::Autodiff<burn::backend::Flex>;
                let $at = &Default::default();
                $work
            }
            #[cfg(feature = "tch")]
            Device::Tch => {
                type $backend = burn::backend::Autodiff<burn::backend::LibTorch>;
                let $at = &burn::backend::libtorch::LibTorchDevice::Cpu;
                $work
            }
            #[cfg(feature = "tch")]
            Device::TchCuda => {
                type $backend = burn::backend::Autodiff<burn::backend::LibTorch>;
                let $at = &burn::backend::libtorch::LibTorchDevice::Cuda(0);
                $work
            }
            #[cfg(feature = "cuda")]
            Device::Cuda => {
                type $backend = burn::backend::Autodiff<burn::backend::Cuda>;
                let $at = &Default::default();
                $work
            }
            #[cfg(feature = "wgpu")]
            Device::Wgpu => {
                type $backend = burn::backend::Autodiff<burn::backend::Wgpu>;
                let $at = &Default::default();
                $work
            }
        }
    };
}

pub(super) use on_device;
