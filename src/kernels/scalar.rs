//! The specification: plain Rust that every other kernel set must equal with `==`.

use super::lanes::Portable;
use super::{Matmul, RowScale, kernel_set};
use crate::rows::Rows;
use crate::weights::Channels;

kernel_set!("scalar", Portable);

/// out\[r\]\[c\] = (Σₖ rows\[r\]\[k\] · tile\[c\]\[k\] − zero_point · column_sum) · (row scale · channel scale) + bias
fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let (blocks, _) = rows.as_chunks::<8>();
    let depth = tiles.len() / channels.len().max(1);
    for ((row, scale), out) in blocks.rows(depth).zip(row_scales).zip(out.rows_mut(width)) {
        let columns = tiles.rows(depth).zip(channels).zip(out.chunks_mut(16));
        for ((tiles, channels), out) in columns {
            let mut sums = [0i32; 16];
            for (activations, tile) in row.iter().zip(tiles) {
                for (sum, weights) in sums.iter_mut().zip(&tile.0) {
                    for (&a, &w) in activations.iter().zip(weights) {
                        *sum += i32::from(a) * i32::from(w);
                    }
                }
            }
            finish(&sums, *scale, channels, out);
        }
    }
}

/// Sums of 16 channels, scaled, with bias; `out` holds the channels that exist, 16 or fewer.
#[inline(always)]
pub(super) fn finish(sums: &[i32; 16], row: RowScale, channels: &Channels, out: &mut [f32]) {
    match out.first_chunk_mut() {
        Some(out) => finish_all(sums, row, channels, out),
        None => {
            let mut values = [0.0; 16];
            finish_all(sums, row, channels, &mut values);
            put_columns(&values, out);
        }
    }
}

#[inline(always)]
fn finish_all(sums: &[i32; 16], row: RowScale, channels: &Channels, out: &mut [f32; 16]) {
    for (c, out) in out.iter_mut().enumerate() {
        let centred = sums[c] - row.zero_point * channels.column_sum[c];
        *out = centred as f32 * (row.scale * channels.scale[c]) + channels.bias[c];
    }
}

/// Writes the values of the channels that exist, 16 or fewer.
#[inline(always)]
pub(super) fn put_columns(values: &[f32; 16], out: &mut [f32]) {
    match out.first_chunk_mut() {
        Some(out) => *out = *values,
        None => {
            for (out, &value) in out.iter_mut().zip(values) {
                *out = value;
            }
        }
    }
}

/// 16 independent sums, so that the compiler may use what vector instructions the target has.
fn peak(rounds: usize) -> usize {
    let (a, b) = core::hint::black_box(([3i8; 16], [5i8; 16]));
    let mut sums = [0i32; 16];
    for _ in 0..rounds {
        for ((sum, &a), &b) in sums.iter_mut().zip(&a).zip(core::hint::black_box(&b)) {
            *sum = sum.wrapping_add(i32::from(a) * i32::from(b));
        }
    }
    core::hint::black_box(sums);
    rounds * 16
}
