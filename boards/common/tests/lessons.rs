//! What a board learns over the line it answers from then on, and after a new start.

mod common;

use std::path::Path;

use common::{MODEL, MemorySlots, Wire, board};
use electret::evaluate::{Example, LabelNames, Labelled, Truth as Known};
use electret::link::{Answer, Command, Frames, Lesson, Reply, Truth};
use electret_board::Outcome;

/// A message a request, of those that were said.
fn said(wire: &Wire) -> Vec<Vec<u8>> {
    let (mut frames, mut messages) = (Frames::default(), Vec::new());
    for byte in wire.from_board.take() {
        if let Some(length) = frames.push(byte) {
            messages.push(frames.message(length).to_vec());
        }
    }
    messages
}

fn words(name: &str) -> Labelled {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data").join(name);
    Labelled::read(&file, LabelNames::OfFile).unwrap()
}

/// How many of the words of some sentences a board tags as the file does, and how many there are.
fn right(wire: &Wire, serve: &mut impl FnMut(), data: &Labelled) -> (usize, usize) {
    let (mut right, mut all) = (0, 0);
    for Example { text, truth, .. } in &data.examples {
        let Known::Tags(truth) = truth else { panic!("words have tags") };
        wire.send(1, Command::Tag(text));
        serve();
        let messages = said(wire);
        let found = messages.iter().filter_map(|message| match postcard::from_bytes(message).unwrap() {
            Reply { answer: Answer::Word { start, label, .. }, .. } => Some((start as usize, label)),
            _ => None,
        });
        let found: Vec<(usize, &str)> = found.collect();
        let mut start = 0;
        for (word, &tag) in text.split(' ').zip(truth) {
            let tag = data.labels[usize::from(tag)].as_str();
            right += usize::from(found.contains(&(start, tag)));
            all += 1;
            start += word.len() + 1;
        }
    }
    (right, all)
}

#[test]
fn a_board_learns_to_tag() {
    let (train, mut test) = (words("words.conll"), words("words-test.conll"));
    test.examples.truncate(40);
    let wire = Wire::default();
    let mut board = board(wire.clone(), MemorySlots::new(MODEL), None);
    let mut serve = || assert_eq!(board.serve(), Ok(Outcome::Closed));

    // A request that is not answered as asked for says so.
    let ask = |number, command: Command<'_>| wire.send(number, command);
    let labels = train.labels.join("\n");
    let lesson = Command::Teach {
        lesson: Lesson::Tag,
        labels: &labels,
        strategy: "lora:2:1+head",
        learning_rate: 5e-3,
    };
    ask(1, lesson);
    ask(2, Command::Learn { text: "two words", truth: Truth::Class(0) });
    ask(3, Command::Learn { text: "two words", truth: Truth::Tags(&[0]) });
    ask(4, Command::Learn { text: "two words", truth: Truth::Tags(&[0, 200]) });
    serve();
    let replies = said(&wire);
    let replies: Vec<Reply<'_>> = replies.iter().map(|reply| postcard::from_bytes(reply).unwrap()).collect();
    assert_eq!(replies[0].answer, Answer::Done { replies: 0 });
    for (reply, named) in replies[1..].iter().zip(["target: the task is", "target: 1 labels", "label: 200"]) {
        let Answer::Refused(error) = reply.answer else { panic!("{reply:?}") };
        assert!(error.to_string().starts_with(named), "{error}");
    }

    ask(5, lesson);
    let mut number = 5;
    for _ in 0..3 {
        for batch in train.examples.chunks(4) {
            for Example { text, truth, .. } in batch {
                let Known::Tags(tags) = truth else { panic!("words have tags") };
                let tags: Vec<u8> = tags.iter().map(|&tag| tag as u8).collect();
                number += 1;
                ask(number, Command::Learn { text, truth: Truth::Tags(&tags) });
            }
            number += 1;
            ask(number, Command::Step);
        }
    }
    ask(number + 1, Command::Commit { adapter: 3 });
    serve();
    let last = said(&wire).pop().unwrap();
    assert_eq!(postcard::from_bytes::<Reply<'_>>(&last).unwrap().answer, Answer::Done { replies: 0 });

    let (right, all) = right(&wire, &mut serve, &test);
    println!("{right} of {all} words");
    assert!(right * 10 > all * 6, "{right} of {all} words");
}
