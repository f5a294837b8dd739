//! The same model on the heap, field for field: what the quantiser fills and a file is written of.

use rkyv::rancor::{self, Fallible};
use rkyv::ser::{Allocator, Positional, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::with::{ArchiveWith, SerializeWith};
use rkyv::{Archive, Place, Serialize};

use super::format::{self, Channels, HeadKind, Tile};
use super::header;
use super::strategy::Part;

macro_rules! archived_as_itself {
    ($($type:ty),*) => {$(
        impl Archive for $type {
            type Archived = Self;
            type Resolver = ();
            fn resolve(&self, (): (), out: Place<Self>) {
                // SAFETY: the type has no padding, every byte is written.
                unsafe { out.write_unchecked(*self) };
            }
        }
        impl<S: Fallible + ?Sized> Serialize<S> for $type {
            fn serialize(&self, _: &mut S) -> Result<(), S::Error> {
                Ok(())
            }
        }
    )*};
}
archived_as_itself!(Tile, Channels, HeadKind);

/// [`format::Linear`] on the heap.
#[derive(Archive, Serialize, Clone, Debug)]
#[rkyv(as = format::Linear)]
#[expect(missing_docs, reason = "documented on the archived type")]
pub struct Linear {
    pub inputs: u32,
    pub outputs: u32,
    pub smoothing: Vec<f32>,
    #[rkyv(with = CacheLine)]
    pub tiles: Vec<Tile>,
    #[rkyv(with = CacheLine)]
    pub channels: Vec<Channels>,
}

/// Pads to 64 bytes before a vector; rkyv by itself pads to 32 at most.
struct CacheLine;

impl<T: Archive> ArchiveWith<Vec<T>> for CacheLine {
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;

    fn resolve_with(field: &Vec<T>, resolver: VecResolver, out: Place<Self::Archived>) {
        field.resolve(resolver, out);
    }
}

impl<T: Serialize<S>, S: Fallible + Writer + Allocator + ?Sized> SerializeWith<Vec<T>, S> for CacheLine {
    fn serialize_with(field: &Vec<T>, serializer: &mut S) -> Result<VecResolver, S::Error> {
        let missing = serializer.pos().wrapping_neg() % 64;
        serializer.write(&[0; 64][..missing])?;
        field.serialize(serializer)
    }
}

/// [`format::Norm`] on the heap.
#[derive(Archive, Serialize, Clone, Debug)]
#[rkyv(as = format::Norm)]
#[expect(missing_docs, reason = "documented on the archived type")]
pub struct Norm {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// [`format::Embeddings`] on the heap.
#[derive(Archive, Serialize, Clone, Debug)]
#[rkyv(as = format::Embeddings)]
#[expect(missing_docs, reason = "documented on the archived type")]
pub struct Embeddings {
    pub words: Linear,
    pub positions: Vec<f32>,
    pub token_types: Vec<f32>,
    pub norm: Norm,
    pub projection: Option<Linear>,
}

/// [`format::Layer`] on the heap.
#[derive(Archive, Serialize, Clone, Debug)]
#[rkyv(as = format::Layer)]
#[expect(missing_docs, reason = "documented on the archived type")]
pub struct Layer {
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub attention_output: Linear,
    pub attention_norm: Norm,
    pub intermediate: Linear,
    pub output: Linear,
    pub output_norm: Norm,
}

/// [`format::Head`] on the heap.
#[derive(Archive, Serialize, Clone, Debug)]
#[rkyv(as = format::Head)]
#[expect(missing_docs, reason = "documented on the archived type")]
pub struct Head {
    pub kind: HeadKind,
    pub dense: Option<Linear>,
    pub norm: Option<Norm>,
    pub output: Option<Linear>,
    pub labels: Vec<String>,
}

/// [`format::Vocabulary`] on the heap.
#[derive(Archive, Serialize, Clone, Debug)]
#[rkyv(as = format::Vocabulary)]
#[expect(missing_docs, reason = "documented on the archived type")]
pub struct Vocabulary {
    pub labels: Vec<u8>,
    pub children: Vec<u8>,
    pub blocks: Vec<TrieBlock>,
    pub ids: Vec<[u8; 3]>,
    pub special: [u32; 5],
    pub uncased: bool,
}

/// [`format::TrieBlock`] on the heap.
#[derive(Archive, Serialize, Clone, Copy, Debug, Default)]
#[rkyv(as = format::TrieBlock)]
#[expect(missing_docs, reason = "documented on the archived type")]
pub struct TrieBlock {
    pub first_child: u32,
    pub pieces: u32,
    pub ends: u32,
}

/// [`format::Config`] on the heap.
#[derive(Archive, Serialize, Clone, Debug)]
#[rkyv(as = format::Config)]
#[expect(missing_docs, reason = "the fields of ElectraConfig")]
pub struct Config {
    pub vocab_size: u32,
    pub embedding_size: u32,
    pub hidden_size: u32,
    pub num_hidden_layers: u32,
    pub num_attention_heads: u32,
    pub intermediate_size: u32,
    pub max_position_embeddings: u32,
    pub type_vocab_size: u32,
    pub layer_norm_eps: f32,
}

/// [`format::Provenance`] on the heap.
#[derive(Archive, Serialize, Clone, Debug, Default)]
#[rkyv(as = format::Provenance)]
#[expect(missing_docs, reason = "documented on the archived type")]
pub struct Provenance {
    pub name: String,
    pub source: String,
    pub licence: String,
    pub tool: String,
    pub quantisation: String,
}

/// [`format::Check`] on the heap.
#[derive(Archive, Serialize, Clone, Debug)]
#[rkyv(as = format::Check)]
#[expect(missing_docs, reason = "documented on the archived type")]
pub struct Check {
    pub text: String,
    pub hidden: Vec<f32>,
}

/// [`format::Root`] on the heap.
#[derive(Archive, Serialize, Clone, Debug)]
#[rkyv(as = format::Root)]
#[expect(missing_docs, reason = "documented on the archived type")]
pub struct Root {
    pub config: Config,
    pub provenance: Provenance,
    pub vocabulary: Vocabulary,
    pub embeddings: Embeddings,
    pub layers: Vec<Layer>,
    pub heads: Vec<Head>,
    pub checks: Vec<Check>,
}

impl Layer {
    /// One of its dense layers.
    pub fn dense_mut(&mut self, part: Part) -> &mut Linear {
        match part {
            Part::Query => &mut self.query,
            Part::Key => &mut self.key,
            Part::Value => &mut self.value,
            Part::AttentionOutput => &mut self.attention_output,
            Part::Intermediate => &mut self.intermediate,
            Part::Output => &mut self.output,
        }
    }
}

impl Root {
    /// The bytes of the `.electret` file.
    pub fn to_file(&self) -> Vec<u8> {
        let archive = rkyv::to_bytes::<rancor::Panic>(self);
        let Ok(payload) = archive;
        let header = header::Header::of(header::FileKind::Model, &payload);
        let mut file = header.to_bytes().to_vec();
        file.extend_from_slice(&payload);
        file
    }
}

/// Bytes at a 64-byte boundary, as a model in memory must lie.
#[derive(Clone)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    length: usize,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl core::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "AlignedBytes({})", self.length)
    }
}

impl AlignedBytes {
    /// Copies `bytes` to where a model may lie.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut aligned = Self::zeroed(bytes.len());
        aligned.as_mut_slice().copy_from_slice(bytes);
        aligned
    }

    /// That many zeros, in memory that the operating system gives when it is first written to.
    pub fn zeroed(length: usize) -> Self {
        Self { lines: bytemuck::zeroed_vec(length.div_ceil(64)), length }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.length]
    }

    /// The bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.length]
    }
}
