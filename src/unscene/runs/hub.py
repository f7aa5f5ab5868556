"""Publish weights on the Hugging Face hub: `weights.safetensors`, `recipe.yaml` and a card with the scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unscene.errors import CheckpointError, import_extra
from unscene.runs.loading import HUB, LoadedModel, chosen_file, hub_errors, load
from unscene.runs.weights import public_weights

_CARD = """---
{metadata}
---

# {name}

{title} Trained without labels by unscene, which is also needed to use it. The repository holds no code.

    pip install 'unscene[hub]'
    unscene decompose hf://{repository} IMAGES --out out

or in Python `unscene.load("hf://{repository}")`. It takes images of {size} pixels; `recipe.yaml` holds every setting.

## Scores

{scores}
"""


def push(
    model: str | Path, repository: str, report: Path | None = None, private: bool = False, licence: str = ""
) -> str:
    """Publish the weights of a run, a safetensors file or shipped weights in a repository `user/name`, and return its
    address. A repository that exists gets a new commit. Of absolute paths in recipe and commands the last name remains.

    Args:
        model: what `load` takes.
        repository: of the Hugging Face hub; created if it is missing.
        report: folder of an evaluation of these weights, by default the run's `report`, if it is there.
        private: create a private repository.
        licence: of the weights, by the hub's name for it, for instance `apache-2.0`.

    Raises:
        CheckpointError: no weights, a report of other weights, or the hub refuses or cannot be reached.
        ExtraError: without the extra `hub`.
    """
    repository = repository.removeprefix(HUB)
    hub = import_extra("huggingface_hub", "hub")
    file, run = chosen_file(model)
    if file.suffix != ".safetensors":
        raise CheckpointError(f"{model} has no weights.safetensors, which a training writes at its end. Finish it.")
    loaded = load(file)
    if report is None and run is not None and (run.path / "report" / "metrics.json").is_file():
        report = run.path / "report"
    weights, recipe = public_weights(file)
    card = _card(loaded, repository, _evaluation(loaded, report), licence)
    files = {"weights.safetensors": weights, "recipe.yaml": recipe.encode(), "README.md": card.encode()}
    operations = [hub.CommitOperationAdd(name, content) for name, content in files.items()]
    with hub_errors(f"{HUB}{repository}"):
        address = hub.create_repo(repository, private=private, exist_ok=True)
        hub.create_commit(repository, operations, commit_message=f"Weights of {loaded.name}, written by unscene")
    return str(address)


def _evaluation(loaded: LoadedModel, report: Path | None) -> dict[str, Any]:
    """The content of a report's metrics.json, or the scores that the weights themselves hold."""
    if report is None:
        return dict(loaded.provenance.get("scores", {}))
    path = report / "metrics.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        scored = found["provenance"]["weights"]
        checksum = scored["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no evaluation ({error!r}). Write it: `unscene evaluate RUN --out DIR`."
        ) from error
    if checksum != loaded.provenance["sha256"] or "num_slots" in scored:
        raise CheckpointError(
            f"{path} is of other weights or another number of slots. Evaluate these: `unscene evaluate RUN --out DIR`."
        )
    return dict(found)


def _card(loaded: LoadedModel, repository: str, evaluation: dict[str, Any], licence: str) -> str:
    hub = import_extra("huggingface_hub", "hub")
    scores = {name: value for name, value in evaluation.items() if isinstance(value, float) and name != "ms_per_image"}
    data = evaluation.get("provenance", {}).get("data", {"source": loaded.recipe.data_name})
    source = str(data.get("source") or data.get("name") or loaded.recipe.data_name)
    results = [
        hub.EvalResult("image-segmentation", source, source, name, round(value, 4), task_name="unsupervised objects")
        for name, value in scores.items()
    ]
    metadata = hub.ModelCardData(
        library_name="unscene",
        pipeline_tag="image-segmentation",
        tags=["unscene", "object-centric-learning", "unsupervised-learning", loaded.recipe.model_name],
        license=licence or None,
        eval_results=results or None,
        model_name=loaded.name if results else None,
    )
    described = ", ".join(  # of a path its last name alone: the card is public
        f"{key} {Path(str(value)).name}" for key, value in data.items() if isinstance(value, str | int) and value != ""
    )
    rows = [f"| {name} | {value:.4f} |" for name, value in scores.items()]
    table = "\n".join([f"On {described}:", "", "| metric | value |", "|---|---|", *rows]) if rows else "Not measured."
    return _CARD.format(
        metadata=metadata.to_yaml().strip(),
        name=loaded.name,
        title=loaded.recipe.about.title or loaded.recipe.model_name + ".",
        repository=repository,
        size=loaded.size,
        scores=table,
    )
