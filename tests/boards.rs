//! Emulated boards, built and run: the bits of this computer, lessons that outlive a loss of power at any moment,
//! and updates that happen whole or not at all.
//!
//! A board whose target or whose QEMU is missing here is skipped, and the test says so.

mod common;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::golden::Golden;
use ed25519_dalek::{Signer, SigningKey};
use electret::board::{
    Answers, BOARDS, Board, BoardReader, Client, Clock, Emulator, Failure, Firmware, build, compile, flash,
    update,
};
use electret::evaluate::{LabelNames, Labelled, score};
use electret::import::Checkpoint;
use electret::link::{Answer, Command, Install, Lesson, Truth, checksum};
use electret::quantize::{Recipe, quantize, quantize_by};
use electret::tune::Target;
use electret::weights::AlignedBytes;
use electret::{HeadKind, Model, Plan, Session};

const MODEL: &[u8] = include_bytes!("../models/electret-tiny.electret");
const LEARNER: &str = "qemu-mps3-an547";
/// A board with an operating system.
const LINUX: &str = "raspberry-pi";
/// How often the power is cut.
const CUTS: u32 = 50;

/// Firmware is built one at a time, and each test copies its own.
static BUILDING: Mutex<()> = Mutex::new(());

/// A board's firmware in a folder of its own; `None` if it cannot be built or run here.
fn firmware(board: &Board, name: &str, key: Option<&str>) -> Option<(Firmware, PathBuf)> {
    let machine = board.machine().ok()?;
    if Process::new(machine.program).arg("--version").output().is_err() {
        println!("SKIPPED: {}: no {} here", board.name, machine.program);
        return None;
    }
    let _one = BUILDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let firmware = match build(board, Path::new("boards"), key) {
        Ok(firmware) => firmware,
        Err(error) if error.to_string().contains("no toolchain") => {
            println!("SKIPPED: {}: {error}", board.name);
            return None;
        }
        Err(error) => panic!("{}: {error:#}", board.name),
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boards").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("firmware");
    std::fs::copy(&firmware.path, &path).unwrap();
    Some((Firmware { path, ..firmware }, folder))
}

fn start(board: &Board, firmware: &Firmware, folder: &Path, model: Option<&[u8]>) -> (Emulator, Client) {
    Emulator::start(board, &firmware.path, folder, model, Clock::Time).unwrap()
}

fn logits(answers: &Answers) -> Vec<(u32, u32, u32)> {
    let tokens = answers.iter().filter_map(|answer| match answer {
        Answer::Token { start, end, logit } => Some((start, end, logit.to_bits())),
        _ => None,
    });
    tokens.collect()
}

/// Bits of the labels' probabilities.
fn scores(client: &mut Client, text: &str) -> Vec<u32> {
    bits(&client.ask(Command::Classify(text)).unwrap())
}

/// Bits of all labels' probabilities and tokens' logits.
fn bits(answers: &Answers) -> Vec<u32> {
    let values = answers.iter().filter_map(|answer| match answer {
        Answer::Label { score, .. } => Some(score.to_bits()),
        Answer::Token { logit, .. } => Some(logit.to_bits()),
        _ => None,
    });
    values.collect()
}

fn active(client: &mut Client) -> Option<u8> {
    client.ask(Command::Info).unwrap().board().unwrap().adapter
}

fn electret_tiny_in_int4(name: &str) -> Vec<u8> {
    let int8 = AlignedBytes::copy_of(MODEL);
    let mut checkpoint = Checkpoint::of_model(&Model::open(int8.as_slice()).unwrap(), None);
    checkpoint.name = name.to_owned();
    quantize_by(&checkpoint, "electret-tiny", "none", &Recipe::all_int4(&checkpoint)).unwrap()
}

#[test]
fn every_emulated_board_gives_the_bits_of_this_computer() {
    let int8 = AlignedBytes::copy_of(MODEL);
    let int4 = AlignedBytes::copy_of(&electret_tiny_in_int4("electret-tiny"));
    for board in BOARDS {
        let Some((firmware, folder)) = firmware(board, board.name, None) else { continue };
        for (name, file) in [("int8", int8.as_slice()), ("int4", int4.as_slice())] {
            let model = Model::open(file).unwrap();
            let plan = Plan::inference(model.config(), 64).for_model(&model);
            let mut arena = AlignedBytes::zeroed(plan.bytes());
            let (_emulator, mut client) = start(board, &firmware, &folder, Some(file));
            assert_eq!(client.ask(Command::SelfTest).unwrap().figure("same bits").unwrap(), 1);
            for text in ["The cat sat on the banana and purred.", "naïve café, Zürich!", "ok"] {
                let mut session = Session::new(model, arena.as_mut_slice(), 64).unwrap();
                let found = session.token_logits(HeadKind::Detect, text.into()).unwrap();
                let here = found.tokens.iter().zip(found.logits).filter(|(token, _)| token.special == 0);
                let here: Vec<_> = here.map(|(token, x)| (token.start, token.end, x.to_bits())).collect();
                let there = logits(&client.ask(Command::Detect(text)).unwrap());
                assert_eq!(there, here, "{}, {name}: {text}", board.name);
            }
            let refused = client.ask(Command::Classify("no head for it"));
            assert!(matches!(refused, Err(Failure::Refused(_))), "{refused:?}");
            let empty = client.ask(Command::Detect(" "));
            assert!(matches!(empty, Err(Failure::EmptyText)), "{empty:?}");
            println!("{}: the bits of this computer in {name}", board.name);
        }
    }
}

/// The TINY board keeps to what it has: code and model in 3 MB, buffers and stack in 128 KiB.
#[test]
fn tiny_fits_a_small_board() {
    let board = Board::find("qemu-mps2-an386").unwrap();
    let Some((firmware, folder)) = firmware(board, "small", None) else { return };
    let (_emulator, mut client) = start(board, &firmware, &folder, Some(MODEL));
    client.ask(Command::SelfTest).unwrap();
    let stack = client.ask(Command::Plan).unwrap().figure("stack, deepest").unwrap();
    let (flash, ram) = (firmware.flash + MODEL.len() as u64, firmware.ram + stack);
    println!("{}: code and model {flash} bytes, buffers and stack {ram} bytes", board.name);
    assert!(flash <= 3_000_000);
    assert!(ram <= 128 << 10);
}

/// Inference firmware whose panic handler does not exist: it links, and gives the bits of the model's self-test. With a
/// panic in it, it does not link. One that digs deeper than its stack is ended there, and nothing lies below to be harmed.
#[test]
fn inference_cannot_panic() {
    let board = Board::find("qemu-mps2-an500").unwrap();
    let Some((_, folder)) = firmware(board, "inference", None) else { return };
    let _one = BUILDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let inference = |more: &[&str]| compile(board, Path::new("boards"), "inference", None, more);
    let path = inference(&[]).unwrap();
    std::fs::write(folder.join("model"), MODEL).unwrap();
    let run = |path: &Path| {
        let mut qemu = Process::new("qemu-system-arm");
        qemu.args(["-M", "mps2-an500", "-display", "none", "-monitor", "none", "-serial", "none"]);
        qemu.args(["-semihosting-config", "enable=on,target=native"]);
        qemu.args(["-device", "loader,file=model,addr=0x60000000,force-raw=on", "-kernel"]);
        qemu.arg(path.canonicalize().unwrap()).current_dir(&folder).output().unwrap()
    };
    assert!(run(&path).status.success());
    assert!(inference(&["--features", "panic"]).is_err());
    let ended = run(&inference(&["--features", "overflow"]).unwrap());
    assert!(!ended.status.success(), "{ended:?}");
}

/// Messages with their labels: (text, 0 or 1), and the labels' names.
fn messages() -> (Vec<(String, u16)>, String) {
    let path = match std::env::var_os("ELECTRET_SHARED") {
        Some(root) => PathBuf::from(root).join("data/tasks/sms_spam/all.tsv"),
        None => {
            println!("ELECTRET_SHARED is not set: the messages of examples/data");
            PathBuf::from("examples/data/messages.tsv")
        }
    };
    let Labelled { labels, examples, .. } = Labelled::read(&path, LabelNames::OfFile).unwrap();
    let mut seen = HashSet::new();
    let examples = examples.iter().filter_map(|example| {
        let text = example.input().text;
        let Target::Class(label) = example.target() else { return None };
        (text.len() < 900 && seen.insert(text)).then(|| (text.to_owned(), label as u16))
    });
    let mut all: Vec<_> = examples.collect();
    // An order that does not depend on the file's.
    all.sort_by_key(|(text, _)| {
        text.bytes().fold(7_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    });
    (all, labels.join("\n"))
}

fn right(client: &mut Client, examples: &[(String, u16)]) -> usize {
    let right = |(text, label): &&(String, u16)| match client.ask(Command::Classify(text)) {
        Ok(answers) => {
            let scores = answers.iter().filter_map(|answer| match answer {
                Answer::Label { score, .. } => Some(score),
                _ => None,
            });
            let best = scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(label, _)| label);
            best == Some(usize::from(*label))
        }
        // Longer than the board's sequences, or nothing in it: nobody's fault, and nobody's point.
        Err(Failure::Refused(_) | Failure::EmptyText) => false,
        Err(failure) => panic!("{failure}"),
    };
    examples.iter().filter(right).count()
}

fn teach(client: &mut Client, labels: &str) {
    let lesson = Lesson::Classify;
    client.ask(Command::Teach { lesson, labels, strategy: "head+lora:4:2", learning_rate: 2e-3 }).unwrap();
}

fn learn(client: &mut Client, examples: &[(String, u16)]) {
    for batch in examples.chunks(4) {
        for (text, label) in batch {
            client.ask(Command::Learn { text, truth: Truth::Class(*label) }).unwrap();
        }
        client.ask(Command::Step).unwrap();
    }
}

// Emulating a vector unit is slow: this one begins first, by its name, and unless ELECTRET_PATIENT is set it passes
// twice, asks fewer messages and cuts the power less often.
#[test]
fn a_lesson_outlives_the_power() {
    let patient = std::env::var_os("ELECTRET_PATIENT").is_some();
    let (passes, questions, cuts) = if patient { (4, 200, CUTS) } else { (2, 60, 10) };
    learns_and_loses_power(LEARNER, passes, questions, cuts);
}

#[test]
fn a_lesson_outlives_the_power_under_linux() {
    learns_and_loses_power(LINUX, 4, 200, CUTS);
}

fn learns_and_loses_power(name: &str, passes: usize, questions: usize, cuts: u32) {
    let board = Board::find(name).unwrap();
    let Some((firmware, folder)) = firmware(board, &format!("learning-{name}"), None) else { return };
    let (messages, labels) = messages();
    let (lessons, unseen) = messages.split_at(messages.len().min(260) * 3 / 13);
    let unseen = &unseen[..unseen.len().min(questions)];
    let (mut emulator, mut client) = start(board, &firmware, &folder, Some(MODEL));

    teach(&mut client, &labels);
    let before = right(&mut client, unseen);
    // Few lessons are learned more often.
    let few = lessons.len() < 60;
    for _ in 0..if few { 4 * passes } else { passes } {
        learn(&mut client, lessons);
    }
    let probe = &unseen.iter().min_by_key(|(text, _)| text.len()).unwrap().0;
    let taught = scores(&mut client, probe);
    client.ask(Command::Commit { adapter: 0 }).unwrap();
    drop(client);
    emulator.kill();

    let (mut emulator, mut client) = start(board, &firmware, &folder, None);
    assert_eq!(active(&mut client), Some(0));
    let after = right(&mut client, unseen);
    println!(
        "{name}: {} messages learned: right of {} others: {before} before, {after} afterwards, after a reset",
        lessons.len(),
        unseen.len()
    );
    assert_eq!(scores(&mut client, probe), taught);
    if few {
        // They tell little of other messages, but they are known by now.
        let known = right(&mut client, lessons);
        assert!(known * 4 > lessons.len() * 3, "{known} of {} lessons", lessons.len());
    } else {
        assert!(after > before);
    }

    // How long a commit takes, to cut it short.
    teach(&mut client, &labels);
    learn(&mut client, &lessons[..4]);
    let begin = Instant::now();
    client.ask(Command::Commit { adapter: 0 }).unwrap();
    let duration = begin.elapsed();
    println!("{name}: a commit takes {duration:?}");
    let plan = client.ask(Command::Plan).unwrap();
    if let Ok(room) = plan.figure("stack, at hand") {
        let deepest = plan.figure("stack, deepest").unwrap();
        println!("{name}: learning and keeping it took {deepest} of {room} bytes of stack");
        assert!(deepest < room / 4 * 3, "a quarter of the stack is to be left");
    }
    let mut old = scores(&mut client, probe);

    // The evaluation harness sees the board as this test does.
    let some = &unseen[..unseen.len().min(15)];
    let right = right(&mut client, some);
    let names: Vec<String> = labels.lines().map(str::to_owned).collect();
    let lines = some.iter().map(|(text, label)| format!("{}\t{text}\n", names[usize::from(*label)]));
    let file = folder.join("unseen.tsv");
    std::fs::write(&file, format!("label\ttext\n{}", lines.collect::<String>())).unwrap();
    let data = Labelled::read(&file, LabelNames::First(names)).unwrap();
    let mut reader = BoardReader::new(client).unwrap();
    let accuracy = score(&mut reader, &data).unwrap().remove(0);
    assert_eq!((accuracy.metric, accuracy.n), ("accuracy", some.len()));
    assert_eq!((accuracy.value * some.len() as f64).round() as usize, right);
    drop(reader);
    emulator.kill();

    let (mut kept, mut replaced) = (0, 0);
    let mut random = 0x2545_f491_u32;
    let mut short = lessons.to_vec();
    short.sort_by_key(|(text, _)| text.len());
    short.truncate(20);
    for cut in 0..cuts {
        let (mut emulator, mut client) = start(board, &firmware, &folder, None);
        assert_eq!(scores(&mut client, probe), old, "cut {cut}");
        teach(&mut client, &labels);
        let lesson = cut as usize % short.len();
        learn(&mut client, &short[lesson..=lesson]);
        let new = scores(&mut client, probe);
        assert_ne!(new, old, "cut {cut}");
        random = random.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let moment = duration.mul_f64(f64::from(random >> 8) / f64::from(1 << 24) * 3.0);
        let power = std::thread::spawn(move || {
            std::thread::sleep(moment);
            emulator.kill();
        });
        let _ = client.ask(Command::Commit { adapter: 0 });
        power.join().unwrap();

        let (mut emulator, mut client) = start(board, &firmware, &folder, None);
        assert_eq!(active(&mut client), Some(0), "cut {cut}");
        let found = scores(&mut client, probe);
        assert!(found == old || found == new, "cut {cut}: neither the old adapter nor the new one");
        if found == old {
            kept += 1
        } else {
            replaced += 1
        }
        old = found;
        emulator.kill();
    }
    println!(
        "{name}: {cuts} commits cut short within {duration:?}: {kept} times the old adapter, {replaced} times the new"
    );
}

#[test]
fn an_update_happens_whole_or_not_at_all() {
    // A small one: the board takes 30 ms for half a KiB.
    let other = quantize(&Golden::open().checkpoint(Some("seqcls")), "another", "none").unwrap();
    updates_and_loses_power(LEARNER, &other, Command::Classify("a b c"), Duration::from_millis(30));
}

#[test]
fn an_update_happens_whole_or_not_at_all_under_linux() {
    let other = electret_tiny_in_int4("another");
    updates_and_loses_power(LINUX, &other, Command::Detect("a b c"), Duration::from_millis(1));
}

/// `asks` is what the other model is asked once it runs, `piece` how long 512 bytes may take.
fn updates_and_loses_power(name: &str, other: &[u8], asks: Command<'_>, piece: Duration) {
    let board = Board::find(name).unwrap();
    let owner = SigningKey::from_bytes(&[7; 32]);
    let key: String = owner.verifying_key().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let Some((firmware, folder)) = firmware(board, &format!("update-{name}"), Some(&key)) else { return };
    let text = "The cat sat on the banana and purred.";

    let signature = owner.sign(other).to_bytes();

    let (mut emulator, mut client) = start(board, &firmware, &folder, Some(MODEL));
    let expected = logits(&client.ask(Command::Detect(text)).unwrap());
    let runs = |client: &mut Client| {
        let answers = client.ask(Command::Info).unwrap();
        let about = answers.board().unwrap();
        (about.slot, about.model.to_owned())
    };
    let first = (0, "electret-tiny".to_owned());

    // Cut at random moments: it goes on where it was, and the old model answers.
    let mut random = 0x9e37_79b9_u32;
    let mut furthest = 0;
    for cut in 0..CUTS {
        random = random.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        // Some pieces on, and some fraction of a piece. A sector that was not finished begins again.
        let (pieces, moment) = (
            (random >> 24) as usize % (other.len() / 512 / CUTS as usize + 1).max(9),
            piece.mul_f64(f64::from(random >> 8) / f64::from(1 << 24)),
        );
        let mut power = Some(emulator);
        let (mut begun, mut reached) = (None, 0);
        let result = update(&mut client, other, Install::Model, &signature, |at, _| {
            let begun = *begun.get_or_insert(at);
            reached = at;
            // Near the end at once: a fast computer's board would be done before the moment comes.
            let near_the_end = at + 8192 > other.len();
            if (near_the_end || at - begun >= pieces * 512)
                && let Some(mut emulator) = power.take()
            {
                if near_the_end {
                    return emulator.kill();
                }
                std::thread::spawn(move || {
                    std::thread::sleep(moment);
                    emulator.kill();
                });
            }
        });
        assert!(matches!(result, Err(Failure::Closed)), "cut {cut}: {result:?}");
        if let Some(begun) = begun {
            assert!(begun + 4096 >= furthest, "cut {cut}: begins at {begun}, {furthest} were there");
        }
        furthest = furthest.max(reached);
        (emulator, client) = start(board, &firmware, &folder, None);
        assert_eq!(runs(&mut client), first, "cut {cut}");
        assert_eq!(logits(&client.ask(Command::Detect(text)).unwrap()), expected, "cut {cut}");
    }
    println!(
        "{name}: {CUTS} updates cut short, the last at {furthest} of {} bytes: the old model answers",
        other.len()
    );

    // A piece that is damaged on the way, past the frame's checksum.
    update(&mut client, other, Install::Model, &[0; 64], |_, _| ()).unwrap_err();
    client.ask(Command::Write { offset: 1000, data: &[0x55; 64] }).unwrap();
    let crc = checksum(other);
    let install =
        Command::Install { kind: Install::Model, bytes: other.len() as u32, crc, signature: &signature };
    let damaged = client.ask(install).unwrap_err().to_string();
    assert!(damaged.contains("not what was sent"), "{damaged}");
    // The same file, signed by somebody else, and not signed.
    let stranger = SigningKey::from_bytes(&[8; 32]).sign(other).to_bytes();
    for wrong in [&stranger[..], &[]] {
        let refused = update(&mut client, other, Install::Model, wrong, |_, _| ()).unwrap_err().to_string();
        assert!(refused.contains("signature"), "{refused}");
        assert_eq!(runs(&mut client), first);
        assert_eq!(logits(&client.ask(Command::Detect(text)).unwrap()), expected);
    }
    // What is no model, however well signed.
    let junk = vec![0x5a; 4096];
    let refused = update(&mut client, &junk, Install::Model, &owner.sign(&junk).to_bytes(), |_, _| ());
    assert!(matches!(refused, Err(Failure::Refused(_))), "{refused:?}");
    assert_eq!(logits(&client.ask(Command::Detect(text)).unwrap()), expected);

    // And the real one; whoever has not heard that it runs asks again.
    update(&mut client, other, Install::Model, &signature, |_, _| ()).unwrap();
    let second = runs(&mut client);
    assert_eq!(second.0, 1);
    client.ask(install).unwrap();
    assert_eq!(runs(&mut client), second);
    assert_ne!(second.1, first.1);
    let answer = bits(&client.ask(asks).unwrap());
    drop(client);
    emulator.kill();
    let (_emulator, mut client) = start(board, &firmware, &folder, None);
    assert_eq!(runs(&mut client), second);
    assert_eq!(bits(&client.ask(asks).unwrap()), answer);
}

/// With a program in place of `probe-rs` that writes down what it is asked.
#[cfg(unix)]
#[test]
fn a_board_is_flashed_with_model_and_firmware() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boards/flash");
    std::fs::create_dir_all(&folder).unwrap();
    let (program, asked) = (folder.join("probe-rs"), folder.join("asked"));
    let _ = std::fs::remove_file(&asked);
    std::fs::write(&program, format!("#!/bin/sh\necho \"$@\" >> {}\n", asked.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (model, large) = (folder.join("m.electret"), folder.join("large.electret"));
    std::fs::write(&model, MODEL).unwrap();
    std::fs::File::create(&large).unwrap().set_len((7 << 20) + 1).unwrap();
    let board = Board::find("rp2350").unwrap();
    let chip = board.chip().unwrap();
    let flash = |model| flash(&program, chip, Path::new("firmware.elf"), model);
    flash(Some(&model)).unwrap();
    flash(None).unwrap();
    let model = format!(
        "download --chip-erase --binary-format bin --base-address 0x10100000 --chip RP235x {}\n",
        model.display()
    );
    let firmware = "download --chip RP235x firmware.elf\nreset --chip RP235x\n";
    let error = flash(Some(&large)).unwrap_err().to_string();
    assert_eq!(error, "the slot has 7340032 bytes, the model 7340033");
    assert_eq!(std::fs::read_to_string(&asked).unwrap(), format!("{model}{firmware}{firmware}"));

    std::fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
    let error = flash(None).unwrap_err();
    assert!(error.to_string().contains("debug port"), "{error}");
    let error = electret::board::flash(
        &program,
        Board::find("nrf5340-dk").unwrap().chip().unwrap(),
        Path::new("firmware.elf"),
        Some(&folder.join("m.electret")),
    );
    assert!(error.unwrap_err().to_string().contains("over its line"));
    let error = Board::find("stm32n6570-dk").unwrap().chip().unwrap_err().to_string();
    assert!(error.contains("src/main.rs"), "{error}");
    let error = Board::find(LEARNER).unwrap().chip().unwrap_err().to_string();
    assert_eq!(error, "qemu-mps3-an547 is emulated: electret board run qemu-mps3-an547");
    let error = Board::find(LINUX).unwrap().chip().unwrap_err().to_string();
    assert!(error.contains("electret.service"), "{error}");
}
