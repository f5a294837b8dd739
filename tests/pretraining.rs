//! Runs: resumed to the same losses, over ranks, with every objective, to a model that answers.
#![cfg(all(feature = "train", feature = "cli"))]

mod common;

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::training::{ALONE, corpus, curve, folder, run, train, train_among};
use electret::evaluate::roc_auc;
use electret::import::{Checkpoint, Tensors};
use electret::quantize::quantize;
use electret::train::checkpoint::newest_weights;
use electret::train::corpus::{BuildOptions, Corpus, build};
use electret::train::curve::{COLUMNS, rows};
use electret::train::export::{Which, export};
use electret::train::learner::Precision;
use electret::train::objective::{Kind, Objective};
use electret::train::optimizer::Adam;
use electret::train::ranks::{Pending, Ranks};
use electret::train::run::{Generator, Positions, Run, Shape, Sharing};
use electret::train::start::fresh_weights;
use electret::train::trainer::Order;
use electret::weights::AlignedBytes;
use electret::{HeadKind, Model, Plan, Session, TINY};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[test]
fn a_resumed_run_has_the_losses_of_an_uninterrupted_one() {
    let corpus = corpus("resume-corpus");
    let (whole, parts) = (folder("resume-whole"), folder("resume-parts"));
    let run = run(Kind::Electra);
    train(&run, &corpus, &whole, None).unwrap();
    for stop in [2, 5, 8] {
        train(&run, &corpus, &parts, Some(stop)).unwrap();
    }
    assert_eq!(curve(&whole).len(), 9);
    assert_eq!(curve(&whole), curve(&parts));
    assert_eq!(newest_weights(&whole).unwrap(), newest_weights(&parts).unwrap());

    let other = Run { batch_size: 5, ..run.clone() };
    let message = train(&other, &corpus, &whole, None).unwrap_err().to_string();
    assert!(message.contains("started with other settings (batch_size: 4 there, 5 now)"), "{message}");
    let elsewhere = self::corpus("resume-elsewhere");
    let text = std::fs::read_to_string(elsewhere.join("text.txt")).unwrap();
    std::fs::write(elsewhere.join("text.txt"), text.replace("cat", "cow")).unwrap();
    let (sources, out) = (vec![elsewhere.join("text.txt")], elsewhere.clone());
    build(&BuildOptions { sources, out, vocab: None, vocab_size: 100, sequence: 32, seed: 1 }).unwrap();
    let message = train(&run, &elsewhere, &whole, None).unwrap_err().to_string();
    assert!(message.contains("another corpus"), "{message}");
}

/// The process is killed at twenty random moments, some of them within a checkpoint, and started again.
#[test]
fn a_killed_run_has_the_losses_of_an_uninterrupted_one() {
    let corpus = corpus("killed-corpus");
    let (whole, killed) = (folder("killed-whole"), folder("killed-parts"));
    let pretrain = |out: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_electret"));
        command.arg("pretrain").arg(&corpus).arg("-o").arg(out);
        command.args(["--steps", "200", "--batch-size", "4", "--warmup-steps", "10"]);
        command.args(["--report-every", "1", "--checkpoint-every", "3"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(pretrain(&whole).status().unwrap().success());
    let steps_done = || match std::fs::read_to_string(killed.join("curve.tsv")) {
        Ok(text) => text.lines().last().and_then(|line| line.split('\t').next()?.parse().ok()).unwrap_or(0),
        Err(_) => 0usize,
    };
    let mut random = ChaCha8Rng::seed_from_u64(20);
    for kill in 1..=20 {
        let moment = steps_done() + random.random_range(1..8);
        let mut child = pretrain(&killed).spawn().unwrap();
        while steps_done() < moment {
            assert!(child.try_wait().unwrap().is_none(), "the run ended before kill {kill}");
            std::thread::sleep(Duration::from_millis(random.random_range(1..20)));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(pretrain(&killed).status().unwrap().success());
    assert_eq!(curve(&whole), curve(&killed));
    assert_eq!(newest_weights(&whole).unwrap(), newest_weights(&killed).unwrap());
}

/// What a scheduler sends before it kills, and Ctrl-C: the step that is being done is kept.
#[cfg(unix)]
#[test]
fn a_run_that_is_told_to_stop_keeps_its_last_step() {
    let (corpus, out) = (corpus("told-corpus"), folder("told-run"));
    for signal in ["-TERM", "-INT"] {
        let least = 2 + rows(&out).map_or(0, |rows| rows.len());
        let mut command = Command::new(env!("CARGO_BIN_EXE_electret"));
        command.arg("pretrain").arg(&corpus).arg("-o").arg(&out);
        command.args(["--steps", "100000", "--batch-size", "4", "--report-every", "1"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while rows(&out).map_or(0, |rows| rows.len()) < least {
            assert!(child.try_wait().unwrap().is_none(), "the run ended before {signal}");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Twice, as where a launcher passes on what its processes get by themselves.
        for _ in 0..2 {
            assert!(Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap().success());
        }
        assert!(child.wait().unwrap().success(), "{signal}");
        let last = rows(&out).unwrap().last().unwrap().step;
        assert!(last >= least && newest_weights(&out).unwrap().0 == last, "{signal}: step {last}");
    }
}

#[test]
fn every_objective_and_sharing_trains_and_exports() {
    let corpus = corpus("objectives-corpus");
    let sharings = [Sharing::Embeddings, Sharing::Gdes, Sharing::None, Sharing::All];
    let objectives = [Kind::Electra, Kind::Electra15, Kind::ReplaceMlm, Kind::AllTokensMlm, Kind::Mlm];
    let pairs = objectives.map(|kind| (kind, Sharing::Embeddings)).into_iter();
    let pairs = pairs.chain(sharings.map(|sharing| (Kind::Electra, sharing)));
    let precisions = [Precision::F32, Precision::Bf16];
    for ((kind, sharing), precision) in pairs.flat_map(|pair| precisions.map(|precision| (pair, precision))) {
        let out = folder("objectives-run");
        let size = if sharing == Sharing::All { 1.0 } else { 0.5 };
        let run = Run { generator: Generator { size, sharing }, precision, ..run(kind) };
        train(&run, &corpus, &out, Some(2)).unwrap();
        let exported = folder("objectives-export");
        let discriminator = export(&out, &corpus, Which::Discriminator, &exported);
        if kind.detects() {
            discriminator.unwrap();
            Checkpoint::open(&exported).unwrap();
        } else {
            let message = discriminator.unwrap_err().to_string();
            assert!(message.contains("trains no discriminator"), "{message}");
        }
        export(&out, &corpus, Which::Generator, &exported).unwrap();
        assert_eq!(Checkpoint::open(&exported).unwrap().heads[0].kind, HeadKind::FillMask);
    }
}

/// Half the chosen tokens are replaced by others of the text, special ones and padding never; nothing else changes.
#[test]
fn tokens_that_go_astray_are_words_of_the_text() {
    let (text, out) = (corpus("stray-corpus"), folder("stray"));
    let corpus = Corpus::open(&text).unwrap();
    let plain = Run { batch_size: 64, ..run(Kind::Electra) };
    let stray = Run { objective: Objective { stray_prob: 0.5, ..plain.objective }, ..plain.clone() };
    let [plain_part, part] = [&plain, &stray].map(|run| {
        let mut order = Order::new(corpus.train.len(), run.seed);
        run.draw(&corpus, &mut order, 0).remove(0)
    });
    assert_eq!(plain_part.masked(), part.masked());
    let special = [corpus.special.pad, corpus.special.cls, corpus.special.sep].map(|id| id as i32);
    let (mut chosen, mut astray) = (0, 0);
    for at in 0..part.originals().len() {
        let source = plain_part.source(at);
        if source == part.slots() + at {
            assert_eq!(part.source(at), source);
            continue;
        }
        chosen += 1;
        match part.source(at).checked_sub(part.slots()) {
            Some(other) => {
                astray += 1;
                assert!(!special.contains(&part.originals()[other]));
            }
            None => assert_eq!(part.source(at), source),
        }
    }
    assert!((chosen * 2 / 5..chosen * 3 / 5).contains(&astray), "{astray} of {chosen}");
    train(&stray, &text, &out, Some(2)).unwrap();
    assert!(Run::open(&out).unwrap() == stray);
}

/// What a run says of its shape is what its folder and its exported model have.
#[test]
fn a_shape_of_its_own_is_trained_and_exported() {
    let corpus = corpus("shape-corpus");
    let out = folder("shape-run");
    let shape = Shape { hidden_size: Some(64), num_hidden_layers: Some(2), ..Shape::default() };
    let run = Run { shape, ..run(Kind::Electra) };
    train(&run, &corpus, &out, Some(2)).unwrap();
    assert_eq!(Run::open(&out).unwrap(), run);
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("2 × 64"));
    let exported = folder("shape-export");
    export(&out, &corpus, Which::Discriminator, &exported).unwrap();
    let config = Checkpoint::open(&exported).unwrap().config;
    assert_eq!((config.hidden_size, config.num_hidden_layers, config.embedding_size), (64, 2, 128));
}

/// An encoder that fills masks and judges words is one network both times, down to what no tensor's size tells: its heads.
#[test]
fn one_encoder_has_one_shape() {
    let corpus = corpus("one-shape-corpus");
    let out = folder("one-shape-run");
    let shape = Shape { hidden_size: Some(64), intermediate_size: Some(96), ..Shape::default() };
    let run = Run { generator: Generator { size: 1.0, sharing: Sharing::All }, shape, ..run(Kind::Electra) };
    train(&run, &corpus, &out, Some(2)).unwrap();
    let [judge, filler] = [Which::Discriminator, Which::Generator].map(|which| {
        let exported = folder("one-shape-export");
        export(&out, &corpus, which, &exported).unwrap();
        Checkpoint::open(&exported).unwrap().config
    });
    assert_eq!(judge, filler);
    assert_eq!((judge.num_attention_heads, judge.intermediate_size), (TINY.num_attention_heads, 96));
}

/// A product of two positions' embeddings says how far apart they are, wherever they stand; words are drawn as ever.
#[test]
fn sinusoids_tell_distances() {
    let start = |positions| fresh_weights(&Run { positions, ..run(Kind::Mlm) }, &TINY);
    let table = |tensors: &Tensors, name: &str, rows| {
        let name = format!("electra.embeddings.{name}_embeddings.weight");
        tensors.matrix(&name, [rows, TINY.embedding_size]).unwrap().into_owned()
    };
    let (drawn, waves) = (start(Positions::Random), start(Positions::Sinusoids));
    assert_eq!(table(&drawn, "word", TINY.vocab_size), table(&waves, "word", TINY.vocab_size));
    let waves = table(&waves, "position", TINY.max_position_embeddings);
    let product = |a, b| waves.row(a).dot(&waves.row(b));
    let size = TINY.embedding_size as f32 * 0.12 * 0.12;
    for apart in [0, 1, 5, 60] {
        for start in [0, 1, 40, 63] {
            assert!((product(start, start + apart) - product(0, apart)).abs() < 1e-4 * size);
        }
    }
    assert!((product(0, 0) - size).abs() < 1e-5 * size);
    assert!(product(0, 1) < 0.99 * size && product(0, 5) < 0.9 * product(0, 1));
}

/// Parts of a batch whose gradients are summed are the batch.
#[test]
fn a_batch_in_parts_has_the_gradient_of_the_whole() {
    let corpus = corpus("parts-corpus");
    let losses = |micro_batch| {
        let out = folder("parts-run");
        let run = Run { dropout: 0.0, micro_batch: Some(micro_batch), ..run(Kind::Electra) };
        train(&run, &corpus, &out, None).unwrap();
        rows(&out).unwrap()
    };
    for (whole, parts) in losses(4).iter().zip(losses(2)) {
        for (name, (a, b)) in COLUMNS[1..=3].iter().zip(whole.values.iter().zip(parts.values)) {
            assert!((a - b).abs() <= 2e-4 * a.abs(), "step {}: {name} {a} and {b}", whole.step);
        }
    }
}

/// Ranks that are threads of one process.
struct Threads {
    rank: usize,
    size: usize,
    /// How many sums this rank has begun.
    begun: Cell<usize>,
    sums: Arc<(Mutex<Vec<Sum>>, Condvar)>,
}

/// What so many ranks' values add up to.
type Sum = (Vec<f32>, usize);

impl Ranks for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn begin(&self, values: Vec<f32>) -> Pending {
        let (turn, size, sums) = (self.begun.get(), self.size, Arc::clone(&self.sums));
        self.begun.set(turn + 1);
        let mut all = sums.0.lock().unwrap();
        match all.get_mut(turn) {
            None => all.push((values, 1)),
            Some((sum, ranks)) => {
                assert_eq!(sum.len(), values.len());
                sum.iter_mut().zip(values).for_each(|(sum, own)| *sum += own);
                *ranks += 1;
            }
        }
        sums.1.notify_all();
        drop(all);
        Box::new(move || {
            let (all, patience) = (sums.0.lock().unwrap(), Duration::from_secs(60));
            let (all, waited) = sums.1.wait_timeout_while(all, patience, |all| all[turn].1 < size).unwrap();
            assert!(!waited.timed_out(), "sum {turn}: another rank has left");
            all[turn].0.clone()
        })
    }
}

/// What both of two ranks return.
fn on_two_ranks<T: Send>(each: impl Fn(&Threads) -> T + Sync) -> [T; 2] {
    let _alone = ALONE.lock();
    let sums = Arc::default();
    std::thread::scope(|scope| {
        let ranks = [0, 1].map(|rank| {
            let ranks = Threads { rank, size: 2, begun: Cell::new(0), sums: Arc::clone(&sums) };
            let each = &each;
            scope.spawn(move || each(&ranks))
        });
        ranks.map(|rank| rank.join().unwrap())
    })
}

/// Ranks sum the gradients of each layer while they compute those of the one below, and have the losses of a process
/// that is alone.
#[test]
fn ranks_have_the_losses_of_one_process() {
    let corpus = corpus("ranks-corpus");
    let (alone, shared) = (folder("ranks-one"), folder("ranks-two"));
    let kinds = [Kind::Electra, Kind::ReplaceMlm, Kind::AllTokensMlm, Kind::Mlm];
    let sharings = [Sharing::Gdes, Sharing::None, Sharing::All];
    let pairs = kinds.map(|kind| (kind, Sharing::Embeddings)).into_iter();
    for (kind, sharing) in pairs.chain(sharings.map(|sharing| (Kind::Electra, sharing))) {
        let size = if sharing == Sharing::All { 1.0 } else { 0.5 };
        // Two parts of a batch for each rank, or one for the second.
        let batch_size = if sharing == Sharing::Gdes { 3 } else { 4 };
        let generator = Generator { size, sharing };
        let run = Run { steps: 5, batch_size, dropout: 0.0, micro_batch: Some(1), generator, ..run(kind) };
        let [alone, shared] = [&alone, &shared].map(|place| place.join(format!("{kind:?}-{sharing:?}")));
        train(&run, &corpus, &alone, None).unwrap();
        let begun = on_two_ranks(|ranks| {
            train_among(ranks, &run, &corpus, &shared, None, false).unwrap();
            ranks.begun.get()
        });
        assert!(begun[0] == begun[1] && begun[0] > run.steps * TINY.num_hidden_layers, "{begun:?}");
        let (alone, shared) = (rows(&alone).unwrap(), rows(&shared).unwrap());
        assert_eq!((alone.len(), shared.len()), (run.steps, run.steps));
        for (one, two) in alone.iter().zip(&shared) {
            for (name, (a, b)) in COLUMNS[1..=2].iter().zip(one.values.iter().zip(two.values)) {
                let close = (a - b).abs() <= 1e-5 * a.abs() || (a.is_nan() && b.is_nan());
                assert!(close, "{kind:?}, {sharing:?}, step {}: {name} {a} and {b}", one.step);
            }
        }
    }
}

/// One rank that is told to stop takes the other with it, after the same step; ranks that would not stop together do not
/// begin.
#[test]
fn ranks_stop_together() {
    let corpus = corpus("stopping-corpus");
    let out = folder("stopping-run");
    let run = Run { micro_batch: Some(1), ..run(Kind::Electra) };
    let stopped =
        on_two_ranks(|ranks| train_among(ranks, &run, &corpus, &out, None, ranks.rank == 1).unwrap());
    assert_eq!((stopped, newest_weights(&out).unwrap().0), ([1, 1], 1));
    let refused = on_two_ranks(|ranks| {
        train_among(ranks, &run, &corpus, &out, Some(3 + ranks.rank), false).unwrap_err().to_string()
    });
    assert!(refused.iter().all(|message| message.contains("the ranks do not agree")), "{refused:?}");
}

/// Products in bf16 move a loss by their rounding and no more; what is kept stays f32.
#[test]
fn bf16_has_the_losses_of_f32_to_its_rounding() {
    let corpus = corpus("bf16-corpus");
    let losses = |precision| {
        let out = folder("bf16-run");
        let run = Run { dropout: 0.0, precision, ..run(Kind::Mlm) };
        train(&run, &corpus, &out, None).unwrap();
        (rows(&out).unwrap(), newest_weights(&out).unwrap().1)
    };
    let (full, _) = losses(Precision::F32);
    let (low, weights) = losses(Precision::Bf16);
    for (full, low) in full.iter().zip(&low) {
        let (full, low, step) = (full.values[0], low.values[0], full.step);
        assert!(
            full != low && (full - low).abs() <= 2e-3 * full,
            "step {step}: {full} in f32, {low} in bf16"
        );
    }
    let query = "electra.encoder.layer.0.attention.self.query.weight";
    let (_, query) = weights.iter().find(|(name, _)| *name == query).unwrap();
    assert!(query.iter().any(|&value| half::bf16::from_f32(value).to_f32() != value));
}

/// A hundred steps, with all that was drawn for them, for `tests/pytorch/pretraining.py` to do again.
#[test]
fn a_hundred_steps_to_compare_with_pytorch() {
    let Some(out) = std::env::var_os("ELECTRET_PYTORCH").map(PathBuf::from) else {
        println!("SKIPPED: ELECTRET_PYTORCH names no folder; see tests/pytorch/pretraining.py");
        return;
    };
    let corpus = match std::env::var_os("ELECTRET_CORPUS") {
        Some(corpus) => PathBuf::from(corpus),
        None => corpus("pytorch-corpus"),
    };
    let preset = std::env::var("ELECTRET_PRESET").unwrap_or("tiny".to_owned());
    let recipe = Run::preset(&preset, Kind::Electra).unwrap();
    let adam = Adam { warmup_steps: 10, ..recipe.adam };
    let run = Run { steps: 100, batch_size: 8, dropout: 0.0, adam, ..recipe };
    let _ = std::fs::remove_dir_all(&out);
    train(&run, &corpus, &out, Some(0)).unwrap();
    newest_weights(&out).unwrap().1.write(&out.join("initial.safetensors")).unwrap();
    let opened = Corpus::open(&corpus).unwrap();
    let (mut order, mut drawn) = (Order::new(opened.train.len(), run.seed), Tensors::default());
    for step in 0..run.steps {
        let part = run.draw(&opened, &mut order, step).remove(0);
        let shape = [part.size(), part.sequence()];
        let mut keep = |name: &str, shape: &[usize], values: Vec<f32>| {
            drawn.insert(&format!("{step:03}.{name}"), shape, values);
        };
        let floats = |ids: &[i32]| ids.iter().map(|&id| id as f32).collect::<Vec<_>>();
        keep("original", &shape, floats(part.originals()));
        keep("masked", &shape, floats(part.masked()));
        keep("types", &shape, floats(part.types()));
        let padding = (0..shape[0] * shape[1]).map(|at| f32::from(u8::from(part.is_padding(at))));
        keep("padding", &shape, padding.collect());
        keep("chosen", &[part.chosen().len()], floats(part.chosen()));
        keep("uniform", &[part.uniform().len()], part.uniform().to_vec());
    }
    drawn.write(&out.join("drawn.safetensors")).unwrap();
    train(&run, &corpus, &out, None).unwrap();
}

#[test]
fn every_preset_can_be_used() {
    for preset in ["nano", "tiny", "small", "base", "large"] {
        let table = format!("preset = {preset:?}").parse().unwrap();
        assert_eq!(Run::assemble(None, table).unwrap(), Run::preset(preset, Kind::Electra).unwrap());
    }
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let refused = |text: &str| {
        let table = text.parse().unwrap();
        format!("{:#}", Run::assemble(None, table).unwrap_err())
    };
    for (text, named) in [
        ("adam.lerning_rate = 1.0", "lerning_rate"),
        ("steps = 0", "steps"),
        ("preset = \"huge\"", "huge"),
        ("micro_batch = 5", "micro_batch"),
        ("dropout = 1.0", "dropout"),
        ("objective.kind = \"bert\"", "objective.kind"),
        ("objective.mask_prob = -0.1", "objective.mask_prob"),
        ("objective.stray_prob = 1.0", "objective.stray_prob"),
        ("generator.sharing = \"all\"", "generator.size"),
        ("adam.epsilon = 0.0", "adam.epsilon"),
        ("positions = \"waves\"", "positions"),
        ("shape.width = 64", "width"),
        ("shape.num_hidden_layers = 0", "shape.num_hidden_layers"),
        ("shape.hidden_size = 16385", "shape.hidden_size"),
        ("shape.num_attention_heads = 3", "shape.num_attention_heads"),
        ("preset = \"small\"\nshape.hidden_size = 1024\nshape.num_attention_heads = 2", "256 wide"),
    ] {
        let message = refused(text);
        assert!(message.contains(named), "{text}: {message}");
    }
}

#[test]
fn a_run_becomes_a_model_that_answers() {
    let corpus = corpus("export-corpus");
    let warm = folder("export-warm");
    train(&run(Kind::Mlm), &corpus, &warm, None).unwrap();
    let joint = folder("export-joint");
    let run = Run { init_from: Some(warm), ..run(Kind::Electra) };
    train(&run, &corpus, &joint, None).unwrap();
    for (which, kind) in [(Which::Discriminator, HeadKind::Detect), (Which::Generator, HeadKind::FillMask)] {
        let out = folder(&format!("exported/{which:?}").to_lowercase());
        assert_eq!(export(&joint, &corpus, which, &out).unwrap(), 8);
        let checkpoint = Checkpoint::open(&out).unwrap();
        assert_eq!(checkpoint.config.max_position_embeddings, 32);
        assert_eq!(checkpoint.heads.len(), 1);
        common::write_logits(&checkpoint, &out);
        let file = AlignedBytes::copy_of(&quantize(&checkpoint, "test", "none").unwrap());
        let model = Model::open(file.as_slice()).unwrap();
        model.head(kind).unwrap();
        let mut arena = AlignedBytes::zeroed(Plan::inference(model.config(), 32).bytes());
        let mut session = Session::new(model, arena.as_mut_slice(), 32).unwrap();
        assert!(session.encode("The cat sees a ball.".into()).unwrap().0.len() >= 7);
    }
}

#[test]
fn a_run_has_one_process_at_a_time_and_outlives_damage() {
    let corpus = corpus("damage-corpus");
    let (whole, damaged) = (folder("damage-whole"), folder("damage-parts"));
    let run = run(Kind::Electra);
    train(&run, &corpus, &whole, None).unwrap();
    train(&run, &corpus, &damaged, Some(7)).unwrap();

    let elsewhere = File::create(damaged.join("run.lock")).unwrap();
    elsewhere.lock().unwrap();
    let message = train(&run, &corpus, &damaged, None).unwrap_err().to_string();
    assert!(message.contains("another process is training this run"), "{message}");
    drop(elsewhere);

    let newest = damaged.join("step-00000007.safetensors");
    std::fs::OpenOptions::new().write(true).open(&newest).unwrap().set_len(1000).unwrap();
    let message = format!("{:#}", train(&run, &corpus, &damaged, None).unwrap_err());
    assert!(message.contains("once it is removed the run goes on from step 6"), "{message}");
    std::fs::remove_file(newest).unwrap();

    let lines = std::fs::read(damaged.join("curve.tsv")).unwrap();
    let mut lines: Vec<&[u8]> = lines.split_inclusive(|&byte| byte == b'\n').collect();
    lines[5] = b"\0\0\0\0\xff\n";
    std::fs::write(damaged.join("curve.tsv"), lines.concat()).unwrap();
    train(&run, &corpus, &damaged, None).unwrap();
    let (whole_curve, curve) = (self::curve(&whole), self::curve(&damaged));
    assert_eq!(curve, [&whole_curve[..5], &whole_curve[7..]].concat());
    assert_eq!(newest_weights(&whole).unwrap(), newest_weights(&damaged).unwrap());
}

#[test]
fn area_under_the_curve() {
    let scores = [0.1, 0.4, 0.35, 0.8];
    assert_eq!(roc_auc(&scores, &[false, false, true, true]), Some(0.75));
    assert_eq!(roc_auc(&[1.0, 1.0], &[true, false]), Some(0.5));
    assert_eq!(roc_auc(&[1.0], &[true]), None);
}
