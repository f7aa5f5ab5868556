"""A trained model, from a run's folder or a weights file, ready for images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unscene.data.image_file import AS_STORED, ContrastSettings
from unscene.data.image_resize import FitKind
from unscene.errors import CheckpointError, DataError, RecipeError, ShapeError, check_shape, import_extra
from unscene.runs.recipe import Recipe, leaves, read_recipe
from unscene.runs.run_folder import RunFolder
from unscene.runs.trainer_settings import use_bfloat16
from unscene.runs.weights import check_weights, read_checkpoint, read_weights
from unscene.scene import Decomposition, Sequence

SHIPPED = Path(__file__).resolve().parents[1] / "weights"
HUB = "hf://"  # before the name of a repository on the Hugging Face hub


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, its checked recipe, where its weights come from, and the run if it is one's."""

    model: nn.Module
    recipe: Recipe
    provenance: dict[str, Any]
    run: RunFolder | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The recipe as plain values."""
        return self.recipe.values

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe.name

    @property
    def size(self) -> int:
        """Side of the images that the model takes, in pixels."""
        return int(self.recipe.values["data"]["size"])

    @property
    def fit(self) -> FitKind:
        """How the recipe's data brings images to the model's square; "stretch" where its images are square already."""
        return getattr(self.recipe.data, "fit", "stretch")

    @property
    def contrast(self) -> ContrastSettings:
        """How the recipe's data scale the values of an image file; as they are stored where it says nothing."""
        return getattr(self.recipe.data, "contrast", AS_STORED)

    @property
    def crop(self) -> int | None:
        """Side of the crops that the training took from larger images, in their pixels; None without crops."""
        crop = getattr(self.recipe.data, "crop", None)  # of a generated scene it is a share of its side, a float
        return crop if isinstance(crop, int) else None

    @property
    def object_size(self) -> float | None:
        """Diameter of an object in the training's images, in their pixels; None where the recipe does not state it."""
        size = getattr(self.recipe.data, "object_size", None)
        return None if size in (None, "auto") else float(size)

    @property
    def tile(self) -> int | None:
        """Side of the part of an image that the model saw in the training; None where it saw images of any size."""
        return self.crop or (None if hasattr(self.recipe.data, "fit") else self.size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def decompose(self, images: Tensor, batch_size: int = 32) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1, `batch_size` at once, in bfloat16 where that is faster.

        Returns:
            The Decomposition, float32, on the CPU.

        Raises:
            ShapeError: images of another size or type. For images of any size see `unscene.inference.decompose`.
            DataError: values of the images are not finite.
            CheckpointError: the output is not finite: the weights are broken.
        """
        check_shape(images, f"B 3 {self.size} {self.size}", "images")
        if images.dtype != torch.float32:
            raise ShapeError(f"images must be float32 in 0..1, but are {images.dtype}. Convert and scale them.")
        bfloat16 = use_bfloat16(self.recipe.trainer.precision, self.device)
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16)
        with torch.inference_mode(False), torch.no_grad(), autocast:
            parts = [self.model(part.to(self.device)).map(_plain) for part in images.split(batch_size)]
        decomposition = Decomposition.concatenate(parts)
        broken = _not_finite(decomposition)
        if broken and not images.isfinite().all():
            raise DataError("images hold values that are not finite, but 0..1 was expected. Replace these values.")
        if broken:
            raise CheckpointError(
                f"{self.name} ({self.run.path if self.run else self.provenance['weights']}) answers with {broken} that "
                "are not finite: its weights are broken. Name an earlier checkpoint, or train it again at a lower "
                "learning rate."
            )
        return decomposition

    def decompose_sequence(self, sequence: Sequence) -> Iterator[Decomposition]:
        """Decompose the frames of B clips in their order, with what `over_frames` carries from one to the next.

        All B images of a frame are decomposed at once.

        Yields:
            For each of the T frames the Decomposition of B images, as `decompose`.
        """
        clips = sequence.images.shape[1]
        model = self.for_frames(clips)
        for scene in sequence:
            yield model.decompose(scene.images, batch_size=clips)

    def for_frames(self, clips: int = 1) -> LoadedModel:
        """Return the model for the frames of one sequence, which `decompose` then takes in their order.

        Of several `clips` it takes frame after frame, each of all of them at once: `batch_size` is a multiple of them.
        It is the model itself unless its setting `over_frames` says that it carries something from frame to frame.
        """
        over_frames = getattr(getattr(self.model, "settings", None), "over_frames", False)
        return replace(self, model=_FrameByFrame(self.model, clips)) if over_frames else self

    def with_slots(self, num_slots: int) -> LoadedModel:
        """Return the same weights in a model of `num_slots` slots. RecipeError: it cannot have so many."""
        return self.with_settings({"num_slots": num_slots})

    def with_settings(self, changes: Mapping[str, Any]) -> LoadedModel:
        """Return the same weights in a model of settings changed by dotted name, such as `proposals.score_threshold`.

        RecipeError: it has no such setting, or cannot.
        """
        new = leaves("", dict(changes))
        recipe = read_recipe(self.config, self.name, {f"model.{name}": value for name, value in new.items()})
        values, trained = leaves("", recipe.values["model"]), leaves("", self.config["model"])
        changed = {name: values[name] for name in new if values[name] != trained.get(name)}
        if not changed:
            return self
        model = recipe.build_model(pretrained=False)
        buffers, own = dict(self.model.named_buffers()), model.state_dict()
        weights = self.model.state_dict()
        try:  # a buffer that the changed model does without may be left out
            model.load_state_dict({key: weights[key] for key in weights if key in own or key not in buffers})
        except RuntimeError:
            if "num_slots" in changed:
                unfit = f"{trained['num_slots']} slots, not for {values['num_slots']}"
            else:
                shown = (", ".join(f"{name} {of[name]}" for name in changed) for of in (trained, values))
                unfit = "a model of {}, not of {}: train it so".format(*shown)
            raise RecipeError(f"the weights of '{self.name}' are for {unfit}.") from None
        model.eval().to(self.device, memory_format=torch.channels_last)
        return replace(self, model=model, recipe=recipe, provenance=self.provenance | changed)


class _FrameByFrame(nn.Module):
    """A model with `decompose_next`, given the frames of `clips` sequences in their order; it keeps the state."""

    def __init__(self, model: nn.Module, clips: int) -> None:
        super().__init__()
        self.model, self.settings, self.clips, self.state = model, model.settings, clips, None

    def forward(self, frames: Tensor) -> Decomposition:
        parts = []
        for frame in frames.split(self.clips):
            part, self.state = self.model.decompose_next(frame, self.state)  # type: ignore[operator]
            parts.append(part)
        return Decomposition.concatenate(parts)


def load(path: str | Path, device: str | torch.device = "cpu", verify: bool = True) -> LoadedModel:
    """Load a trained model onto a device. Nothing in the files is executed.

    `path` is a run's folder, a `.safetensors` file that unscene wrote, a `.ckpt` in a run's folder, or the name of
    weights that come with the package (`shipped_weights()`), for instance `rmonet_unet/multi_dsprites_cpu`. From the
    Hugging Face hub `hf://user/name` or `hf://user/name@revision` downloads one safetensors file, once. The file's
    checksum is compared unless `verify` is False.

    Raises:
        CheckpointError: nothing there, damaged, or of another model than its recipe says.
        ExtraError: `hf://` without the extra `hub`.
    """
    chosen, run = chosen_file(path)
    if chosen.suffix == ".ckpt":
        checkpoint = read_checkpoint(chosen, verify)
        run = run or RunFolder.open(chosen.resolve().parent.parent)
        weights, values = checkpoint["model"], run.recipe_values()
        provenance: dict[str, Any] = {"run": run.path.resolve().name, "step": int(checkpoint["step"])}
    else:
        weights, values, provenance = read_weights(chosen, verify)
    try:
        recipe = read_recipe(values, str(values.get("name", chosen.stem)))
        model = recipe.build_model(pretrained=False)
    except RecipeError as error:
        raise CheckpointError(f"{chosen}: its recipe cannot be used here ({error})") from error
    check_weights(weights, model, chosen, recipe.name)
    model.load_state_dict(weights)
    model.eval().to(device, memory_format=torch.channels_last)
    return LoadedModel(model, recipe, {"weights": chosen.name, **provenance}, run)


def chosen_file(name: str | Path) -> tuple[Path, RunFolder | None]:
    """The weights file that a name means, and the run if the name is a run's folder."""
    if str(name).startswith(HUB):
        return _download(str(name)), None
    path = Path(name)
    if not path.exists() and str(name) in shipped_weights():
        return shipped_weights()[str(name)], None
    if path.is_dir():
        run = RunFolder.open(path)
        for file in (run.weights, run.best, run.last):
            if file.is_file():
                return file, run
        raise CheckpointError(f"{path} has no checkpoint yet: its training ended before the first one.")
    if path.suffix in (".safetensors", ".ckpt"):
        return path, None
    what = "is no weights file" if path.exists() else "does not exist"
    raise CheckpointError(
        f"{name} {what}. Name a run's folder, a .safetensors or .ckpt file, hf://USER/NAME, or one of the shipped "
        f"weights: {', '.join(shipped_weights()) or 'none'}."
    )


def _download(name: str) -> Path:
    """The weights of a repository, from the hub's cache on this machine or downloaded into it."""
    repository, _, revision = name.removeprefix(HUB).partition("@")
    hub = import_extra("huggingface_hub", "hub")
    if repository.count("/") != 1:  # the hub would look for it
        raise CheckpointError(f"{name} is no name of a repository. Write hf://USER/NAME.")
    with hub_errors(name):
        return Path(hub.hf_hub_download(repository, "weights.safetensors", revision=revision or None))


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn the errors of the Hugging Face hub about a repository into a CheckpointError."""
    errors = import_extra("huggingface_hub.errors", "hub")
    try:
        yield
    except (OSError, ValueError, errors.HTTPError) as error:
        hints = {
            errors.HFValidationError: "is no name of a repository. Write hf://USER/NAME",
            errors.GatedRepoError: "asks for an agreement on the hub's page. Give it there, then `hf auth login`",
            errors.RepositoryNotFoundError: "is not on the hub, or is private. Check the name; `hf auth login` logs in",
            errors.RevisionNotFoundError: "has no such revision. Check what stands behind the @",
            errors.LocalEntryNotFoundError: "is not on this machine yet, and the hub cannot be reached. Check the "
            "connection and HF_HUB_OFFLINE",
            errors.EntryNotFoundError: "holds no weights.safetensors, so it is not of unscene. Name another one",
            errors.OfflineModeIsEnabled: "cannot be reached, since HF_HUB_OFFLINE is set. Unset it",
            errors.LocalTokenNotFoundError: "needs you to log in: `hf auth login`",
        }
        refused = "was refused by the hub. `hf auth login` logs in with the right to write"
        status = getattr(getattr(error, "response", None), "status_code", None)
        other = refused if status in (401, 403) else "cannot be reached on the hub. Check the connection, try again"
        hint = next((text for kind, text in hints.items() if isinstance(error, kind)), other)
        raise CheckpointError(f"{name} {hint} ({type(error).__name__}).") from error


def shipped_weights() -> dict[str, Path]:
    """The weights that come with the package, by the name of their recipe."""
    return {path.stem.replace("--", "/"): path for path in sorted(SHIPPED.glob("*.safetensors"))}


def _plain(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.is_floating_point() else tensor


def _not_finite(decomposition: Decomposition) -> str | None:
    """Name of the first field with NaN or infinity. A log mask may be -inf: its share is 0."""
    for name, value in decomposition.tensors().items():
        if value.is_floating_point() and value.numel():
            lowest, highest = value.aminmax()  # NaN if any is; far faster than isfinite().all()
            if not highest.isfinite() or not (lowest.isfinite() or name == "log_masks"):
                return name
    return None
