"""Detects, learns and classifies through the Python bindings, and prints every bit: agree.py MODEL TRAIN.tsv FOLDER."""

import struct
import sys

import electret

TEXT = "He opened the door and walked table the room."
QUESTION = "free prize! call now"
LABELS = ["ham", "spam"]


class Watch(electret.Progress):
    steps = 0

    def step(self, done, of, loss):
        self.steps = done
        return done <= of and loss >= 0


def bits(value):
    return struct.pack(">f", value).hex()


def main(path, train, folder):
    model = electret.Model.open(path)
    for found in model.detect(TEXT):
        print("detect", found.span.start, found.span.end, bits(found.replaced))

    with open(train, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    examples = [electret.Example(text=text, truth=electret.Truth.LABEL(label)) for label, text in rows]
    tuner = electret.Tuner.in_folder(model, electret.Lesson(kind="classify", labels=LABELS), folder)
    watch = Watch()
    learned = tuner.learn_watched(examples, 2, watch)
    assert watch.steps == learned.steps
    tuner.save()
    scores = {score.label: score.probability for score in model.with_adapter_of(folder).classify(QUESTION)}
    for label in LABELS:
        print("classify", label, bits(scores[label]))


if __name__ == "__main__":
    main(*sys.argv[1:])
