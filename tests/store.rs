//! What was learned outlives the power: a flash that loses it at every single operation, torn writes included,
//! worn-out pages, a full store, and files.

#![cfg(feature = "convert")]

#[path = "common/chip.rs"]
mod chip;
mod common;

use std::collections::BTreeMap;

use chip::{Chip, Torn, Wear};
use common::golden::Golden;
use electret::quantize::quantize;
use electret::tune::store::{FlashStore, FolderStore, Place, Store};
use electret::tune::{Settings, Step, Target, Task};
use electret::weights::{AlignedBytes, FileKind, Take};
use electret::{Document, Error, Model, Strategy, Tuner};
use embedded_storage::nor_flash::NorFlash;

/// A document that was written before.
macro_rules! written {
    ($($name:ident: $kind:expr;)*) => {$(
        struct $name<'a>(&'a [u8]);
        impl Document for $name<'_> {
            const KIND: FileKind = $kind;
            fn payload(&self, take: &mut Take<'_>) -> Result<(), Error> {
                take(&self.0[64..])
            }
        }
    )*};
}
written! {
    WrittenState: FileKind::TunerState;
    WrittenAdapter: FileKind::Adapter;
    WrittenActive: FileKind::Active;
}

/// One replacement of a document.
#[derive(Clone)]
struct Put {
    place: Place,
    file: Vec<u8>,
}

impl Put {
    fn run(&self, store: &mut impl Store) -> Result<(), Error> {
        match self.place {
            Place::Tuner => store.put(self.place, &WrittenState(&self.file)),
            Place::Active => store.put(self.place, &WrittenActive(&self.file)),
            _ => store.put(self.place, &WrittenAdapter(&self.file)),
        }
    }
}

fn contents(store: &mut impl Store, place: Place) -> Option<Vec<u8>> {
    let mut file = Vec::new();
    let any = store.get(place, &mut |piece| {
        file.extend_from_slice(piece);
        Ok(())
    });
    any.unwrap().then_some(file)
}

const STEPS: u64 = 50;
const PLACES: [Place; 5] =
    [Place::Active, Place::Tuner, Place::Adapter(0), Place::Adapter(1), Place::Adapter(2)];
const LESSONS: [(&str, usize); 5] =
    [("abc de", 0), ("fgh i jkl", 1), ("de abc jkl", 0), ("i", 1), ("jkl fgh", 0)];

fn tiny_model() -> AlignedBytes {
    let checkpoint = Golden::open().checkpoint(Some("tokcls"));
    AlignedBytes::copy_of(&quantize(&checkpoint, "random", "none").unwrap())
}

fn with_tuner<T>(file: &AlignedBytes, work: impl FnOnce(&mut Tuner<'_, '_>) -> T) -> T {
    let model = Model::open(file.as_slice()).unwrap();
    let mut arena = AlignedBytes::zeroed(1 << 18);
    let strategy = Strategy::lora(1, 1).with_head();
    let task = Task::classify(&["odd", "even"]);
    let settings = Settings { total_steps: STEPS as u32, warmup_steps: 5, ..Settings::default() };
    let mut tuner = Tuner::new(model, arena.as_mut_slice(), 16, task, strategy, settings).unwrap();
    work(&mut tuner)
}

/// One step with the examples that come next.
fn step(tuner: &mut Tuner<'_, '_>) {
    for _ in 0..2 {
        let (text, label) =
            LESSONS[(tuner.progress().seen as usize * 3 + tuner.progress().steps as usize) % 5];
        tuner.learn(text.into(), Target::Class(label)).unwrap();
    }
    assert!(matches!(tuner.step(), Step::Taken { .. }));
}

/// What a run of 50 steps writes: its state after each; every five an adapter, which becomes the active one.
fn training_run(file: &AlignedBytes) -> Vec<Put> {
    struct Recorder(Vec<Put>);
    impl Store for Recorder {
        fn put(&mut self, place: Place, document: &impl Document) -> Result<(), Error> {
            let mut file = vec![0; document.bytes()];
            document.write(&mut file)?;
            self.0.push(Put { place, file });
            Ok(())
        }
        fn get(&mut self, _: Place, _: &mut Take<'_>) -> Result<bool, Error> {
            Ok(false)
        }
        fn remove(&mut self, _: Place) -> Result<(), Error> {
            Ok(())
        }
    }
    let mut recorder = Recorder(Vec::new());
    with_tuner(file, |tuner| {
        for number in 1..=STEPS {
            step(tuner);
            recorder.checkpoint(tuner).unwrap();
            if number % 5 == 0 {
                let adapter = (number / 5 % 3) as u8;
                recorder.save(adapter, &tuner.adapter()).unwrap();
                recorder.activate(Some(adapter)).unwrap();
            }
        }
    });
    recorder.0
}

/// A store in the whole of a flash.
fn open<F: NorFlash>(flash: F) -> Result<FlashStore<F>, Error> {
    let end = flash.capacity() as u32;
    FlashStore::open(flash, 0..end)
}

/// The documents that are known to be in a store.
type Kept = BTreeMap<usize, Vec<u8>>;

fn index(place: Place) -> usize {
    PLACES.iter().position(|&other| other == place).unwrap()
}

/// Boots after a cut: whether the new document is there; everything else is as it was.
fn is_new<const PAGE: usize, const PROGRAM: usize, const WORD: usize>(
    chip: &mut Chip<PAGE, PROGRAM, WORD>,
    expected: &Kept,
    put: &Put,
) -> bool {
    chip.reboot();
    let mut store = open(chip).unwrap();
    for place in PLACES.into_iter().filter(|&place| place != put.place) {
        let found = contents(&mut store, place);
        assert!(found.as_ref() == expected.get(&index(place)), "{place:?} is lost or mixed");
    }
    let found = contents(&mut store, put.place);
    let is_new = found.as_ref() == Some(&put.file);
    assert!(is_new || found.as_ref() == expected.get(&index(put.place)), "{:?} is mixed", put.place);
    is_new
}

/// Cuts the power at every operation of a training run, in four ways; after each, everything is old or new and
/// whole; and the replacement can be done again, whether or not the power fails a second time while it is (tried
/// at every eighth cut).
fn cut_everywhere<const PAGE: usize, const PROGRAM: usize, const WORD: usize>(pages: usize, puts: &[Put]) {
    let mut chip = Chip::<PAGE, PROGRAM, WORD>::new(pages);
    let mut expected = Kept::new();
    let (mut cuts, mut second_cuts) = (0usize, 0);
    for put in puts {
        let mut after = chip.clone();
        after.operations = 0;
        put.run(&mut open(&mut after).unwrap()).unwrap();
        for at in 0..after.operations {
            for torn in [Torn::Before, Torn::Half, Torn::Rest, Torn::Bits] {
                let mut cut = chip.clone();
                (cut.operations, cut.random, cut.cut) = (0, (at as u64) << 8 | 1, Some((at, torn)));
                assert_ne!(open(&mut cut).and_then(|mut store| put.run(&mut store)), Ok(()));
                cuts += 1;
                is_new(&mut cut, &expected, put);
                if !cuts.is_multiple_of(8) {
                    continue;
                }
                // The power fails again while it is put right.
                cut.cut = Some((cut.operations + (at * 7 + 3) % (after.operations + 1), torn));
                second_cuts += usize::from(open(&mut cut).and_then(|mut store| put.run(&mut store)).is_err());
                is_new(&mut cut, &expected, put);
                put.run(&mut open(&mut cut).unwrap()).unwrap();
                assert!(is_new(&mut cut, &expected, put));
            }
        }
        chip = after;
        expected.insert(index(put.place), put.file.clone());
    }
    println!(
        "{PAGE} B pages, {PROGRAM} B programs, {WORD} B words: {cuts} cuts in {} replacements, {second_cuts} cut again",
        puts.len()
    );
}

#[test]
fn power_may_fail_anywhere_qspi() {
    cut_everywhere::<4096, 256, 4>(11, &training_run(&tiny_model()));
}

#[test]
fn power_may_fail_anywhere_small_pages() {
    cut_everywhere::<2048, 8, 8>(19, &training_run(&tiny_model()));
}

#[test]
fn power_may_fail_anywhere_large_pages() {
    cut_everywhere::<131_072, 32, 32>(5, &training_run(&tiny_model()));
}

/// Among many erasures there are those of the journal itself, which nobody keeps a journal of.
#[test]
fn power_may_fail_while_the_journal_is_erased() {
    const PAGE: usize = 2048;
    let mut chip = Chip::<PAGE, 8, 8>::new(19);
    let (mut expected, mut turns) = (Kept::new(), 0);
    let puts = training_run(&tiny_model());
    for put in puts.iter().cycle().take(6 * puts.len()) {
        let mut after = chip.clone();
        (after.operations, after.erasures) = (0, Vec::new());
        put.run(&mut open(&mut after).unwrap()).unwrap();
        for &(at, _) in after.erasures.iter().filter(|&&(_, page)| page < 2) {
            turns += 1;
            for (seed, torn) in
                [Torn::Half, Torn::Rest, Torn::Bits, Torn::Bits, Torn::Bits].iter().enumerate()
            {
                let mut cut = chip.clone();
                (cut.operations, cut.random, cut.cut) = (0, seed as u64 + 1, Some((at, *torn)));
                assert_ne!(open(&mut cut).and_then(|mut store| put.run(&mut store)), Ok(()));
                is_new(&mut cut, &expected, put);
                put.run(&mut open(&mut cut).unwrap()).unwrap();
                assert!(is_new(&mut cut, &expected, put));
            }
        }
        chip = after;
        expected.insert(index(put.place), put.file.clone());
    }
    assert!(turns >= 4, "the journal was erased {turns} times");
}

#[test]
fn learning_goes_on_to_the_same_bits_from_every_checkpoint() {
    let file = tiny_model();
    let puts = training_run(&file);
    let states: Vec<&Put> = puts.iter().filter(|put| put.place == Place::Tuner).collect();
    assert_eq!(states.len() as u64, STEPS);
    for state in &states {
        let mut store = open(Chip::<4096, 256, 4>::new(10)).unwrap();
        state.run(&mut store).unwrap();
        with_tuner(&file, |tuner| {
            assert!(store.resume(tuner).unwrap());
            while u64::from(tuner.progress().steps) < STEPS {
                step(tuner);
            }
            let mut last = vec![0; states[0].file.len()];
            tuner.state().write(&mut last).unwrap();
            assert_eq!(last, states[STEPS as usize - 1].file);
        });
    }
}

#[test]
fn a_worn_out_page_is_an_error_and_loses_nothing() {
    let puts = training_run(&tiny_model());
    for wear in [Wear::Refuses, Wear::LosesBits] {
        let mut refused = 0;
        for page in 0..11 {
            let mut store = open(Chip::<4096, 256, 4>::new(11)).unwrap();
            let mut expected: BTreeMap<usize, &Put> = BTreeMap::new();
            for (number, put) in puts.iter().take(40).enumerate() {
                if number == 15 {
                    let mut flash = store.close();
                    flash.worn = Some((page, wear));
                    store = open(flash).unwrap();
                }
                let place = PLACES.iter().position(|&place| place == put.place).unwrap();
                match put.run(&mut store) {
                    Ok(()) => drop(expected.insert(place, put)),
                    Err(Error::StoreFailed | Error::StoreDamaged) => {
                        refused += 1;
                        break;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            // What was there before is there, in the worn flash too.
            for (&place, put) in &expected {
                assert_eq!(contents(&mut store, PLACES[place]).as_ref(), Some(&put.file), "page {page}");
            }
        }
        assert!(refused > 0);
    }
}

#[test]
fn a_full_store_says_so_and_keeps_what_it_has() {
    let puts = training_run(&tiny_model());
    let adapter = puts.iter().find(|put| put.place == Place::Adapter(1)).unwrap();
    let mut store = open(Chip::<2048, 8, 8>::new(13)).unwrap();
    let mut kept = Vec::new();
    for number in 0..Place::ADAPTERS {
        let put = Put { place: Place::Adapter(number), file: adapter.file.clone() };
        // Twice, so that both slots are in use: from then on the room is known to be enough.
        match put.run(&mut store).and_then(|()| put.run(&mut store)) {
            Ok(()) => kept.push(put),
            Err(Error::StoreFull { needed, capacity }) => {
                assert!(needed > capacity);
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(kept.len() > 2 && kept.len() < usize::from(Place::ADAPTERS));
    // A full store goes on taking what it has room for.
    for round in 0..1000 {
        kept[round % kept.len()].run(&mut store).unwrap();
    }
    for put in &kept {
        assert_eq!(contents(&mut store, put.place).as_ref(), Some(&put.file));
    }
    store.remove(kept[0].place).unwrap();
    assert_eq!(contents(&mut store, kept[0].place), None);
    let put = Put { place: Place::Adapter(12), ..kept[0].clone() };
    put.run(&mut store).unwrap();
    let mut store = open(store.close()).unwrap();
    assert_eq!(contents(&mut store, put.place), Some(put.file));
    assert_eq!(contents(&mut store, kept[0].place), None);
    assert_eq!(contents(&mut store, kept[1].place).as_ref(), Some(&kept[1].file));
}

/// The ring remembers what is gone, which takes room too: it is counted, and never found missing halfway.
fn what_was_removed_is_reckoned_with<const PAGE: usize, const PROGRAM: usize, const WORD: usize>(
    pages: usize,
) {
    let mut store = open(Chip::<PAGE, PROGRAM, WORD>::new(pages)).unwrap();
    let capacity = store.capacity();
    let (mut random, mut refused, mut there) = (0x9e37_79b9_u32, 0, BTreeMap::<u8, Vec<u8>>::new());
    let mut below = |n: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % n
    };
    for round in 0..600 {
        let number = below(12) as u8;
        if below(3) == 0 {
            store.remove(Place::Adapter(number)).unwrap();
            there.remove(&number);
        } else {
            let file = vec![round as u8; (capacity / 2 / (1 + below(12))).next_multiple_of(4)];
            match (Put { place: Place::Adapter(number), file: file.clone() }).run(&mut store) {
                Ok(()) => drop(there.insert(number, file)),
                Err(Error::StoreFull { needed, capacity }) => {
                    assert!(needed > capacity, "round {round}: {needed} of {capacity}");
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        if round % 50 == 0 {
            store = open(store.close()).unwrap();
        }
    }
    for number in 0..12 {
        let found = contents(&mut store, Place::Adapter(number));
        let payload = |file: &Vec<u8>| file[64..].to_vec();
        assert!(found.as_ref().map(payload) == there.get(&number).map(payload), "adapter {number}");
    }
    assert!(refused > 0 && !there.is_empty());
}

#[test]
fn what_was_removed_is_reckoned_with_qspi() {
    what_was_removed_is_reckoned_with::<4096, 256, 4>(11);
    what_was_removed_is_reckoned_with::<4096, 256, 4>(64);
}

#[test]
fn what_was_removed_is_reckoned_with_small_pages() {
    what_was_removed_is_reckoned_with::<2048, 8, 8>(13);
}

#[test]
fn a_flash_or_range_that_cannot_be_used_is_named() {
    type Small = Chip<4096, 256, 4>;
    for (range, wanted) in
        [(0..16384, "five pages"), (0..40000, "start and end at a page"), (0..1 << 20, "within the flash")]
    {
        let error = FlashStore::open(Small::new(16), range).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let error = open(Chip::<256, 256, 4>::new(16)).unwrap_err().to_string();
    assert!(error.contains("512 bytes"), "{error}");
    let mut store = open(Small::new(16)).unwrap();
    assert_eq!(store.active(), Ok(None));
    let put = Put { place: Place::Adapter(Place::ADAPTERS), file: vec![0; 100] };
    assert!(matches!(put.run(&mut store), Err(Error::InvalidSetting { field: "adapter", .. })));
}

#[test]
fn files_of_a_folder_do_the_same() {
    let folder = std::env::temp_dir().join(format!("electret-store-{}", std::process::id()));
    let file = tiny_model();
    let mut store = FolderStore::open(&folder).unwrap();
    assert_eq!(store.active(), Ok(None));
    with_tuner(&file, |tuner| {
        assert_eq!(store.resume(tuner), Ok(false));
        for _ in 0..3 {
            step(tuner);
        }
        store.checkpoint(tuner).unwrap();
        store.save(4, &tuner.adapter()).unwrap();
        store.activate(Some(4)).unwrap();
        let beyond = store.activate(Some(Place::ADAPTERS)).unwrap_err();
        assert!(matches!(beyond, Error::InvalidSetting { field: "adapter", .. }));
        step(tuner);
        let next = tuner.adapter().parameters.to_vec();
        with_tuner(&file, |other| {
            assert_eq!(store.resume(other), Ok(true));
            step(other);
            assert_eq!(other.adapter().parameters, next);
        });
    });
    let model = Model::open(file.as_slice()).unwrap();
    let mut buffer = AlignedBytes::zeroed(4096);
    assert_eq!(store.active(), Ok(Some(4)));
    let adapter = store.adapter(4, &model, buffer.as_mut_slice()).unwrap().unwrap();
    assert_eq!(adapter.labels.iter().collect::<Vec<_>>(), ["odd", "even"]);
    let mut short = [0; 100];
    assert!(matches!(store.adapter(4, &model, &mut short), Err(Error::ArenaTooSmall { .. })));

    // Damage, a part that was left behind, and a place that cannot be written.
    let state = std::fs::read(folder.join("tuner.state")).unwrap();
    for length in [0, 63, 64, 200, state.len() - 1] {
        std::fs::write(folder.join("tuner.state"), &state[..length]).unwrap();
        with_tuner(&file, |tuner| {
            let before = tuner.adapter().parameters.to_vec();
            assert!(store.resume(tuner).is_err(), "{length} bytes");
            assert_eq!(tuner.adapter().parameters, before);
        });
    }
    std::fs::write(folder.join("4.adapter.part"), b"half").unwrap();
    assert!(store.adapter(4, &model, buffer.as_mut_slice()).unwrap().is_some());
    store.remove(Place::Adapter(4)).unwrap();
    assert!(store.adapter(4, &model, buffer.as_mut_slice()).unwrap().is_none());
    std::fs::create_dir(folder.join("5.adapter")).unwrap();
    with_tuner(&file, |tuner| assert_eq!(store.save(5, &tuner.adapter()), Err(Error::StoreFailed)));
    std::fs::remove_dir_all(folder).unwrap();
}

/// How often the process is killed.
const KILLS: usize = 1000;

#[test]
#[cfg(feature = "cli")]
fn a_process_killed_a_thousand_times_learns_the_same_bits() {
    use electret::weights::Header;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("killed");
    // What an earlier run of this test left.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let [model, train, state, out] =
        ["tiny.electret", "train.tsv", "state", "out.adapter"].map(|name| folder.join(name));
    std::fs::write(&model, tiny_model().as_slice()).unwrap();
    let lessons: String = LESSONS.iter().map(|(text, label)| format!("{label}\t{text}\n")).collect();
    std::fs::write(&train, format!("label\ttext\n{lessons}")).unwrap();
    let tune = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_electret"));
        command.arg("tune").arg("--model").arg(&model).arg("--train").arg(&train).arg("-o").arg(&out);
        command.arg("--state").arg(&state);
        command
            .args("--strategy head+lora:2:1 --epochs 60 --batch-size 2 --save-every 1 --seq 16".split(' '));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let whole = |path: &std::path::Path, kind| match std::fs::read(path) {
        Ok(file) => {
            Header::parse(kind, &file).unwrap().payload(&file).unwrap();
            Some(file)
        }
        Err(_) => None,
    };
    assert!(tune().status().unwrap().success());
    let expected = whole(&out, FileKind::Adapter).unwrap();
    let last_state = whole(&state.join("tuner.state"), FileKind::TunerState).unwrap();
    let again = || {
        std::fs::remove_file(&out).unwrap();
        std::fs::remove_dir_all(&state).unwrap();
    };
    again();
    let (mut finished, mut kills, mut halfway, mut random) = (0, 0, 0, 0x5eed_u64);
    while kills < KILLS {
        let mut process = tune().spawn().unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros(3_000 + (random >> 33) % 30_000));
        process.kill().unwrap();
        let done = process.wait().unwrap().success();
        let state = whole(&state.join("tuner.state"), FileKind::TunerState);
        let adapter = whole(&out, FileKind::Adapter);
        assert!(adapter.is_none() || adapter.as_ref() == Some(&expected));
        kills += usize::from(!done);
        halfway += usize::from(!done && state.as_ref().is_some_and(|state| *state != last_state));
        if done {
            assert_eq!(adapter, Some(expected.clone()));
            finished += 1;
            again();
        }
    }
    println!(
        "killed {kills} times, {halfway} of them halfway; {finished} runs came through, to the same bits"
    );
    assert!(halfway > KILLS / 4);
    assert!(tune().status().unwrap().success());
    assert_eq!(whole(&out, FileKind::Adapter), Some(expected));

    // Another run does not go on from that state, and leaves it as it is.
    let refused = |command: &mut Command, of: &str| {
        let output = command.stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(of), "{of}: {said}");
        assert_eq!(whole(&state.join("tuner.state"), FileKind::TunerState).as_ref(), Some(&last_state));
    };
    refused(tune().args(["--learning-rate", "0.002"]), "--learning-rate 0.001, now 0.002");
    std::fs::write(&train, format!("label\ttext\n{lessons}{lessons}")).unwrap();
    refused(&mut tune(), "begun with --train (a file with checksum");
    std::fs::remove_file(state.join("tune.json")).unwrap();
    refused(&mut tune(), "not a run of `tune`");
}
