"""All cases: the mutations of each kind of input, and what may happen at each file operation of each command."""

from __future__ import annotations

import random

from tests.campaign import pictures, stores, texts
from tests.campaign.inputs import EVALUATE, EVERY_STEP, FEW, MODEL, REPRODUCE, RESUME
from tests.campaign.judge import Case

# Every command that writes, small, and what it reads.
WRITERS = [
    Case("", "", words, inputs)
    for words, inputs in [
        (
            ("train", "recipe.yaml", "--trainer.max_steps=2", *EVERY_STEP, "--out", "out", "--or-resume"),
            ("recipe.yaml",),
        ),
        (RESUME, ("run",)),
        (("decompose", MODEL, "photos/a.png", "--out", "out"), (MODEL, "photos")),
        (EVALUATE, (MODEL, "store.h5")),
        (("evaluate", MODEL, "--out", "out", "--shift", "crop", *FEW), (MODEL,)),
        (("compare", MODEL, MODEL, "--out", "out", *FEW), (MODEL,)),
        ((*EVALUATE, "--overwrite"), (MODEL, "store.h5", "earlier/evaluate:out")),
        (("compare", MODEL, "--out", "out", *FEW, "--overwrite"), (MODEL, "earlier/compare:out")),
        (("evaluate", MODEL, "--out=out", "--shift=crop", *FEW, "--overwrite"), (MODEL, "earlier/shifts:out")),
        (("decompose", MODEL, "photos/a.png", "--out=out", "--overwrite"), (MODEL, "photos", "earlier/decompose:out")),
        (REPRODUCE, ("table.yaml", "recipe.yaml")),
        (("generate", "multi_dsprites", "--count=2", "--out", "out.h5"), ()),
        (("convert", "multi_dsprites", "scenes.tfrecords", "--out", "out.h5"), ("scenes.tfrecords",)),
        (("convert", "clevr", "clevr.tfrecords", "--out", "out.h5"), ("clevr.tfrecords",)),
    ]
]


def mutations(seed: int) -> list[Case]:
    """All mutations; the same for the same seed."""
    return [
        case(random.Random(f"{seed} {case.__name__} {number}"), number)
        for count, case in (*pictures.KINDS, *texts.KINDS, *stores.KINDS)
        for number in range(count)
    ]


def faults(seed: int, operations: list[list[str]]) -> list[Case]:
    """A kill at every file operation of every writer, other faults at some of them, and disks of few bytes."""
    cases = []
    for writer, names in zip(WRITERS, operations, strict=True):
        rng, count = random.Random(seed), len(names)
        chosen = [("kill", number) for number in range(1, count + 1)]
        for what in ("full", "denied", "broken", "interrupt"):
            chosen += [(what, number) for number in sorted(rng.sample(range(1, count + 1), min(count, 6)))]
        chosen += [("limit", size) for size in (0, 100, 3_000, 50_000)]
        for what, number in chosen:
            where = f"{number} bytes" if what == "limit" else f"operation {number}, {names[number - 1]}"
            name = f"{' '.join(writer.words[:2])}: {what}, {where}"
            kind = "kills" if what == "kill" else "disk"
            cases.append(Case(kind, name, writer.words, writer.inputs, expect="same", fault=(what, number)))
    return cases
