"""commands: two of them never write into one folder, and the same command completes what a killed one left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from unscene import files
from unscene.cli.main import main

pytestmark = pytest.mark.skipif(files.fcntl is None, reason="needs file locks")
MODEL = "rmonet_unet/multi_dsprites_cpu"
HOLD = """
import sys
from pathlib import Path
from unscene.files import output_folder
with output_folder(Path(sys.argv[1]), ("compare.json",), False):
    print("locked", flush=True)
    sys.stdin.read()
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from unscene.cli.main import main
renames, replace = iter(range(int(sys.argv[1]))), Path.replace
def replace_or_die(self, target):
    if ".part" not in self.name and next(renames, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = replace_or_die
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.new("RGB", (50, 40), (200, 10, 10)).save(path)
    return path


@pytest.fixture
def used_folder(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder that another process writes its results to, and the number of that process."""
    arguments = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield tmp_path / "out", process.pid
        process.kill()


@pytest.mark.parametrize("command", ["evaluate", "compare", "decompose"])
def test_a_second_command_is_refused_before_its_work(command, used_folder, image, capsys):
    out, process = used_folder
    words = [MODEL, str(image)] if command == "decompose" else [MODEL, "--data.count=2"]
    assert main([command, *words, "--out", str(out)]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"RunError: {out} is in use by" in line
    assert sys.platform != "linux" or f"process {process} (" in line
    assert [path.name for path in out.iterdir()] == [".unscene-unfinished"]


@pytest.mark.slow
@pytest.mark.parametrize("renames", [0, 2])
def test_the_next_command_completes_results_of_a_killed_one(renames, image, tmp_path, capsys):
    """Before the first rename nothing is complete, so the work is done again; after it, all is there to be moved."""
    words = ["decompose", MODEL, str(image), "--out", str(tmp_path / "out")]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(renames), *words], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "objects.json").exists()
    assert main(words) == (1 if renames else 0)
    message = "now holds the complete results of a command that was interrupted"
    assert (message in capsys.readouterr().err) == bool(renames)
    names = [
        "index.html",
        "objects.csv",
        "objects.json",
        "photo.labels.tif",
        "photo.masks.png",
        "photo.npz",
        "photo.overlay.png",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert len(json.loads((tmp_path / "out" / "objects.json").read_text())["images"]) == 1
