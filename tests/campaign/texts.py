"""Mutations of recipes, command lines, environments and streams."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.campaign.damage import WAYS, rewritten
from tests.campaign.inputs import EVALUATE, MODEL, REPRODUCE
from tests.campaign.judge import Case, Ran

WORDS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
VALUES = [*WORDS["recipe_values"], "9" * 5000, "[" * 3000, "{a: " * 900]
TEXTS: list[Callable[[str], str]] = [
    lambda text: f"\ufeff{text}",
    lambda text: text.replace("\n", "\r\n"),
    lambda text: text.replace("  ", "\t"),
    lambda text: f"%YAML 1.1\n---\n{text}",
    lambda text: f"{text}---\n{text}",
    lambda text: f"# {'x' * 240_000}\n{text}",
    lambda text: f"{text}a: &a [{'x, ' * 9}]\nb: &b [{'*a, ' * 99}]\nc: [{'*b, ' * 900}]\n",
    lambda text: f"{text}\x00",
    lambda text: f"{text}seed: 1\n",
    lambda text: f"{text}\N{NO-BREAK SPACE}\n",
    lambda text: f"- {text}".replace("\n", "\n  "),
    lambda text: f"{text}? [a, b]\n: c\n",
    lambda text: f"{text}<<: {{seed: 4}}\n",
    lambda text: json.dumps(yaml.safe_load(text)),
    lambda text: "seed: 1\n",
    lambda text: text.replace("seed: 0", "seed: 0 # \udce9"),  # a byte that is not UTF-8
]
ARGUMENTS = [*WORDS["words"], "9" * 5000, "x" * 300]
COMMANDS: list[tuple[str, tuple[str, ...]]] = [
    ("recipes recipe.yaml --all --model.num_slots 4", ("recipe.yaml",)),
    ("train recipe.yaml --out out --trainer.max_steps 1 --seed 3", ("recipe.yaml",)),
    ("train --resume run --trainer.max_steps 3", ("run",)),
    ("evaluate model.safetensors --data store.h5 --out out --batch-size 2", (MODEL, "store.h5")),
    ("evaluate model.safetensors --out out --shift crop --data.count 2", (MODEL,)),
    ("compare model.safetensors model.safetensors --data.count 2 --out out --scenes 1", (MODEL,)),
    ("decompose model.safetensors photos --out out --fit pad --skip-damaged", (MODEL, "photos")),
    ("generate multi_dsprites --count 2 --out out.h5 --data.size 32", ()),
    ("convert multi_dsprites scenes.tfrecords --out out.h5 --count 2", ("scenes.tfrecords",)),
    ("convert clevr clevr.tfrecords --out out.h5 --data.min_objects 0", ("clevr.tfrecords",)),
]
PROCESSES: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    (("decompose", MODEL, "photo.png", "--out", "out"), (MODEL, "photo.png")),
    (("train", "recipe.yaml", "--trainer.max_steps=1", "--out", "out"), ("recipe.yaml",)),
    (("generate", "multi_dsprites", "--count=2", "--out", "out.h5", "--data.size=32"), ()),
    (EVALUATE, (MODEL, "store.h5")),
]


def leaves(values: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """The values of nested mappings and lists, by their keys."""
    if not isinstance(values, dict | list):
        yield path, values
        return
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield from leaves(value, (*path, key))


def printed_as_written(folder: Path, ran: Ran) -> str:
    """Every setting of the file is printed with the value that another reader of YAML finds."""
    try:
        written = yaml.load((folder / "recipe.yaml").read_text(encoding="utf-8"), yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"taken, but PyYAML does not read it: {error}"
    printed = dict(leaves(yaml.load(ran.out, yaml.BaseLoader)))
    for path, value in leaves(written):
        compared = path[0] not in ("about", "name") and value not in ("", "null", "~")
        if compared and not _same(value, printed.get(path, "")):
            return f"{path} is {value[:80]!r}, but {printed.get(path, 'nothing')[:80]!r} is printed"
    return ""


def _same(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return a.strip().lower() == b.strip().lower()


def recipe_yaml(rng: random.Random, number: int) -> Case:
    """A recipe, or a file of tables, with one value, key, line, byte or its whole text changed."""
    kind, which = number % 6, number // 6

    def change(data: bytes) -> bytes:
        text = data.decode()
        if kind == 4:
            return WAYS[[*WAYS][which % len(WAYS)]](data, rng)
        if kind == 5:
            return TEXTS[which % len(TEXTS)](text).encode(errors="surrogateescape")
        lines = text.splitlines(keepends=True)
        at = rng.choice([n for n, line in enumerate(lines) if ":" in line])
        key, _, value = lines[at].partition(":")
        if kind < 2:
            lines[at] = f"{key}: {VALUES[(2 * which + kind) % len(VALUES)]}\n"
        elif kind == 2:
            indent, keys = key[: len(key) - len(key.lstrip())], WORDS["recipe_keys"]
            lines[at] = f"{indent}{keys[which % len(keys)]}:{value}"
        else:
            lines[at] = rng.choice(["", lines[at] * 2, f" {lines[at]}", lines[at].lstrip()])
        return "".join(lines).encode()

    inputs, changed = ("recipe.yaml",), rewritten("recipe.yaml", change)
    if number % 10 == 5:
        return Case(
            "recipes", f"table {number}", REPRODUCE, ("table.yaml", *inputs), rewritten("table.yaml", change), "any"
        )
    if number % 10:
        return Case("recipes", f"{number}", ("recipes", "recipe.yaml", "--all"), inputs, changed, printed_as_written)
    words = ("train", "recipe.yaml", "--out", "out", "--trainer.max_steps=1")
    return Case("recipes", f"train {number}", words, inputs, changed, "any")


def command_lines(rng: random.Random, number: int) -> Case:
    """A command line with one word too few, too many, exchanged or replaced."""
    line, inputs = COMMANDS[number % len(COMMANDS)]
    words, which = line.split(), number // len(COMMANDS)
    changed, at, other = [*words], rng.randrange(1, len(words)), rng.randrange(1, len(words))
    way, word = which % 5, ARGUMENTS[(which // 5 * 2 + which % 2) % len(ARGUMENTS)]
    if way == 0:
        del changed[at]
    elif way == 1:
        changed.insert(at, changed[at])
    elif way == 2:
        changed[at], changed[other] = changed[other], changed[at]
    else:
        changed[at : at + (way == 4)] = [word]
    return Case("command lines", "", tuple(changed), inputs, expect="any", sound=tuple(words))


def path_words(rng: random.Random, number: int) -> Case:
    """A path is the word as it stands."""
    word = WORDS["paths"][number]

    def check(folder: Path, ran: Ran) -> str:
        printed = yaml.load(ran.out, yaml.BaseLoader)["data"]["folder"]
        return "" if printed == word else f"{word!r} became {printed!r}"

    words = ("recipes", "rmonet_unet/images", "--all", f"--data.folder={word}")
    return Case("command lines", f"a path {word!r}", words, expect=check, sound=("recipes", "rmonet_unet/images"))


def streams(rng: random.Random, number: int) -> Case:
    """Closed, full and broken streams of a new process."""
    forms = WORDS["streams"]
    (words, inputs), form = PROCESSES[number // len(forms)], forms[number % len(forms)]
    expect = "any" if "ulimit" in form else "same"
    shell = form.replace("UNSCENE", f"UNSCENE {' '.join(words)}")
    return Case("streams", f"{words[0]}: {form}", words, inputs, expect=expect, shell=shell)


def environments(rng: random.Random, number: int) -> Case:
    """Variables of the environment of a new process."""
    lines = WORDS["environments"]
    line, (words, inputs) = lines[number % len(lines)], PROCESSES[(number + number // len(lines)) % len(PROCESSES)]
    asks = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_NNODES")  # for several processes
    expect = "any" if any(name in line for name in asks) else "same"
    variables = dict(word.split("=", 1) for word in line.split(" "))
    shell = f"UNSCENE {' '.join(words)}"
    return Case("environment", f"{words[0]}: {line}", words, inputs, expect=expect, environment=variables, shell=shell)


KINDS = [
    (200, recipe_yaml),
    (150, command_lines),
    (len(WORDS["paths"]), path_words),
    (3 * len(WORDS["streams"]), streams),
    (len(WORDS["environments"]) + 20, environments),
]
