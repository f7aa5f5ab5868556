"""Several processes: the same training as one, the lines of docs/guide/distributed.md, and a restarted job."""

from __future__ import annotations

import csv
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from unscene.cli.main import main
from unscene.runs.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="gloo and bash are another matter there")]

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "distributed.md").read_text(encoding="utf-8")
LIMIT = 1200  # seconds; only a hang takes so long
WEIGHT = 1e-5  # what the page promises
# At a higher rate rounding errors grow step by step; with some seeds they move a box to the next pixel meanwhile.
CALM = ["--trainer.log_every=1", "--optimizer.learning_rate=1e-4", "--seed=3"]
RECIPES = {  # and what else keeps those calm that grow rounding errors faster
    "rmonet_unet/multi_dsprites_cpu": ["--model.masks=inferred"],  # posterior ones multiply a rounding by 1 / s^2
    "monet/small_sprites": ["--optimizer.learning_rate=1e-5"],  # one network for all slots, one after the other
    "iodine/small_sprites": [],  # which learns through gradients of its own
    "space/small_sprites": [  # with two optimisers, as its paper recipes
        "--optimizer.name=rmsprop",
        "--optimizer.learning_rate=1e-6",
        "--optimizer.param_groups=[{prefix: background, name: adam, learning_rate: 1e-5}]",
        "--model.foreground.fixed_alpha_steps=3",  # of six
    ],
}
LOSS = dict.fromkeys(RECIPES, 1e-5) | {
    "monet/small_sprites": 1e-4,
    "space/small_sprites": 1e-3,
}  # what the page promises
UNDETECTED = ["--model.detection=false", "--model.vae.encoder_region=image", "--model.vae.decoder_region=image"]


def table(run: RunFolder) -> list[dict[str, str]]:
    if not run.metrics.exists():
        return []
    with run.metrics.open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoint(run: RunFolder) -> dict:
    return torch.load(run.last, weights_only=True)


def check_weights_agree(first: RunFolder, second: RunFolder) -> None:
    """As the page says."""
    ours, theirs = (checkpoint(run)["model"] for run in (first, second))
    assert ours.keys() == theirs.keys()
    apart = torch.cat([(ours[name].double() - theirs[name].double()).abs().flatten() for name in ours])
    assert (apart > WEIGHT).double().mean() < 1e-3
    assert apart.max() < 5e-4  # where a gradient is rounding alone, Adam steps by the learning rate all the same


@pytest.fixture(scope="module", params=RECIPES)
def words(request, tiny_arguments) -> list[str]:
    """A recipe that trains in seconds, for the command line."""
    name, *settings = tiny_arguments
    if request.param != name:
        settings = [word for word in settings if not word.startswith(("--model.", "--data.size="))]
    return [request.param, *settings, *CALM, *RECIPES[request.param]]


@pytest.fixture(scope="module")
def alone(words, tmp_path_factory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("alone") / "run")
    assert main(["train", *words, "--out", str(run.path)]) == 0
    return run


@pytest.fixture(scope="module")
def together(words, tmp_path_factory) -> RunFolder:
    """The page's torchrun line, with that recipe."""
    (line,) = [line.strip() for line in PAGE.splitlines() if line.startswith("torchrun --nproc")]
    run = RunFolder(tmp_path_factory.mktemp("together") / "run")
    command = shlex.split(line)
    assert command[0] == "torchrun"
    command[command.index("rmonet_unet/multi_dsprites")] = words[0]
    command[command.index("--out") + 1] = str(run.path)
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *command[1:], *words[1:]],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())},
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout.count("Score it:") == 1  # the second process is silent
    return run


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_two_processes_log_the_losses_of_one(words, alone, together):
    ours, theirs = table(together), table(alone)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [*"123456", "6"]
    names = [name for name in theirs[0] if name.startswith("train/") and not name.endswith("_second")]
    assert {"train/loss", "train/reconstruction"} <= set(names)
    for mine, other in zip(ours[:6], theirs[:6], strict=True):
        assert {name: float(mine[name]) for name in names} == pytest.approx(
            {name: float(other[name]) for name in names}, rel=LOSS[words[0]]
        )


def test_two_processes_learn_the_weights_of_one(alone, together):
    check_weights_agree(together, alone)
    assert torch.equal(checkpoint(together)["random_state"]["cpu"], checkpoint(alone)["random_state"]["cpu"])


def test_two_processes_find_the_metrics_of_one(alone, together):
    mine, other = table(together)[6], table(alone)[6]
    names = [name for name in other if name.startswith(("val/", "health/")) and other[name]]
    assert len(names) > 10
    for name in names:
        pixel = 5e-4 if name.startswith("val/ari") else 1e-6  # rounding may give a pixel between two slots to the other
        near = 1e-3 if name.startswith("health/explained") else 1e-4  # a share of a small variance
        assert float(mine[name]) == pytest.approx(float(other[name]), rel=near, abs=pixel), name


def test_one_process_resumes_a_run_of_two(words, alone, together):
    for run in (alone, together):
        assert main(["train", "--resume", str(run.path), "--trainer.max_steps=8"]) == 0
    check_weights_agree(together, alone)
    ours, theirs = ([float(row["train/loss"]) for row in table(run)[-3:-1]] for run in (together, alone))
    assert ours == pytest.approx(theirs, rel=LOSS[words[0]])


SRUN = """#!/bin/bash
# Stands in for srun: starts two tasks here, hands SIGUSR1 on to them, and ends as the worse of them does.
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2
for rank in 0 1; do SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 "$@" & tasks+=($!); done
trap 'kill -USR1 "${tasks[@]}"' USR1
worst=0
for task in "${tasks[@]}"; do
    wait "$task"; status=$?
    while kill -0 "$task" 2> /dev/null; do wait "$task"; status=$?; done
    (( status > worst )) && worst=$status
done
exit $worst
"""


@pytest.fixture
def job(tmp_path, tiny_arguments, monkeypatch) -> subprocess.Popen:
    """The page's batch script, started in a job of two tasks, with stand-ins for what SLURM has. Detection is off, so
    that DDP has parameters to look for."""
    (script,) = re.findall(r"```bash\n(#!.*?)```", PAGE, flags=re.DOTALL)
    settings = [*tiny_arguments, *UNDETECTED, "--trainer.max_steps=100000", "--trainer.log_every=1"]
    script = script.replace("rmonet_unet/multi_dsprites", shlex.join(settings))
    script = script.replace("runs/cluster", str(tmp_path / "run"))
    (tmp_path / "job.sh").write_text(script)
    programs = {"srun": SRUN, "scontrol": f'#!/bin/bash\necho "$@" >> {tmp_path}/scontrol.txt\n'}
    programs["python"] = f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n'
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"JOB_ID": "4711", "JOB_NAME": "train", "NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1"}
    environment = {f"SLURM_{name}": value for name, value in slurm.items()} | {"SLURM_NODELIST": "127.0.0.1"}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        ["bash", str(tmp_path / "job.sh")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | environment | {"MASTER_PORT": str(free_port())},
    )


def test_requeued_job_resumes_from_its_checkpoint(tmp_path, tiny_arguments, job):
    run = RunFolder(tmp_path / "run")
    end = time.monotonic() + LIMIT
    while len(table(run)) < 2:
        assert time.monotonic() < end, "the job did not get so far"
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    messages = job.communicate(timeout=LIMIT)[1]
    assert "Traceback" not in messages
    assert f"Stopped with a checkpoint. Resume it with:  unscene train --resume {run.path}" in messages
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4711\n"
    step = checkpoint(run)["step"]
    assert [row["step"] for row in table(run)] == [str(row + 1) for row in range(step)]
    again = [*UNDETECTED, f"--trainer.max_steps={step + 2}", "--trainer.log_every=1"]
    assert main(["train", *tiny_arguments, *again, "--out", str(run.path), "--or-resume"]) == 0  # only shorter
    assert checkpoint(run)["step"] == step + 2
    assert [start["first_step"] for start in run.starts()] == [0, step]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["run"]
