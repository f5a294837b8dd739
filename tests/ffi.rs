//! The C ABI as a careless program would use it: NULL, wrong encodings, too little room, numbers that were destroyed.
//! `tests/bindings/agree.c` shows that it gives the command's bits.

use core::ffi::{CStr, c_void};
use core::ptr::{null, null_mut};

use electret::ffi::*;
use electret::weights::AlignedBytes;

const TINY: &CStr = c"models/electret-tiny.electret";
const TEXT: &CStr = c"He opened the door and walked table the room.";

fn no_failure() -> Failure {
    Failure { status: Status::Ok, message: [0; 256] }
}

/// The call was refused with that status, and its message has these words.
fn refused(call: impl FnOnce(*mut Failure) -> Status, status: Status, words: &str) {
    let mut failure = no_failure();
    assert_eq!(call(&raw mut failure), status, "{words}");
    assert_eq!(failure.status, status);
    // SAFETY: a message ends with NUL.
    let message = unsafe { CStr::from_ptr(failure.message.as_ptr()) }.to_str().expect("UTF-8");
    assert!(message.contains(words), "{message}");
}

fn done(status: Status) {
    assert_eq!(status, Status::Ok);
}

fn open() -> Model {
    let mut model = Model { number: 0 };
    // SAFETY: all pointers are good.
    done(unsafe { electret_model_open(TINY.as_ptr(), &raw mut model, null_mut()) });
    model
}

fn tuner(model: Model) -> Tuner {
    let labels = [c"no".as_ptr(), c"yes".as_ptr()];
    let lesson = lesson(&labels);
    let mut tuner = Tuner { number: 0 };
    // SAFETY: all pointers are good, or NULL where that is allowed.
    done(unsafe { electret_tuner_open(model, &raw const lesson, null(), &raw mut tuner, null_mut()) });
    tuner
}

fn lesson(labels: &[*const core::ffi::c_char; 2]) -> Lesson {
    Lesson {
        kind: Kind::Classify as u32,
        labels: labels.as_ptr(),
        label_count: 2,
        strategy: null(),
        tokens: 0,
        batch_size: 0,
        learning_rate: 0.0,
        seed: 0,
    }
}

fn example(label: &u16) -> Example {
    Example {
        text: TEXT.as_ptr(),
        text_bytes: NUL_TERMINATED,
        pair: null(),
        pair_bytes: 0,
        labels: label,
        label_count: 1,
        value: 0.0,
        start: 0,
        end: 0,
    }
}

#[test]
fn null_is_refused_by_name() {
    let model = open();
    let mut count = 0;
    // SAFETY: NULL is what is tested; everything else is good.
    unsafe {
        refused(|e| electret_model_open(null(), null_mut(), e), Status::Argument, "path: must not be NULL");
        refused(
            |e| electret_model_open(TINY.as_ptr(), null_mut(), e),
            Status::Argument,
            "model: must not be NULL",
        );
        refused(
            |e| electret_model_from_bytes(null(), 9, &mut { model }, e),
            Status::Argument,
            "bytes: must not",
        );
        let detect = |text, found, capacity, count, e| {
            electret_model_detect(model, text, NUL_TERMINATED, false, found, capacity, count, e)
        };
        refused(|e| detect(null(), null_mut(), 0, &mut count, e), Status::Argument, "text: must not be NULL");
        refused(
            |e| detect(TEXT.as_ptr(), null_mut(), 8, &mut count, e),
            Status::Argument,
            "values: must not",
        );
        refused(|e| detect(TEXT.as_ptr(), null_mut(), 0, null_mut(), e), Status::Argument, "count: must not");
        refused(
            |e| electret_session_detect(null_mut(), TEXT.as_ptr(), 3, false, null_mut(), 0, &mut count, e),
            Status::Argument,
            "session: must not be NULL",
        );
        refused(
            |e| electret_learner_step(null_mut(), null_mut(), e),
            Status::Argument,
            "learner: must not be NULL",
        );
        refused(
            |e| electret_tuner_open(model, null(), null(), null_mut(), e),
            Status::Argument,
            "lesson: must not",
        );
        refused(
            |e| electret_tuner_learn(tuner(model), null(), 3, 1, None, null_mut(), null_mut(), e),
            Status::Argument,
            "examples: must not be NULL",
        );
        // Without a place for the words, the status alone.
        assert_eq!(electret_model_open(null(), null_mut(), null_mut()), Status::Argument);
    }
    electret_model_destroy(model);
}

#[test]
fn what_was_destroyed_answers_no_more_and_harms_nobody() {
    let (model, other) = (open(), open());
    let tuner = tuner(model);
    let mut passed = false;
    electret_model_destroy(model);
    electret_model_destroy(model);
    electret_model_destroy(Model { number: 0 });
    // SAFETY: all pointers are good.
    unsafe {
        let gone = "was destroyed, or never opened";
        refused(|e| electret_model_self_test(model, &mut passed, e), Status::Handle, gone);
        refused(
            |e| electret_model_self_test(Model { number: tuner.number }, &mut passed, e),
            Status::Handle,
            gone,
        );
        refused(|e| electret_tuner_save(Tuner { number: other.number }, e), Status::Handle, gone);
        // A tuner holds on to its model.
        let label = 1;
        done(electret_tuner_learn(tuner, &example(&label), 1, 1, None, null_mut(), null_mut(), null_mut()));
        electret_tuner_destroy(tuner);
        refused(|e| electret_tuner_cancel(tuner, e), Status::Handle, gone);
        done(electret_model_self_test(other, &mut passed, null_mut()));
    }
    assert!(passed);
    electret_model_destroy(other);
}

#[test]
fn answers_from_many_threads_while_handles_come_and_go() {
    let model = open();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                for _ in 0..20 {
                    let mut count = 0;
                    let mut found = [Detection { start: 0, end: 0, replaced: 0.0 }; 64];
                    // SAFETY: all pointers are good.
                    let status = unsafe {
                        let (text, found) = (TEXT.as_ptr(), found.as_mut_ptr());
                        electret_model_detect(
                            model,
                            text,
                            NUL_TERMINATED,
                            false,
                            found,
                            64,
                            &mut count,
                            null_mut(),
                        )
                    };
                    assert!(status == Status::Handle || status == Status::Ok && count == 10);
                    electret_model_destroy(open());
                }
                electret_model_destroy(model);
            });
        }
    });
}

#[test]
fn wrong_texts_and_too_little_room_are_said() {
    let model = open();
    let mut count = 0;
    let mut found = [Detection { start: 0, end: 0, replaced: 0.0 }; 4];
    // SAFETY: all pointers are good.
    unsafe {
        let mut detect = |text: &[u8], capacity, e: *mut Failure| {
            let (bytes, length) = (text.as_ptr().cast(), text.len());
            electret_model_detect(model, bytes, length, false, found.as_mut_ptr(), capacity, &mut count, e)
        };
        refused(|e| detect(b"caf\xe9", 4, e), Status::Text, "text: not UTF-8 after byte 3");
        refused(|e| detect(b"", 4, e), Status::Text, "the text is empty");
        refused(|e| detect(&b"word ".repeat(200_000), 4, e), Status::Text, "200002 tokens, at most");
        refused(|e| detect(TEXT.to_bytes(), 4, e), Status::Room, "10 values, there is room for 4");
        done(detect(b"three words\0here", 4, null_mut()));
    }
    assert_eq!(count, 3, "a NUL within a text is dropped by the tokeniser, as in the command");
    let mut probabilities = [0.0; 2];
    // SAFETY: all pointers are good.
    unsafe {
        refused(
            |e| {
                let p = probabilities.as_mut_ptr();
                electret_model_classify(model, TEXT.as_ptr(), 5, null(), 0, false, p, 2, &mut count, e)
            },
            Status::NoSuchHead,
            "no classify head",
        );
        let not_a_model = [7u8; 100];
        refused(
            |e| electret_model_from_bytes(not_a_model.as_ptr(), 100, &mut { model }, e),
            Status::Model,
            "no .electret file",
        );
        refused(
            |e| electret_model_with_adapter(model, not_a_model.as_ptr(), 100, &mut { model }, e),
            Status::Adapter,
            "no .adapter file",
        );
    }
    electret_model_destroy(model);
}

#[test]
fn the_callers_memory_is_measured_and_kept_to() {
    let file = AlignedBytes::copy_of(&std::fs::read(TINY.to_str().expect("UTF-8")).expect("the model"));
    let model = file.as_slice();
    let (bytes, length) = (model.as_ptr(), model.len());
    let (mut needed, mut count) = (0, 0);
    // SAFETY: all pointers are good; what is wrong with lengths and alignment is what is tested.
    unsafe {
        refused(|e| electret_session_bytes(bytes, length, 1 << 31, &mut needed, e), Status::Text, "at most");
        done(electret_session_bytes(bytes, length, 32, &mut needed, null_mut()));
        let mut memory = AlignedBytes::zeroed(needed + 64);
        memory.as_mut_slice().fill(0xa5);
        let place = memory.as_mut_slice().as_mut_ptr();
        let mut session = null_mut();
        let mut begin = |place, bytes_of_it, tokens, e| {
            electret_session_begin(place, bytes_of_it, bytes, length, tokens, &mut session, e)
        };
        refused(|e| begin(place, needed - 1, 32, e), Status::Memory, "bytes where");
        refused(|e| begin(place.add(1), needed, 32, e), Status::Memory, "multiple of 64");
        refused(|e| begin(null_mut(), needed, 32, e), Status::Argument, "memory: must not be NULL");
        refused(|e| begin(place, needed, 0, e), Status::Text, "at least 3 tokens");
        done(begin(place, needed, 32, null_mut()));
        let mut found = [Detection { start: 0, end: 0, replaced: 0.0 }; 16];
        let (text, out) = (TEXT.as_ptr(), found.as_mut_ptr());
        done(electret_session_detect(session, text, NUL_TERMINATED, false, out, 16, &mut count, null_mut()));
        assert_eq!(count, 10);
        assert!(memory.as_slice()[needed..].iter().all(|&byte| byte == 0xa5));

        let labels = [c"no".as_ptr(), c"yes".as_ptr()];
        let good = lesson(&labels);
        done(electret_learner_bytes(bytes, length, &good, &mut needed, null_mut()));
        let mut memory = AlignedBytes::zeroed(needed + 64);
        memory.as_mut_slice().fill(0xa5);
        let place = memory.as_mut_slice().as_mut_ptr();
        let mut learner = null_mut();
        let mut begin = |lesson: Lesson, bytes_of_it, e| {
            electret_learner_begin(place, bytes_of_it, bytes, length, &lesson, &mut learner, e)
        };
        refused(|e| begin(Lesson { kind: 99, ..good }, needed, e), Status::Argument, "none of electret_kind");
        refused(|e| begin(Lesson { tokens: 9999, ..good }, needed, e), Status::Text, "at most");
        refused(|e| begin(Lesson { label_count: 1, ..good }, needed, e), Status::Lesson, "labels: must be");
        refused(|e| begin(Lesson { labels: null(), ..good }, needed, e), Status::Argument, "lesson.labels");
        refused(
            |e| begin(Lesson { strategy: c"?".as_ptr(), ..good }, needed, e),
            Status::Argument,
            "strategy",
        );
        refused(|e| begin(good, needed - 1, e), Status::Memory, "bytes where");
        done(begin(good, needed, null_mut()));
        let (label, unknown) = (1, 7);
        let learn = |label, e| electret_learner_learn(learner, &example(label), null_mut(), e);
        refused(|e| learn(&unknown, e), Status::Lesson, "label: 7 is none of the task's 2");
        done(learn(&label, null_mut()));
        let mut taken = false;
        done(electret_learner_step(learner, &mut taken, null_mut()));
        assert!(taken);
        assert!(memory.as_slice()[needed..].iter().all(|&byte| byte == 0xa5));
        refused(|e| electret_learner_restore(learner, bytes, length, e), Status::Adapter, "magic");

        // A lesson of another kind has its own labels: the caller's are not looked at, and nothing is written for them.
        let labels = [c"one".as_ptr(); 100];
        let value = Lesson { kind: Kind::Regress as u32, labels: labels.as_ptr(), label_count: 100, ..good };
        done(electret_learner_bytes(bytes, length, &value, &mut needed, null_mut()));
        let mut memory = AlignedBytes::zeroed(needed + 4096);
        memory.as_mut_slice().fill(0xa5);
        let place = memory.as_mut_slice().as_mut_ptr();
        done(electret_learner_begin(place, needed, bytes, length, &value, &mut learner, null_mut()));
        assert!(memory.as_slice()[needed..].iter().all(|&byte| byte == 0xa5));
    }
}

unsafe extern "C" fn third(user: *mut c_void, done: u32, _: u32, _: f32) -> bool {
    // SAFETY: the test hands over a counter.
    unsafe { *user.cast::<u32>() = done };
    done < 3
}

#[test]
fn a_callback_cancels_a_round() {
    let model = open();
    let tuner = tuner(model);
    let label = 1;
    let mut steps = 0u32;
    let learn = |callback: ProgressCallback, user: *mut c_void, e| {
        let round = null_mut();
        // SAFETY: all pointers are good.
        unsafe { electret_tuner_learn(tuner, &example(&label), 1, 9, callback, user, round, e) }
    };
    refused(|e| learn(Some(third), (&raw mut steps).cast(), e), Status::Cancelled, "was cancelled");
    assert_eq!(steps, 3);
    done(learn(None, null_mut(), null_mut()));
    // SAFETY: all pointers are good.
    unsafe {
        refused(|e| electret_tuner_save(tuner, e), Status::Argument, "folder: the tuner was opened without")
    };
    electret_tuner_destroy(tuner);
    electret_model_destroy(model);
}
