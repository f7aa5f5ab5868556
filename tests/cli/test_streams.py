"""streams: a reader who leaves, a full disk and closed streams end the printing, not the work; the status is true."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unscene.cli import main as cli
from unscene.cli.streams import LastingStream

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes are another matter on Windows")

WORK = """
import logging
import os
import signal
import sys
from pathlib import Path
from unscene.cli import main as cli

def work(arguments, changes):
    os.kill(os.getpid(), signal.SIGHUP)  # the terminal closes
    for number in range(3000):
        print("a line of the work", number)
        print("a line of progress", number, file=sys.stderr)
    print("done: \\u2713 \\udcff")
    Path("result").write_text("done")

cli.COMMANDS["demo"] = work
raise SystemExit(cli.main(["demo"]))
"""


def run(command: str, folder: Path, **environment: str) -> tuple[int, str]:
    """The status of the first program of a pipe, and what came out at its end."""
    python, program = sys.executable, folder / "work.py"
    program.write_text(WORK)
    shell = command.replace("WORK", f"{python} {program}").replace("UNSCENE", f"{python} -m unscene")
    ran = subprocess.run(
        ["bash", "-c", f"{shell}; echo status ${{PIPESTATUS[0]}}"],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    out, _, status = (ran.stdout + ran.stderr).rpartition("status ") if not ran.stderr else ("", "", ran.stdout[-2:])
    return int(status), out + ran.stderr


@pytest.mark.parametrize(
    "redirected",
    [
        "WORK | head -c 0",
        "WORK 2>&1 | head -c 10",
        "WORK >&- 2>/dev/null",
        "WORK 2>&- >/dev/null",
        "WORK >&- 2>&- <&-",
        "WORK >/dev/full 2>/dev/full",
    ],
)
def test_work_is_completed_when_its_output_cannot_be_printed(tmp_path, redirected):
    status, printed = run(redirected, tmp_path)
    assert status == 0
    assert (tmp_path / "result").read_text() == "done"
    assert "Traceback" not in printed
    assert "Exception" not in printed


def test_a_terminal_of_another_encoding_shows_escapes(tmp_path):
    status, printed = run("WORK 2>/dev/null | tail -n 1", tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (status, printed.splitlines()[0]) == (0, "done: \\u2713 \\udcff")


def test_a_reader_who_leaves_is_no_error_of_the_list(tmp_path):
    assert run("UNSCENE recipes | head -c 0", tmp_path) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_a_list_that_could_not_be_written_is_an_error(tmp_path):
    status, printed = run("UNSCENE recipes >/dev/full", tmp_path)
    assert status == 1
    assert printed == "standard output cannot be written (No space left on device).\n"


def test_logged_file_names_cannot_change_the_terminal(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "demo", lambda *_: logging.getLogger("a").warning("%s is damaged", "\x1b[31mred"))
    monkeypatch.setattr(logging.root, "handlers", [])
    assert cli.main(["demo"]) == 0
    assert capsys.readouterr().err == "warning: \\x1b[31mred is damaged\n"


def test_escapes_in_a_text_do_not_reach_the_terminal():
    file = io.StringIO()
    LastingStream(file).write("50%\r\tred \x1b[31m\x07 \u202e\n")
    assert file.getvalue() == "50%\r\tred \\x1b[31m\\x07 \\u202e\n"
