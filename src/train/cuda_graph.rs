//! CUDA graphs of libtorch (feature `tch`): a part of a batch is recorded once and then launched as a whole.
//!
//! Told one by one, the few thousand kernels of a small network's step cost the processor more time than the GPU needs
//! to run them. A recording reads the tensors that it was made with, so that a replay first copies its inputs there,
//! and its results are copied before the next replay overwrites them. Random numbers stay what the seed of each step
//! makes them.
//!
//! `tch` does not wrap libtorch's `CUDAGraph`, which is reached by its symbols (seen at work in libtorch 2.11). A libtorch
//! that lacks one of them launches each kernel by itself, and says so once.

use std::ffi::c_void;

use burn::backend::libtorch::{LibTorchDevice, TchTensor};
use burn::backend::{Autodiff, LibTorch};
use burn::tensor::{Int, Tensor, TensorPrimitive};
use libloading::os::unix::{Library, Symbol};

use super::kernels::{Computed, Differentiable, Inputs};
use super::learner::Gradients;
use super::objective::{Judged, Shown};

/// Parts that are run as they are told before one is recorded: libtorch sets its libraries up at their first use.
const WARM_UP: usize = 3;

/// What became of the parts so far.
#[derive(Default)]
pub enum Recording {
    /// Nothing was run.
    #[default]
    Empty,
    /// So many were run, on a stream that can be recorded.
    Warm(Symbols, usize),
    /// One was recorded.
    Recorded(Box<Recorded>),
    /// This device or libtorch records nothing.
    Unable,
}

impl Differentiable for Autodiff<LibTorch> {
    type Recording = Recording;

    fn part<'a>(
        recording: &mut Recording,
        inputs: Inputs<LibTorch>,
        compute: impl FnOnce() -> Computed<'a, LibTorch>,
    ) -> Computed<'a, LibTorch> {
        if let Recording::Empty = recording {
            *recording = Recording::start(inputs.ids.device());
        }
        match recording {
            Recording::Recorded(recorded) => return recorded.replay(&inputs),
            Recording::Warm(symbols, seen) if *seen == WARM_UP => {
                let mut recorded = Recorded::new(*symbols, inputs.clone(), compute);
                let computed = recorded.replay(&inputs);
                *recording = Recording::Recorded(Box::new(recorded));
                return computed;
            }
            Recording::Warm(_, seen) => *seen += 1,
            Recording::Empty | Recording::Unable => {}
        }
        compute()
    }
}

impl Recording {
    /// Leaves the stream that CUDA starts with, which cannot be recorded, for the rest of this thread.
    fn start(device: LibTorchDevice) -> Self {
        let LibTorchDevice::Cuda(index) = device else { return Self::Unable };
        match Symbols::of_this_process() {
            Ok(symbols) => {
                tch::Cuda::synchronize(index as i64);
                // SAFETY: plain values in and out; the device exists, since tensors lie there.
                unsafe { (symbols.set_stream)((symbols.stream_from_pool)(false, index as i8)) };
                Self::Warm(symbols, 0)
            }
            Err(missing) => {
                log::warn!(
                    "this libtorch records no CUDA graphs ({missing}): each kernel is launched by itself"
                );
                Self::Unable
            }
        }
    }
}

/// A recorded part, the tensors that it reads and those that it writes.
pub struct Recorded {
    graph: Graph,
    inputs: Inputs<LibTorch>,
    gradients: Vec<Gradients<LibTorch>>,
    shown: Shown<LibTorch>,
}

impl Recorded {
    fn new<'a>(
        symbols: Symbols,
        inputs: Inputs<LibTorch>,
        compute: impl FnOnce() -> Computed<'a, LibTorch>,
    ) -> Self {
        let mut graph = Graph::new(symbols);
        graph.begin();
        let Computed { gradients, shown } = compute();
        let gradients = gradients.collect();
        graph.end();
        Self { graph, inputs, gradients, shown }
    }

    fn replay(&mut self, inputs: &Inputs<LibTorch>) -> Computed<'static, LibTorch> {
        overwrite(ids(&self.inputs.ids), ids(&inputs.ids));
        for (to, from) in self.inputs.vectors.iter().zip(&inputs.vectors) {
            overwrite(numbers(to), numbers(from));
        }
        self.graph.replay();
        let Self { gradients, shown, .. } = self;
        let copies = |piece: &Gradients<LibTorch>| piece.iter().map(copied).collect();
        let gradients: Vec<_> = gradients.iter().map(copies).collect();
        Computed {
            gradients: Box::new(gradients.into_iter()),
            shown: Shown {
                mlm_loss: copied(&shown.mlm_loss),
                generator_accuracy: copied(&shown.generator_accuracy),
                discriminator: shown.discriminator.as_ref().map(|judged| Judged {
                    loss: copied(&judged.loss),
                    corrupted: Tensor::from_primitive(TchTensor::new(copy(&ids(&judged.corrupted)))),
                    logits: judged.logits.as_ref().map(copied),
                }),
            },
        }
    }
}

fn ids(tensor: &Tensor<LibTorch, 1, Int>) -> tch::Tensor {
    tensor.clone().into_primitive().tensor
}

fn numbers(tensor: &Tensor<LibTorch, 1>) -> tch::Tensor {
    tensor.clone().into_primitive().tensor().tensor
}

fn copied(tensor: &Tensor<LibTorch, 1>) -> Tensor<LibTorch, 1> {
    Tensor::from_primitive(TensorPrimitive::Float(TchTensor::new(copy(&numbers(tensor)))))
}

/// In memory of its own; `tch`'s `copy` writes it twice.
fn copy(tensor: &tch::Tensor) -> tch::Tensor {
    let mut copy = tensor.empty_like();
    copy.copy_(tensor);
    copy
}

fn overwrite(mut to: tch::Tensor, from: tch::Tensor) {
    if to.data_ptr() != from.data_ptr() {
        to.copy_(&from);
    }
}

/// `c10::cuda::CUDAStream`, which is passed in registers.
#[repr(C)]
#[derive(Clone, Copy)]
struct Stream {
    device_type: i8,
    device_index: i8,
    id: i64,
}

/// Functions of libtorch by their C++ symbols. Those of `at::cuda::CUDAGraph` take the object first. Where CUDA fails
/// they throw, which ends the process with libtorch's message.
#[derive(Clone, Copy)]
pub struct Symbols {
    /// `getStreamFromPool(isHighPriority, device)`
    stream_from_pool: unsafe extern "C-unwind" fn(bool, i8) -> Stream,
    /// `setCurrentCUDAStream(stream)`
    set_stream: unsafe extern "C-unwind" fn(Stream),
    /// `CUDAGraph(keep_graph)`
    create: unsafe extern "C-unwind" fn(*mut c_void, bool),
    /// `~CUDAGraph()`
    destroy: unsafe extern "C-unwind" fn(*mut c_void),
    /// `capture_begin(pool, mode)`: the pool is a pair of numbers, (0, 0) for one of its own.
    begin: unsafe extern "C-unwind" fn(*mut c_void, u64, u64, i32),
    /// `capture_end()`
    end: unsafe extern "C-unwind" fn(*mut c_void),
    /// `replay()`
    replay: unsafe extern "C-unwind" fn(*mut c_void),
}

impl Symbols {
    fn of_this_process() -> Result<Self, libloading::Error> {
        let process = Library::this();
        // SAFETY: the types are those of the declarations in c10/cuda/CUDAStream.h and ATen/cuda/CUDAGraph.h, whose
        // parameters are part of the symbols.
        unsafe {
            Ok(Self {
                stream_from_pool: *symbol(&process, b"_ZN3c104cuda17getStreamFromPoolEba")?,
                set_stream: *symbol(&process, b"_ZN3c104cuda20setCurrentCUDAStreamENS0_10CUDAStreamE")?,
                create: *symbol(&process, b"_ZN2at4cuda9CUDAGraphC1Eb")?,
                destroy: *symbol(&process, b"_ZN2at4cuda9CUDAGraphD1Ev")?,
                begin: *symbol(
                    &process,
                    b"_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode",
                )?,
                end: *symbol(&process, b"_ZN2at4cuda9CUDAGraph11capture_endEv")?,
                replay: *symbol(&process, b"_ZN2at4cuda9CUDAGraph6replayEv")?,
            })
        }
    }
}

/// The symbol of that name.
///
/// # Safety
/// `T` is the type of what it names.
unsafe fn symbol<T>(process: &Library, name: &[u8]) -> Result<Symbol<T>, libloading::Error> {
    // SAFETY: the caller's.
    unsafe { process.get(name) }
}

/// An `at::cuda::CUDAGraph` in memory of its own. The object is a few hundred bytes; libtorch has no way to ask.
struct Graph {
    symbols: Symbols,
    object: Box<Room>,
}

#[repr(align(64))]
struct Room([u64; 512]);

/// `cudaStreamCaptureModeThreadLocal`: what other threads do is not recorded and does no harm.
const THREAD_LOCAL: i32 = 1;

impl Graph {
    fn new(symbols: Symbols) -> Self {
        let mut graph = Self { symbols, object: Box::new(Room([0; 512])) };
        // SAFETY: the room is larger than the object, aligned, and never moves.
        unsafe { (symbols.create)(graph.at(), false) };
        graph
    }

    fn at(&mut self) -> *mut c_void {
        self.object.0.as_mut_ptr().cast()
    }

    fn begin(&mut self) {
        // SAFETY: the object was made by `new`.
        unsafe { (self.symbols.begin)(self.at(), 0, 0, THREAD_LOCAL) };
    }

    fn end(&mut self) {
        // SAFETY: the object was made by `new`.
        unsafe { (self.symbols.end)(self.at()) };
    }

    fn replay(&mut self) {
        // SAFETY: the object was made by `new`.
        unsafe { (self.symbols.replay)(self.at()) };
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the object was made by `new`.
        unsafe { (self.symbols.destroy)(self.at()) };
    }
}
