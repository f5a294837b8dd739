//! Bad input of every kind, each with the message that a user reads.
#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::golden::Golden;
use electret::import::{Checkpoint, Tensors, read_vocabulary};
use electret::quantize::{Recipe, quantize, quantize_by};
use electret::tune::{Settings, Task};
use electret::weights::{AlignedBytes, FileKind, Header};
use electret::{ElectraConfig, Error, HeadKind, Model, Plan, Session, Strategy, TINY, Tuner, kernels};

fn model_error(bytes: &[u8]) -> Error {
    Model::open(AlignedBytes::copy_of(bytes).as_slice()).unwrap_err()
}

/// Puts a payload that was changed on purpose behind a header that fits it.
fn with_header(payload: &[u8]) -> Vec<u8> {
    [&Header::of(FileKind::Model, payload).to_bytes(), payload].concat()
}

#[test]
fn a_file_truncated_at_every_sixty_fourth() {
    let file = common::shipped_model();
    let file = file.as_slice();
    assert!(model_error(&[]).to_string().contains("should have 64 bytes and has 0"));
    for part in 0..64 {
        let error = model_error(&file[..file.len() * part / 64]);
        assert!(matches!(error, Error::FileTruncated { .. }), "{part}/64: {error}");
        assert!(error.to_string().contains("copy it again"));
    }
}

#[test]
fn one_bit_flipped_in_a_thousand_places() {
    let file = common::shipped_model().as_slice().to_vec();
    for case in 0..1000_usize {
        let mut damaged = file.clone();
        let at = if case < 64 { case } else { case * 2_654_435_761 % file.len() };
        damaged[at] ^= 1 << (case % 8);
        Model::open(AlignedBytes::copy_of(&damaged).as_slice())
            .expect_err(&format!("byte {at} was damaged and nobody noticed"));
    }
}

#[test]
fn wrong_magic_version_byte_order_and_place() {
    let file = common::shipped_model();
    let mut bytes = file.as_slice().to_vec();
    bytes[0] = b'P';
    assert!(model_error(&bytes).to_string().contains("no .electret file"));

    let payload = &file.as_slice()[64..];
    let with_version = |version| {
        let header = Header { version, ..Header::of(FileKind::Model, payload) };
        model_error(&[&header.to_bytes(), payload].concat())
    };
    assert!(with_version(4).to_string().contains("format 4, this build reads 3; update electret"));
    assert!(with_version(2).to_string().contains("this build reads 3; make it again"));
    assert!(with_version(1 << 24).to_string().contains("byte order"));

    let shifted = AlignedBytes::copy_of(&[&[0; 8], file.as_slice()].concat());
    assert_eq!(Model::open(&shifted.as_slice()[8..]).unwrap_err(), Error::ModelMisaligned);
}

/// With a right checksum in front, offsets and lengths may say anything: an error or a model that
/// runs, never a panic.
#[test]
fn hostile_offsets_and_lengths() {
    for file in [common::shipped_model(), int4_model()] {
        hostile(&file.as_slice()[64..]);
    }
    for length in [0, 1, 63, 64, 1000] {
        let error = model_error(&with_header(&vec![0; length]));
        assert!(
            matches!(error, Error::InvalidArchive | Error::InvalidModel { .. }),
            "{length} zeros: {error}"
        );
    }
}

/// The shipped model in int4.
fn int4_model() -> AlignedBytes {
    let shipped = common::shipped_model();
    let checkpoint = Checkpoint::of_model(&Model::open(shipped.as_slice()).unwrap(), None);
    let recipe = Recipe::all_int4(&checkpoint);
    AlignedBytes::copy_of(&quantize_by(&checkpoint, "", "", &recipe).unwrap())
}

/// A multiplier that no quantiser writes would have other bits on other kernel sets.
#[test]
fn multipliers_out_of_range() {
    let file = int4_model();
    let model = Model::open(file.as_slice()).unwrap();
    let query = &model.root().layers[2].query;
    let at = query.tiles.as_ptr().addr() - file.as_slice().as_ptr().addr() - 64;
    let mut payload = file.as_slice()[64..].to_vec();
    payload[at + 5] = 16;
    let error = model_error(&with_header(&payload));
    assert_eq!(error, Error::InvalidModel { field: "layer.query", index: 2 });
}

/// Numbers that no quantiser writes would come out otherwise on other kernel sets, or overflow.
#[test]
fn numbers_that_no_quantiser_writes() {
    let file = common::shipped_model();
    let root = Model::open(file.as_slice()).unwrap().root();
    let layer = &root.layers[2];
    let channels = &layer.intermediate.channels[0];
    let too_large = (128 * 128 + 1_i32).to_le_bytes();
    for (place, value, field, index) in [
        ((&raw const channels.scale).addr(), f32::NAN.to_le_bytes(), "layer.intermediate", 2),
        ((&raw const channels.bias[3]).addr(), f32::INFINITY.to_le_bytes(), "layer.intermediate", 2),
        ((&raw const channels.column_sum).addr(), too_large, "layer.intermediate", 2),
        (layer.output_norm.bias.as_ptr().addr(), f32::NAN.to_le_bytes(), "layer.output_norm", 2),
        (root.embeddings.positions.as_ptr().addr(), f32::NAN.to_le_bytes(), "embeddings.positions", 8192),
    ] {
        let mut payload = file.as_slice()[64..].to_vec();
        let at = place - file.as_slice().as_ptr().addr() - 64;
        payload[at..at + 4].copy_from_slice(&value);
        assert_eq!(model_error(&with_header(&payload)), Error::InvalidModel { field, index });
    }
}

fn hostile(payload: &[u8]) {
    let mut refused = 0;
    // The root and what it points to first stand at the end of an archive.
    for case in 0..1000_usize {
        let mut hostile = payload.to_vec();
        let at = hostile.len() - 4 * (1 + case * 3 % 1500);
        let value = [0, 1, 0x7fff_ffff, u32::MAX, 0x8000_0000, case as u32][case % 6];
        hostile[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let bytes = AlignedBytes::copy_of(&with_header(&hostile));
        match Model::open(bytes.as_slice()) {
            Err(_) => refused += 1,
            Ok(model) => {
                let tokens = model.config().max_position_embeddings.min(32);
                let plan = Plan::inference(model.config(), tokens).for_model(&model);
                if plan.bytes() < 64 << 20 {
                    let mut arena = AlignedBytes::zeroed(plan.bytes());
                    if let Ok(mut session) = Session::new(model, arena.as_mut_slice(), tokens) {
                        let _ = session.detect("The cat sat on the mat.").map(Iterator::count);
                    }
                }
            }
        }
    }
    assert!(refused > 50, "{refused} of 1000 were refused");
}

#[test]
fn an_arena_too_small_or_misaligned_and_a_sequence_too_long() {
    let file = common::shipped_model();
    let model = Model::open(file.as_slice()).unwrap();
    let needed = Plan::inference(model.config(), 32).bytes();
    let mut arena = AlignedBytes::zeroed(needed + 64);
    let error = Session::new(model, &mut arena.as_mut_slice()[..needed - 1], 32).unwrap_err();
    assert_eq!(error, Error::ArenaTooSmall { needed, found: needed - 1 });
    let error = Session::new(model, &mut arena.as_mut_slice()[1..], 32).unwrap_err();
    assert_eq!(error, Error::ArenaMisaligned);
    for tokens in [100_000, usize::MAX] {
        let error = Session::new(model, arena.as_mut_slice(), tokens).unwrap_err();
        assert_eq!(error, Error::SequenceTooLong { tokens, limit: 64 });
        let (task, head) = (Task::classify(&["no", "yes"]), Strategy::lora(4, 1).with_head());
        let error = Tuner::new(model, arena.as_mut_slice(), tokens, task, head, Settings::default());
        assert_eq!(error.map(drop).unwrap_err(), Error::SequenceTooLong { tokens, limit: 64 });
    }
    // A plan of another shape is made the model's.
    let smaller = ElectraConfig { hidden_size: 32, intermediate_size: 64, ..TINY };
    let foreign = Plan::inference(&smaller, 32);
    let found = foreign.bytes();
    let error = Session::with(model, &mut arena.as_mut_slice()[..found], foreign, kernels::best());
    assert_eq!(error.map(drop).unwrap_err(), Error::ArenaTooSmall { needed, found });

    let mut session = Session::new(model, arena.as_mut_slice(), 32).unwrap();
    let text = "word ".repeat(100);
    let error = session.encode(text.as_str().into()).map(drop).unwrap_err();
    assert!(matches!(error, Error::SequenceTooLong { limit: 32, tokens } if tokens >= 102), "{error}");
    assert_eq!(session.encode("".into()).map(drop).unwrap_err(), Error::EmptyText);
    assert_eq!(session.encode(" \u{0} ".into()).map(drop).unwrap_err(), Error::EmptyText);
    assert!(session.classify("x".into()).map(drop).unwrap_err().to_string().contains("no classify head"));
}

#[test]
fn reading_from_a_stream() {
    let file = common::shipped_model();
    let mut buffer = AlignedBytes::zeroed(file.as_slice().len());
    Model::read(file.as_slice(), buffer.as_mut_slice()).unwrap();
    let mut small = AlignedBytes::zeroed(4096);
    let error = Model::read(file.as_slice(), small.as_mut_slice()).unwrap_err();
    assert!(matches!(error, Error::ModelBufferTooSmall { found: 4096, .. }));
    let cut = &file.as_slice()[..1000];
    assert_eq!(Model::read(cut, buffer.as_mut_slice()).unwrap_err(), Error::ReadFailed);
}

/// The message of a folder after something was done to it.
fn import_error(spoil: impl FnOnce(&Path)) -> String {
    let folder = Golden::open().hugging_face_folder(Some("seqcls"));
    spoil(&folder);
    Checkpoint::open(&folder).unwrap_err().to_string()
}

fn edit_tensors(folder: &Path, edit: impl FnOnce(Tensors) -> Tensors) {
    let path = folder.join("model.safetensors");
    let mut tensors = Tensors::default();
    tensors.read(&path).unwrap();
    edit(tensors).write(&path).unwrap();
}

fn edit_config(folder: &Path, field: &str, value: serde_json::Value) {
    let path = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[field] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn folders_with_something_missing_or_wrong() {
    let name = "electra.encoder.layer.1.output.dense.weight";
    let message = import_error(|folder| {
        edit_tensors(folder, |tensors| tensors.renamed(|known| (known != name).then(|| known.to_owned())));
    });
    assert_eq!(message, format!("tensor {name}: missing from the weights"));

    let message = import_error(|folder| {
        edit_tensors(folder, |mut tensors| {
            tensors.insert(name, &[3, 2], vec![0.0; 6]);
            tensors
        });
    });
    assert_eq!(message, format!("tensor {name}: shape [3, 2] where the config says [32, 64]"));

    let message = import_error(|folder| edit_config(folder, "hidden_act", "swish".into()));
    assert!(message.starts_with("config.json: hidden_act: \"swish\""), "{message}");
    let message = import_error(|folder| edit_config(folder, "num_attention_heads", 5.into()));
    assert!(message.contains("5 does not divide 32"), "{message}");
    let message = import_error(|folder| edit_config(folder, "model_type", "gpt2".into()));
    assert!(message.contains("electra and bert can be imported"), "{message}");

    let labels = serde_json::json!({"0": "a", "1": "b"});
    let message = import_error(|folder| edit_config(folder, "id2label", labels));
    assert_eq!(message, "tensor classifier.out_proj.weight: shape [3, 32] where the config says [2, 32]");

    let message = import_error(|folder| {
        edit_config(folder, "id2label", serde_json::Value::Null);
        edit_config(folder, "num_labels", u64::MAX.into());
    });
    assert_eq!(message, "config.json: num_labels: 18446744073709551615: at most 65536");

    for (text, field) in [
        (r#"{"do_lower_case": true, "strip_accents": false}"#, "strip_accents: false"),
        (r#"{"tokenize_chinese_chars": false}"#, "tokenize_chinese_chars: false"),
    ] {
        let message =
            import_error(|folder| std::fs::write(folder.join("tokenizer_config.json"), text).unwrap());
        assert!(message.contains(field), "{message}");
    }

    let message = import_error(|folder| std::fs::write(folder.join("model.safetensors"), b"").unwrap());
    assert!(message.contains("not a readable safetensors file"), "{message}");
    let message = import_error(|folder| std::fs::remove_file(folder.join("vocab.txt")).unwrap());
    assert!(message.contains("vocab.txt"), "{message}");
}

/// BERT's classifier of texts and its classifier of tokens have one name; only the first stands on the pooler.
#[test]
fn a_classifier_on_the_pooler_is_no_tagger() {
    let opened = |architecture: &str| {
        let folder = Golden::open().hugging_face_folder(Some("tokcls"));
        edit_tensors(&folder, |mut tensors| {
            tensors.insert("bert.pooler.dense.weight", &[32, 32], vec![0.0; 32 * 32]);
            tensors
        });
        edit_config(&folder, "architectures", serde_json::json!([architecture]));
        Checkpoint::open(&folder)
            .map(|checkpoint| checkpoint.heads[0].kind)
            .map_err(|error| error.to_string())
    };
    assert_eq!(opened("BertForTokenClassification"), Ok(HeadKind::Tag));
    for architecture in ["BertForSequenceClassification", "MyClassifier"] {
        let message = opened(architecture).unwrap_err();
        assert!(message.starts_with("config.json: architectures: "), "{message}");
    }
}

/// The word embeddings answer; a head with a matrix of its own would be another.
#[test]
fn a_fill_mask_head_of_its_own_matrix_is_left_out() {
    let words = "electra.embeddings.word_embeddings.weight";
    for (factor, heads) in [(1.0, vec![HeadKind::FillMask]), (2.0, Vec::new())] {
        let folder = Golden::open().hugging_face_folder(Some("mlm"));
        edit_tensors(&folder, |mut tensors| {
            let own: Vec<f32> = tensors.array(words).unwrap().iter().map(|value| value * factor).collect();
            tensors.insert("generator_lm_head.weight", &[100, 16], own);
            tensors
        });
        let checkpoint = Checkpoint::open(&folder).unwrap();
        assert_eq!(checkpoint.heads.iter().map(|head| head.kind).collect::<Vec<_>>(), heads);
        let left = checkpoint.tensors.names().any(|name| name.starts_with("generator_"));
        assert_eq!(left, !heads.is_empty());
    }
}

#[test]
fn a_vocabulary_with_duplicates_or_without_special_tokens() {
    let folder = Golden::open().hugging_face_folder(None);
    let path = folder.join("vocab.txt");
    std::fs::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\na\nthe\n").unwrap();
    let message = read_vocabulary(&path).unwrap_err().to_string();
    assert!(message.ends_with("\"the\" stands on lines 6 and 8"), "{message}");
    std::fs::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n").unwrap();
    assert!(read_vocabulary(&path).unwrap_err().to_string().ends_with("[MASK] is missing"));
}

#[test]
fn weights_that_are_no_numbers() {
    let folder = Golden::open().hugging_face_folder(Some("seqcls"));
    let name = "electra.embeddings.LayerNorm.bias";
    edit_tensors(&folder, |mut tensors| {
        tensors.insert(name, &[16], vec![f32::NAN; 16]);
        tensors
    });
    let error = quantize(&Checkpoint::open(&folder).unwrap(), "", "").unwrap_err();
    assert_eq!(error.to_string(), format!("tensor {name}: holds a value that is not finite"));
}

fn electret(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_electret"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its input early closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], stdin: &[u8], code: i32, message: &str) {
    let output = electret(arguments, stdin);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(message), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn the_command_says_what_is_wrong() {
    refused(&["detect", ""], b"", 1, "the text is empty");
    refused(&["detect", "-"], b"fine text\n\xff\xfe\n", 1, "stdin, line 2: not UTF-8 text");
    refused(&["detect", &"long ".repeat(2000)], b"", 1, "at most");
    let line = [vec![b'a'; 10 << 20], b" word\n".to_vec()].concat();
    assert!(electret(&["detect", "-"], &line).status.success(), "one word of 10 MB is one token");
    let line = b"some words ".repeat(1 << 20);
    refused(&["detect", "-"], &line, 1, "shorten it or allow truncation");
    assert!(electret(&["detect", "--truncate", "-"], &line).status.success());
    refused(&["detcet", "x"], b"", 2, "unrecognized subcommand");
    refused(&["detect", "--treshold", "1", "x"], b"", 2, "--threshold");
    refused(&["detect", "--model", "nowhere.electret", "x"], b"", 1, "nowhere.electret");
    refused(&["classify", "--model", "models/electret-tiny.electret", "x"], b"", 1, "no classify head");
    refused(&["plan", "--preset", "huge"], b"", 1, "nano, tiny, small, base or large");
    let empty = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("empty.electret");
    std::fs::write(&empty, b"").unwrap();
    refused(&["detect", "--model", empty.to_str().unwrap(), "x"], b"", 1, "should have 64 bytes and has 0");
}

/// Files of other shapes than those that are read: columns too many, questions that have no answer.
#[test]
fn labelled_files_that_would_teach_something_else() {
    let squad = |answers| {
        let question = format!(r#"{{"question": "Who?", "answers": {answers}}}"#);
        format!(r#"{{"data": [{{"paragraphs": [{{"context": "Ann ran.", "qas": [{question}]}}]}}]}}"#)
    };
    for (name, text, message) in [
        ("four.conll", "EU\tNNP\tB-NP\tB-ORG\n".to_owned(), "line 1: a word, a tab and one tag"),
        ("none.json", squad("[]"), "answers: none to \"Who?\""),
        ("nowhere.json", squad(r#"[{"text": "Ann"}]"#), "answer_start: missing"),
        (
            "beside.json",
            squad(r#"[{"text": "Ann", "answer_start": 1}]"#),
            "answer_start: \"Ann\" is not at character 1 of its context",
        ),
    ] {
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&file, text).unwrap();
        let out = file.with_extension("adapter");
        refused(&["tune", "--train", file.to_str().unwrap(), "-o", out.to_str().unwrap()], b"", 1, message);
    }
}

/// A folder of the test's own.
fn place(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What is learned for tags answers tags; classes are still the model's own head's.
#[test]
fn the_labels_are_those_of_the_head_that_answers() {
    let folder = place("labels");
    let [model, adapter] = ["model.electret", "tags.adapter"].map(|name| folder.join(name));
    let file = quantize(&Golden::open().checkpoint(Some("seqcls")), "", "").unwrap();
    std::fs::write(&model, &file).unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name).to_str().unwrap().to_owned()
    };
    let tags = write("tags.conll", "a\tLABEL_2\nb\tO\n\nb\tO\nc\tLABEL_2\n");
    let classes = write("classes.tsv", "label\ttext\nLABEL_0\ta b\nLABEL_1\tb c\nLABEL_2\tc a\n");
    let [model, adapter] = [&model, &adapter].map(|path| path.to_str().unwrap());
    let tune =
        ["tune", "--model", model, "--train", &tags, "-o", adapter, "--strategy", "head", "--epochs", "1"];
    assert!(electret(&tune, b"").status.success());
    let predictions = folder.join("predictions.tsv");
    let evaluate = ["evaluate", "--model", model, "--data", &classes, "--json", "--predictions"];
    let said = |adapter: &[&str]| {
        let output = electret(&[&evaluate[..], &[predictions.to_str().unwrap()], adapter].concat(), b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (object["metrics"][0]["value"].clone(), std::fs::read_to_string(&predictions).unwrap())
    };
    assert_eq!(said(&[]), said(&["--adapter", adapter]));

    let empty = write("empty.tsv", "label\ttext\nLABEL_0\t \n");
    refused(
        &["evaluate", "--model", model, "--data", &empty],
        b"",
        1,
        "no example has a token to answer from",
    );
}

/// A model is compared with the folder that it was made of, and no other.
#[test]
fn verify_names_what_is_different() {
    let model = place("verify").join("model.electret");
    let folder = Golden::open().hugging_face_folder(Some("seqcls"));
    std::fs::write(&model, quantize(&Checkpoint::open(&folder).unwrap(), "", "").unwrap()).unwrap();
    let against = |folder: &Path, message: &str| {
        let (model, folder) = (model.to_str().unwrap(), folder.to_str().unwrap());
        refused(&["verify", "--model", model, "--against", folder], b"", 1, message);
    };
    edit_config(&folder, "id2label", serde_json::json!({"0": "a", "1": "b", "2": "c"}));
    against(&folder, "the labels a, b, c for classify, where the model has LABEL_0, LABEL_1, LABEL_2");
    against(&Golden::open().hugging_face_folder(Some("tokcls")), "a head for tag, which the model has not");
}

/// What is no file stays what it is; behind a link the file is written that it leads to.
#[cfg(unix)]
#[test]
fn outputs_take_the_place_of_files_only() {
    let folder = place("outputs");
    let source = Golden::open().hugging_face_folder(Some("seqcls"));
    let convert =
        |out: &Path| ["convert", source.to_str().unwrap(), "-o", out.to_str().unwrap()].map(str::to_owned);
    let [null, link, file] = ["/dev/null".into(), folder.join("link"), folder.join("file.electret")];
    let arguments = convert(&null);
    refused(&arguments.each_ref().map(String::as_str), b"", 1, "/dev/null: is there, and is no file");
    std::fs::write(&file, b"old").unwrap();
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let arguments = convert(&link);
    assert!(electret(&arguments.each_ref().map(String::as_str), b"").status.success());
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(Model::open(AlignedBytes::copy_of(&std::fs::read(&file).unwrap()).as_slice()).is_ok());
}

#[test]
fn json_is_one_object_and_offsets_are_the_callers() {
    let text = "Où est 東京, naïve café?";
    let output = electret(&["detect", "--json", text], b"");
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let tokens = object["tokens"].as_array().unwrap();
    assert!(tokens.len() > 5);
    for token in tokens {
        let span = token["start"].as_u64().unwrap() as usize..token["end"].as_u64().unwrap() as usize;
        assert_eq!(token["text"], text[span]);
        assert!((0.0..=1.0).contains(&token["replaced"].as_f64().unwrap()));
    }
}
