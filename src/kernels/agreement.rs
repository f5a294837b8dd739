//! Whether kernel sets give the same bits: every primitive on shapes and values of all kinds.

use super::{Accumulate, KernelSet, LayerNorm, Matmul, RowScale};
use crate::random::Random;
use crate::weights::format::{int4_halves, multiplier_halves};
use crate::weights::{Channels, HalfTile, Tile};

/// Compares `set` with `specification` on `cases` shapes; the first difference, if there is one.
///
/// Rows, channels and depths from one up, multiples of a register and not; values random, all at an
/// end of their range, or zero.
pub fn first_difference(
    set: &'static KernelSet,
    specification: &'static KernelSet,
    cases: usize,
) -> Option<String> {
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    (0..cases).find_map(|case| {
        let shape = Shape {
            rows: 1 + random.below(if case % 50 == 0 { 70 } else { 13 }),
            width: 1 + random.below(70),
            depth: 1 + random.below(match case % 1000 {
                500 => 2100,
                other if other % 50 == 0 => 160,
                _ => 20,
            }),
        };
        let matmul = |precision: &str| {
            let Shape { rows, width, depth } = shape;
            Some(format!("matmul of {rows} × {} with {width} channels{precision}", depth * 8))
        };
        let product = Product::new(&shape, case, &mut random);
        if product.bits(set) != product.bits(specification) {
            return matmul("");
        }
        let int4 = Int4Product::new(product, specification, &mut random);
        if int4.bits(set) != int4.bits(specification) {
            return matmul(" in int4");
        }
        let values = values(1 + random.below(300), case, &mut random);
        let differing = PRIMITIVES
            .iter()
            .find(|primitive| (primitive.bits)(set, &values) != (primitive.bits)(specification, &values));
        differing.map(|primitive| format!("{} of {} values", primitive.name, values.len()))
    })
}

struct Shape {
    rows: usize,
    width: usize,
    depth: usize,
}

struct Product {
    rows: Vec<i8>,
    scales: Vec<RowScale>,
    tiles: Vec<Tile>,
    channels: Vec<Channels>,
    width: usize,
}

impl Product {
    fn new(shape: &Shape, case: usize, random: &mut Random) -> Self {
        let &Shape { rows, width, depth } = shape;
        // Of four cases one has all values at an end of their range, and one has zeros.
        let mut value = |end: i8| match case % 4 {
            0 if case.is_multiple_of(8) => end,
            0 => end.saturating_neg(),
            1 => 0,
            _ => random.next() as i8,
        };
        let blocks = width.div_ceil(16);
        let activations = (0..rows * depth * 8).map(|_| value(-128)).collect();
        let tiles: Vec<Tile> = (0..blocks * depth)
            .map(|_| Tile(core::array::from_fn(|_| core::array::from_fn(|_| value(-127).max(-127)))))
            .collect();
        let channels = tiles.chunks(depth).map(|tiles| Channels {
            scale: core::array::from_fn(|lane| (lane + 1) as f32 * 1.7e-3),
            bias: core::array::from_fn(|lane| lane as f32 - 7.3),
            column_sum: column_sums(tiles),
        });
        let scales = (0..rows).map(|row| RowScale {
            scale: 0.013 * (row + 1) as f32,
            zero_point: (row as i32 * 37) % 256 - 128,
        });
        Self { rows: activations, scales: scales.collect(), channels: channels.collect(), tiles, width }
    }

    fn bits(&self, set: &KernelSet) -> Vec<u32> {
        let rows: Vec<i8> = self.rows.iter().map(|q| q ^ set.flip as i8).collect();
        let mut out = vec![f32::NAN; self.scales.len() * self.width];
        set.matmul(Matmul {
            rows: &rows,
            row_scales: &self.scales,
            tiles: &self.tiles,
            channels: &self.channels,
            out: &mut out,
            width: self.width,
        });
        out.into_iter().map(f32::to_bits).collect()
    }
}

/// The same product with weights in int4.
struct Int4Product {
    product: Product,
    /// `[blocks of 16 channels][int4_halves]`.
    packed: Vec<HalfTile>,
}

impl Int4Product {
    fn new(mut product: Product, specification: &KernelSet, random: &mut Random) -> Self {
        let depth = product.tiles.len() / product.channels.len();
        let mut packed = Vec::new();
        for (channels, tiles) in product.channels.iter_mut().zip(product.tiles.chunks_exact_mut(depth)) {
            let block = int4_block(depth, || random.next() as u8);
            (specification.unpack)(&block, depth, 0, tiles);
            channels.column_sum = column_sums(tiles);
            packed.extend(block);
        }
        Self { product, packed }
    }

    /// As the set does it: at once, or unpacked first.
    fn bits(&self, set: &KernelSet) -> Vec<u32> {
        let product = &self.product;
        let depth = product.tiles.len() / product.channels.len();
        let rows: Vec<i8> = product.rows.iter().map(|q| q ^ set.flip as i8).collect();
        let (row_scales, channels, width) = (&product.scales, &product.channels, product.width);
        let mut out = vec![f32::NAN; row_scales.len() * width];
        let tiles = &self.packed;
        let whole = Matmul { rows: &rows, row_scales, tiles, channels, out: &mut out, width };
        if let Err(Matmul { out, .. }) = set.matmul_int4(whole) {
            let mut tiles = vec![Tile([[0; 8]; 16]); product.tiles.len()];
            let blocks = self.packed.chunks_exact(int4_halves(depth)).zip(tiles.chunks_exact_mut(depth));
            for (block, tiles) in blocks {
                (set.unpack)(block, depth, 0, tiles);
            }
            set.matmul(Matmul { rows: &rows, row_scales, tiles: &tiles, channels, out, width });
        }
        out.into_iter().map(f32::to_bits).collect()
    }
}

fn column_sums(tiles: &[Tile]) -> [i32; 16] {
    core::array::from_fn(|lane| tiles.iter().flat_map(|tile| tile.0[lane]).map(i32::from).sum())
}

/// A block of 16 channels in int4 with those bytes, and multipliers that there are.
fn int4_block(depth: usize, mut byte: impl FnMut() -> u8) -> Vec<HalfTile> {
    let half = |index| {
        let multipliers = index < multiplier_halves(depth);
        HalfTile([[(); 8]; 8].map(|row| row.map(|()| if multipliers { 1 + byte() % 15 } else { byte() })))
    };
    (0..int4_halves(depth)).map(half).collect()
}

/// Values of several magnitudes; of four cases one is all the same, and one zeros.
fn values(length: usize, case: usize, random: &mut Random) -> Vec<f32> {
    let magnitude = [1e-20, 0.01, 1.0, 30.0, 1e6, 1e18][case % 6];
    match case % 4 {
        0 => vec![magnitude; length],
        1 => vec![0.0; length],
        _ => (0..length).map(|_| (random.unit() - 0.5) * magnitude).collect(),
    }
}

/// A primitive and the bits of what it makes of a row.
struct Primitive {
    name: &'static str,
    bits: fn(&KernelSet, &[f32]) -> Vec<u32>,
}

const PRIMITIVES: [Primitive; 14] = [
    GELU,
    GELU_BACKWARD,
    SOFTMAX,
    SOFTMAX_BACKWARD,
    ADD_AND_NORM,
    NORM_BACKWARD,
    QUANTIZE,
    QUANTIZE_SMOOTHED,
    ATTENTION_WEIGHTS,
    QUANTIZE_SYMMETRIC,
    DOTS,
    ACCUMULATE,
    TURN,
    UNPACK,
];

/// Their bits; all that are no number count as one.
fn floats(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { f32::NAN } else { *x }.to_bits()).collect()
}

fn quantised(scale: RowScale, row: &[i8], flip: u8) -> Vec<u32> {
    let row = row.iter().map(|q| (q ^ flip as i8) as u32);
    row.chain([scale.scale.to_bits(), scale.zero_point as u32]).collect()
}

const GELU: Primitive = Primitive {
    name: "gelu",
    bits: |set, x| {
        let mut row = x.to_vec();
        (set.gelu)(&mut row);
        floats(&row)
    },
};

const SOFTMAX: Primitive = Primitive {
    name: "softmax",
    bits: |set, x| {
        let mut row = x.to_vec();
        (set.softmax)(&mut row);
        floats(&row)
    },
};

const ADD_AND_NORM: Primitive = Primitive {
    name: "add_and_norm",
    bits: |set, x| {
        let mut row = x.to_vec();
        let weight: Vec<f32> = x.iter().map(|x| x * 0.3).collect();
        (set.add_and_norm)(&mut row, &weight, &LayerNorm { weight: &weight, bias: x, epsilon: 1e-12 });
        floats(&row)
    },
};

const QUANTIZE: Primitive = Primitive {
    name: "quantize",
    bits: |set, x| {
        let mut row = vec![0; x.len()];
        let scale = (set.quantize)(x, &[], &mut row);
        quantised(scale, &row, set.flip)
    },
};

const QUANTIZE_SMOOTHED: Primitive = Primitive {
    name: "quantize with smoothing",
    bits: |set, x| {
        let mut row = vec![0; x.len()];
        let smoothing: Vec<f32> = (0..x.len()).map(|index| 0.1 + index as f32 * 0.01).collect();
        let scale = (set.quantize)(x, &smoothing, &mut row);
        quantised(scale, &row, set.flip)
    },
};

const ATTENTION_WEIGHTS: Primitive = Primitive {
    name: "attention_weights",
    bits: |set, x| {
        let mut row = vec![0; x.len()];
        let value_scales: Vec<f32> = x.iter().map(|x| x.abs().min(1.0)).collect();
        let scale = (set.attention_weights)(&mut x.to_vec(), &value_scales, &mut row);
        quantised(scale, &row, set.flip)
    },
};

const QUANTIZE_SYMMETRIC: Primitive = Primitive {
    name: "quantize_symmetric",
    bits: |set, x| {
        let mut row = vec![0; x.len()];
        let scale = (set.quantize_symmetric)(x, &mut row);
        quantised(RowScale { scale, zero_point: 0 }, &row, 0)
    },
};

const GELU_BACKWARD: Primitive = Primitive {
    name: "gelu_backward",
    bits: |set, x| {
        let mut row: Vec<f32> = x.iter().map(|x| 1.0 - x).collect();
        (set.gelu_backward)(&mut row, x);
        floats(&row)
    },
};

const SOFTMAX_BACKWARD: Primitive = Primitive {
    name: "softmax_backward",
    bits: |set, x| {
        let mut row: Vec<f32> = x.iter().map(|x| 0.5 - x).collect();
        (set.softmax_backward)(&mut row, x);
        floats(&row)
    },
};

const NORM_BACKWARD: Primitive = Primitive {
    name: "norm_backward",
    bits: |set, x| {
        let weight: Vec<f32> = x.iter().map(|x| x * 0.3 + 1.0).collect();
        let norm = LayerNorm { weight: &weight, bias: x, epsilon: 1e-12 };
        let (mut d, mut z) = (weight.clone(), x.to_vec());
        let (mut dweight, mut dbias) = (x.to_vec(), x.to_vec());
        (set.norm_backward)(&mut d, &mut z, &norm, &mut dweight, &mut dbias);
        [d, z, dweight, dbias].iter().flat_map(|row| floats(row)).collect()
    },
};

/// Five rows that a row makes together with five factors.
fn five_rows(x: &[f32]) -> Vec<f32> {
    (1..=5).flat_map(|row| x.iter().map(move |x| x * row as f32 * 0.7)).collect()
}

const FACTORS: [f32; 5] = [0.3, -1.7, 0.0, 12.5, -0.04];

const DOTS: Primitive = Primitive {
    name: "dots",
    bits: |set, x| {
        let mut out = [0.0; 5];
        (set.dots)(&five_rows(x), x, &mut out);
        floats(&out)
    },
};

/// Six rows of a product, with factors as they stand and on their side.
const ACCUMULATE: Primitive = Primitive {
    name: "accumulate",
    bits: |set, x| {
        let factors: Vec<f32> = (0..30).map(|index| FACTORS[index % 5] * (index as f32 - 11.0)).collect();
        [[5, 1], [1, 6]]
            .into_iter()
            .flat_map(|factor_steps| {
                let mut out: Vec<f32> = (0..6).flat_map(|_| x.iter().map(|x| x - 1.0)).collect();
                (set.accumulate)(Accumulate {
                    rows: 6,
                    depth: 5,
                    width: x.len(),
                    factors: &factors,
                    factor_steps,
                    x: &five_rows(x),
                    x_step: x.len(),
                    out: &mut out,
                    out_step: x.len(),
                });
                floats(&out)
            })
            .collect()
    },
};

/// Tiles of the row's bits, turned.
const TURN: Primitive = Primitive {
    name: "turn",
    bits: |set, x| {
        let bytes: Vec<i8> =
            x.iter().cycle().take(4 * 3 * 32).flat_map(|x| x.to_le_bytes().map(|b| b as i8)).collect();
        let tiles: Vec<Tile> = bytes.as_chunks().0.as_chunks().0.iter().map(|tile| Tile(*tile)).collect();
        let mut turned = vec![Tile([[0; 8]; 16]); 8];
        let sums = [0, 1].map(|strip| (set.turn)(&tiles, 3, strip, &mut turned));
        let bytes = turned.iter().flat_map(|tile| tile.0.as_flattened()).map(|&byte| byte as u32);
        bytes.chain(sums.as_flattened().iter().map(|&sum| sum as u32)).collect()
    },
};

/// A block in int4 with the row's bits, in two parts.
const UNPACK: Primitive = Primitive {
    name: "unpack",
    bits: |set, x| {
        let depth = x.len().div_ceil(8);
        let mut bytes = x.iter().cycle().flat_map(|x| x.to_le_bytes());
        let block = int4_block(depth, || bytes.next().unwrap_or(0));
        let mut tiles = vec![Tile([[0; 8]; 16]); depth];
        let (front, back) = tiles.split_at_mut(depth / 2);
        (set.unpack)(&block, depth, 0, front);
        (set.unpack)(&block, depth, front.len(), back);
        tiles.iter().flat_map(|tile| tile.0.as_flattened()).map(|&byte| byte as u32).collect()
    },
};
