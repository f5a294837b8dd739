//! The few numeric primitives that the encoder is made of, one file an instruction set.
//!
//! `scalar.rs` is the specification. Every other set gives the same bits: integer products are
//! exact, and f32 work is that of [`lanes`], which each set compiles for its own instructions. A
//! set is a row of function pointers; [`best`] chooses one in one place.

#[cfg(feature = "std")]
#[forbid(unsafe_code)]
mod agreement;
#[cfg(all(target_arch = "x86_64", feature = "std"))]
mod avx2;
#[cfg(all(target_arch = "x86_64", feature = "std"))]
mod avx512vnni;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod dotprod;
#[cfg(all(target_arch = "arm", feature = "dsp"))]
mod dsp;
#[cfg(all(target_arch = "arm", feature = "helium"))]
mod helium;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod i8mm;
#[forbid(unsafe_code)]
pub mod lanes;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
#[forbid(unsafe_code)]
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

#[cfg(feature = "std")]
pub use agreement::first_difference;
pub use lanes::{Accumulate, LayerNorm, RowScale};

use crate::weights::format::int4_halves;
use crate::weights::{Channels, HalfTile, Tile};

/// Quantised rows × packed weights, dequantised.
///
/// With `depth` = `tiles.len() / channels.len()` blocks of 8 inputs and `n` rows:
/// `rows` is `[n][depth · 8]`, `row_scales` `[n]`, `tiles` `[channels.len()][depth]`, and `out`
/// `[n][width]` with `16 · (channels.len() − 1) < width ≤ 16 · channels.len()`.
///
/// Of weights in int4 `tiles` are [`HalfTile`]s, [`int4_halves`] of `depth` = `rows.len()` / 8 / `n` for every 16
/// channels.
#[derive(Debug)]
pub struct Matmul<'a, T = Tile> {
    /// int8 activations, each row padded to a multiple of 8, in the bytes of the set's `quantize`.
    pub rows: &'a [i8],
    /// Scale and zero point of each row.
    pub row_scales: &'a [RowScale],
    /// Weights.
    pub tiles: &'a [T],
    /// What the epilogue needs of each 16 channels.
    pub channels: &'a [Channels],
    /// The product, scaled, with bias.
    pub out: &'a mut [f32],
    /// Output channels.
    pub width: usize,
}

/// d, z, the LayerNorm, and the gradients of its weight and bias.
type NormBackward = fn(&mut [f32], &mut [f32], &LayerNorm<'_>, &mut [f32], &mut [f32]);

/// One instruction set's primitives; their contracts are those of the functions of [`lanes`] of
/// the same names, and of [`Matmul`]. `peak` repeats the set's multiply-accumulate instruction on
/// registers that many times, without a load, and returns how many multiply-accumulates that were:
/// timed, it is the bound that no product can pass. `quantize` and `attention_weights` write an
/// activation q as the byte q ^ `flip`, which is how the set's `matmul` wants it.
#[expect(missing_docs, reason = "named after what they point to")]
pub struct KernelSet {
    /// How the command and the benchmarks call it.
    pub name: &'static str,
    matmul: fn(Matmul<'_>),
    matmul_int4: Option<fn(Matmul<'_, HalfTile>)>,
    pub gelu: fn(&mut [f32]),
    pub softmax: fn(&mut [f32]),
    pub attention_weights: fn(&mut [f32], &[f32], &mut [i8]) -> RowScale,
    pub add_and_norm: fn(&mut [f32], &[f32], &LayerNorm<'_>),
    pub gelu_backward: fn(&mut [f32], &[f32]),
    pub softmax_backward: fn(&mut [f32], &[f32]),
    pub norm_backward: NormBackward,
    pub dots: fn(&[f32], &[f32], &mut [f32]),
    pub accumulate: fn(Accumulate<'_>),
    pub turn: fn(&[Tile], usize, usize, &mut [Tile]) -> [i32; 16],
    pub unpack: fn(&[HalfTile], usize, usize, &mut [Tile]),
    pub quantize: fn(&[f32], &[f32], &mut [i8]) -> RowScale,
    pub quantize_symmetric: fn(&[f32], &mut [i8]) -> f32,
    pub flip: u8,
    pub peak: fn(usize) -> usize,
}

impl<T> Matmul<'_, T> {
    /// Whether the lengths fit together as the type says, for rows of `depth` · 8 inputs and so many tiles for every
    /// 16 channels. The vector kernels count on it.
    fn has_shape(&self, depth: usize, tiles: usize) -> bool {
        let (n, blocks) = (self.row_scales.len(), self.channels.len());
        tiles * blocks == self.tiles.len()
            && self.rows.len() == n * depth * 8
            && self.out.len() == n * self.width
            && self.width.div_ceil(16) == blocks
            && self.width * depth > 0
    }
}

impl KernelSet {
    /// Computes a product with weights in int4, as far as the set does that without unpacking them first. Gives the
    /// product back where it does not.
    pub(crate) fn matmul_int4<'a>(&self, product: Matmul<'a, HalfTile>) -> Result<(), Matmul<'a, HalfTile>> {
        let Some(matmul_int4) = self.matmul_int4 else { return Err(product) };
        let depth = product.rows.len() / 8 / product.row_scales.len().max(1);
        let consistent = product.has_shape(depth, int4_halves(depth));
        debug_assert!(consistent, "{product:?}");
        if consistent {
            matmul_int4(product);
        }
        Ok(())
    }

    /// Computes the product. One whose lengths do not fit together is left undone.
    pub fn matmul(&self, product: Matmul<'_>) {
        let depth = product.tiles.len() / product.channels.len().max(1);
        let consistent = product.has_shape(depth, depth);
        debug_assert!(consistent, "{product:?}");
        if consistent {
            (self.matmul)(product);
        }
    }

    /// Adds `x` to each row of `out` `[rows, x]`.
    pub fn add(&self, x: &[f32], out: &mut [f32]) {
        let (width, rows) = (x.len(), out.len() / x.len().max(1));
        (self.accumulate)(Accumulate {
            rows,
            depth: 1,
            width,
            factors: &[1.0],
            factor_steps: [0, 0],
            x,
            x_step: 0,
            out,
            out_step: width,
        });
    }

    /// Adds each row of `x` `[n, out]` to `out`.
    pub fn add_rows(&self, x: &[f32], out: &mut [f32]) {
        let width = out.len();
        (self.accumulate)(Accumulate {
            rows: 1,
            depth: x.len() / width.max(1),
            width,
            factors: &[1.0],
            factor_steps: [0, 0],
            x,
            x_step: width,
            out,
            out_step: width,
        });
    }
}

impl core::fmt::Debug for KernelSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every set that this machine can run, the portable one first, the fastest last. With `std` the
/// processor is asked; without, what the crate was compiled for counts: a Cortex-M's `dsp` and `helium`
/// are vouched for by whoever asks for the feature.
pub fn available() -> impl Iterator<Item = &'static KernelSet> {
    let sets = [
        Some(&scalar::KERNELS),
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        avx2::detect(),
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        avx512vnni::detect(),
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        Some(&neon::KERNELS),
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        dotprod::detect(),
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        i8mm::detect(),
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Some(&wasm::KERNELS),
        #[cfg(all(target_arch = "arm", feature = "dsp"))]
        Some(&dsp::KERNELS),
        #[cfg(all(target_arch = "arm", feature = "helium"))]
        Some(&helium::KERNELS),
    ];
    sets.into_iter().flatten()
}

/// The fastest set of this machine. Where a feature vouches for it, the portable one need not take room in a flash.
pub fn best() -> &'static KernelSet {
    #[cfg(all(target_arch = "arm", feature = "helium"))]
    let best = &helium::KERNELS;
    #[cfg(all(target_arch = "arm", feature = "dsp", not(feature = "helium")))]
    let best = &dsp::KERNELS;
    #[cfg(not(all(target_arch = "arm", any(feature = "dsp", feature = "helium"))))]
    let best = available().last().unwrap_or(&scalar::KERNELS);
    best
}

/// Whether the processor has an extension: asked at run time where there is an OS to ask.
#[cfg(target_arch = "aarch64")]
macro_rules! has_arm_feature {
    ($name:tt) => {{
        #[cfg(feature = "std")]
        let has = std::arch::is_aarch64_feature_detected!($name);
        #[cfg(not(feature = "std"))]
        let has = cfg!(target_feature = $name);
        has
    }};
}
#[cfg(target_arch = "aarch64")]
use has_arm_feature;

/// A kernel set: `matmul` and `peak` of the file that asks for it, and the f32 primitives of
/// [`lanes`] over its registers, compiled for the named instructions; or a `quantize` of its own, which then serves
/// attention's weights too, and a `quantize_symmetric`.
macro_rules! kernel_set {
    ($name:literal, $lanes:ty, quantize: $quantize:ident, $symmetric:ident) => {
        kernel_set!(@ $name, $lanes, [], None, $quantize, $symmetric, |scores, value_scales, quantized| {
            (KERNELS.softmax)(scores);
            $quantize(scores, value_scales, quantized)
        });
    };
    ($name:literal, $lanes:ty, $features:literal, int4: $int4:ident) => {
        kernel_set!(@ $name, $lanes, [$features], Some($int4));
    };
    ($name:literal, $lanes:ty $(, $features:literal)?) => {
        kernel_set!(@ $name, $lanes, [$($features)?], None);
    };
    (@ $name:literal, $lanes:ty, [$($features:literal)?], $int4:expr) => {
        kernel_set!(@ $name, $lanes, [$($features)?], $int4, |row, smoothing, quantized| super::compiled!(
            [$($features)?] quantize::<$lanes>(
                row: &[f32], smoothing: &[f32], quantized: &mut [i8]
            ) -> super::RowScale
        ), |row, quantized| super::compiled!(
            [$($features)?] quantize_symmetric::<$lanes>(row: &[f32], quantized: &mut [i8]) -> f32
        ), |scores, value_scales, quantized| super::compiled!(
            [$($features)?] attention_weights::<$lanes>(
                scores: &mut [f32], value_scales: &[f32], quantized: &mut [i8]
            ) -> super::RowScale
        ));
    };
    (@ $name:literal, $lanes:ty, [$($features:literal)?], $int4:expr, $quantize:expr, $symmetric:expr, $attention_weights:expr) => {
        pub(super) static KERNELS: super::KernelSet = super::KernelSet {
            name: $name,
            matmul,
            matmul_int4: $int4,
            gelu: |row| super::compiled!([$($features)?] gelu::<$lanes>(row: &mut [f32])),
            softmax: |row| super::compiled!([$($features)?] softmax::<$lanes>(row: &mut [f32])),
            attention_weights: $attention_weights,
            add_and_norm: |row, y, norm| super::compiled!(
                [$($features)?] add_and_norm::<$lanes>(row: &mut [f32], y: &[f32], norm: &super::LayerNorm<'_>)
            ),
            gelu_backward: |d, x| super::compiled!(
                [$($features)?] gelu_backward::<$lanes>(d: &mut [f32], x: &[f32])
            ),
            softmax_backward: |d, p| super::compiled!(
                [$($features)?] softmax_backward::<$lanes>(d: &mut [f32], p: &[f32])
            ),
            norm_backward: |d, z, norm, dweight, dbias| super::compiled!(
                [$($features)?] norm_backward::<$lanes>(
                    d: &mut [f32], z: &mut [f32], norm: &super::LayerNorm<'_>, dweight: &mut [f32], dbias: &mut [f32]
                )
            ),
            dots: |matrix, x, out| super::compiled!(
                [$($features)?] dots::<$lanes>(matrix: &[f32], x: &[f32], out: &mut [f32])
            ),
            accumulate: |product| super::compiled!(
                [$($features)?] accumulate::<$lanes>(product: super::Accumulate<'_>)
            ),
            turn: |tiles, depth, strip, turned| super::compiled!(
                [$($features)?] turn::<$lanes>(
                    tiles: &[super::Tile], depth: usize, strip: usize, turned: &mut [super::Tile]
                ) -> [i32; 16]
            ),
            unpack: |block, depth, first, tiles| super::compiled!(
                [$($features)?] unpack::<$lanes>(
                    block: &[super::HalfTile], depth: usize, first: usize, tiles: &mut [super::Tile]
                )
            ),
            quantize: $quantize,
            quantize_symmetric: $symmetric,
            flip: <$lanes as super::lanes::Lanes>::FLIP,
            peak,
        };
    };
}
use kernel_set;

/// Calls a function of [`lanes`], compiled for the named instructions.
macro_rules! compiled {
    ([] $name:ident::<$lanes:ty>($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        super::lanes::$name::<$lanes>($($argument),*)
    };
    ([$features:literal] $name:ident::<$lanes:ty>($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {{
        #[target_feature(enable = $features)]
        fn compiled($($argument: $type),*) $(-> $result)? {
            super::lanes::$name::<$lanes>($($argument),*)
        }
        // SAFETY: `detect` saw the instructions before handing this set out.
        unsafe { compiled($($argument),*) }
    }};
}
use compiled;
