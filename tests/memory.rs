//! What a phone pays for ELECTRA-small: the clean pages of its mapped file, an arena, and little else. The measuring
//! happens in a process of its own, which has done nothing before.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use electret::SMALL;
use electret::app::Model;
use electret::import::Checkpoint;
use electret::quantize::quantize;

const MODEL: &str = "ELECTRET_MEMORY_MODEL";
const SENTENCES: usize = 100;
/// Tokeniser, answers, allocator, stack and code that was not used before.
const SLACK_KIB: u64 = 2048;

/// The KiB after each `Rss:` of a file of /proc, in sections whose first line contains `of`.
fn resident_kib(file: &str, of: &str) -> u64 {
    let text = fs::read_to_string(file).expect(file);
    let (mut counts, mut sum) = (false, 0);
    for line in text.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        if !name.ends_with(':') {
            counts = line.contains(of);
        } else if name == "Rss:" && counts {
            sum += line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB");
        }
    }
    sum
}

/// Opens the model, answers, and prints what that took.
#[test]
fn measured_alone() {
    let Some(path) = std::env::var(MODEL).ok() else { return };
    let before = resident_kib("/proc/self/smaps_rollup", "");
    let began = Instant::now();
    let model = Model::open(&path).expect("the model");
    let opened = began.elapsed();
    model.detect("the first sentence after opening, of about a dozen tokens.").expect("an answer");
    let first = began.elapsed();
    for number in 0..SENTENCES {
        let text = format!("sentence {number} of several, {}", "word ".repeat(number % 60));
        model.truncating().detect(&text).expect("an answer");
    }
    let grown = resident_kib("/proc/self/smaps_rollup", "") - before;
    let mapped = resident_kib("/proc/self/smaps", &path);
    let arena = model.describe().arena_bytes / 1024;
    println!("opened in {:.1} ms, first answer after {:.1} ms", ms(opened), ms(first));
    println!(
        "after {SENTENCES} sentences KiB: {grown} resident = {mapped} of the file + {arena} of the arena at most + the rest"
    );
    println!("kib {grown} {mapped} {arena}");
}

fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[test]
fn a_model_costs_its_pages_and_an_arena() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("memory-small.electret");
    let checkpoint = Checkpoint::random("small", SMALL, 1);
    fs::write(&path, quantize(&checkpoint, "random weights", "none").expect("finite weights"))
        .expect("written");
    let this = std::env::current_exe().expect("this program");
    let run =
        Command::new(this).args(["--exact", "measured_alone", "--nocapture"]).env(MODEL, &path).output();
    let out = String::from_utf8(run.expect("a process").stdout).expect("UTF-8");
    println!("{out}");
    let kib = out.lines().find_map(|line| line.strip_prefix("kib ")).expect("measured");
    let kib: Vec<u64> = kib.split(' ').map(|kib| kib.parse().expect("a number")).collect();
    let [grown, mapped, arena] = kib[..] else { panic!("{kib:?}") };
    assert!(mapped > 1024, "the file is mapped, not copied");
    assert!(grown <= mapped + arena + SLACK_KIB, "{grown} KiB for {mapped} + {arena}");
}
