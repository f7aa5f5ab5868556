"""progress: what the checkpoint keeps of a row that is half written, from all processes."""

from __future__ import annotations

import torch

from unscene.runs.run_folder import RunFolder
from unscene.runs.trainer_settings import TrainerSettings
from unscene.training import progress
from unscene.training.progress import TrainingLog


def test_a_checkpoint_keeps_the_sums_of_all_processes(tmp_path, monkeypatch):
    """The first process writes it, and every one goes on with it."""
    log = TrainingLog(RunFolder(tmp_path), TrainerSettings(), writes=True)
    log.sums, log.steps = {"loss": torch.tensor(6.0), "mask_kl": torch.tensor(2.0)}, 3
    other = torch.tensor([2.0, 4.0])
    monkeypatch.setattr(progress, "mean_over_processes", lambda mine: (mine + other) / 2)
    state = log.state_dict()
    assert state == {"sums": {"loss": torch.tensor(4.0), "mask_kl": torch.tensor(3.0)}, "steps": 3}
    assert log.sums["loss"] == 6.0
    again = TrainingLog(RunFolder(tmp_path), TrainerSettings(), writes=True)
    again.load_state_dict(state)
    assert (again.sums, again.steps) == (state["sums"], 3)


def test_before_the_first_step_there_are_none(tmp_path):
    assert TrainingLog(RunFolder(tmp_path), TrainerSettings(), writes=True).state_dict() == {"sums": {}, "steps": 0}
