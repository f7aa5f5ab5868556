"""One of several processes that normalise a batch together: a program for test_synchronised_batch_norm.py.

    python batch_norm_process.py FOLDER RANK WORLD

reads FOLDER/given.pt and writes FOLDER/RANK.pt.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed, nn

from unscene.distributed.sync_batch_norm import synchronise_batch_norm


def main(folder: Path, rank: int, world: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    found = {name: normalise(rank, world, **arguments) for name, arguments in torch.load(folder / "given.pt").items()}
    distributed.destroy_process_group()
    torch.save(found, folder / f"{rank}.pt")


def normalise(rank, world, settings, state, steps, shares) -> dict:
    """Train a layer for some steps on this process's images, then evaluate it."""
    layer = nn.BatchNorm2d(steps[0][0].shape[1], **settings)
    layer.load_state_dict(state)
    layer = synchronise_batch_norm(nn.Sequential(layer), "cpu")[0]
    found = {"type": type(layer).__name__, "steps": []}
    for images, weights in steps:
        mine = images.split(shares)[rank].clone().requires_grad_()
        normalised = layer(mine)
        layer.zero_grad()
        (normalised.float() * weights.split(shares)[rank]).sum().backward()
        gradients = [parameter.grad.clone() for parameter in layer.parameters()]
        for gradient in gradients:
            distributed.all_reduce(gradient)
        found["steps"].append((normalised.detach(), mine.grad, gradients))
    found["state"] = layer.state_dict()
    found["evaluated"] = layer.eval()(steps[0][0]).detach()
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
