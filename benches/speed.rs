//! What `cargo bench` watches from change to change: the primitives on ELECTRA-small's shapes, and whole
//! sentences. `electret bench` prints the same as shares of this machine's peak.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use electret::import::Checkpoint;
use electret::kernels::{self, LayerNorm, Matmul, RowScale};
use electret::quantize::quantize;
use electret::text::Token;
use electret::weights::{AlignedBytes, Channels, Tile};
use electret::{HeadKind, Model, Plan, SMALL, Session};

fn matmul(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("matmul");
    for (n, inputs, outputs) in
        [(1, 256, 1024), (8, 256, 1024), (128, 256, 1024), (128, 1024, 256), (128, 64, 128)]
    {
        let rows = vec![7_i8; n * inputs];
        let scales = vec![RowScale { scale: 0.01, zero_point: 3 }; n];
        let tiles = vec![Tile([[3; 8]; 16]); outputs / 16 * inputs / 8];
        let channels =
            vec![Channels { scale: [0.1; 16], bias: [1.0; 16], column_sum: [9; 16] }; outputs / 16];
        let mut out = vec![0.0; n * outputs];
        group.throughput(Throughput::Elements((n * inputs * outputs) as u64));
        for set in kernels::available() {
            let id = BenchmarkId::new(set.name, format!("{n}x{inputs}->{outputs}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    set.matmul(black_box(Matmul {
                        rows: &rows,
                        row_scales: &scales,
                        tiles: &tiles,
                        channels: &channels,
                        out: &mut out,
                        width: outputs,
                    }));
                });
            });
        }
    }
}

fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    let x: Vec<f32> = (0..1024).map(|i| ((i * 37 % 251) as f32 - 125.0) * 0.02).collect();
    let (weight, bias) = (vec![1.0; 256], vec![0.0; 256]);
    let norm = LayerNorm { weight: &weight, bias: &bias, epsilon: 1e-12 };
    let (mut y, mut q) = (x.clone(), vec![0; 1024]);
    for set in kernels::available() {
        group.bench_function(BenchmarkId::new("gelu 1024", set.name), |bencher| {
            bencher.iter(|| {
                y.copy_from_slice(&x);
                (set.gelu)(black_box(&mut y));
            });
        });
        group.bench_function(BenchmarkId::new("attention_weights 128", set.name), |bencher| {
            bencher.iter(|| {
                y.copy_from_slice(&x);
                (set.attention_weights)(black_box(&mut y[..128]), &weight[..128], &mut q[..128])
            });
        });
        group.bench_function(BenchmarkId::new("add_and_norm 256", set.name), |bencher| {
            bencher.iter(|| (set.add_and_norm)(black_box(&mut y[..256]), &x[..256], &norm));
        });
        group.bench_function(BenchmarkId::new("quantize 1024", set.name), |bencher| {
            bencher.iter(|| (set.quantize)(black_box(&x), &[], &mut q));
        });
    }
}

fn sentence(criterion: &mut Criterion) {
    let file =
        quantize(&Checkpoint::random("small", SMALL, 1), "random weights", "none").expect("finite weights");
    let file = AlignedBytes::copy_of(&file);
    let model = Model::open(file.as_slice()).expect("a model");
    let mut group = criterion.benchmark_group("ELECTRA-small");
    for tokens in [8, 32, 128] {
        let plan = Plan::with_block_rows(&SMALL, tokens, 32);
        let mut arena = AlignedBytes::zeroed(plan.bytes());
        let mut session =
            Session::with(model, arena.as_mut_slice(), plan, kernels::best()).expect("a session");
        let sequence = vec![Token::default(); tokens];
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(BenchmarkId::from_parameter(tokens), |bencher| {
            bencher.iter(|| session.token_logits_of(HeadKind::Detect, black_box(&sequence)).is_ok());
        });
    }
}

criterion_group!(benches, matmul, rows, sentence);
criterion_main!(benches);
