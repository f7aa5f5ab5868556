"""Runs one command: in a forked process that has imported everything, or in a new one; with limits, and with faults."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unscene.cli.main import main

SECONDS, IDLE_SECONDS = 60, 20
MORE_BYTES = 3 * 2**30  # of memory than the process has at its start
_PIPE = 2**20
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.fsync", "os.link", "os.symlink")
_ERRORS = {"full": errno.ENOSPC, "denied": errno.EACCES, "broken": errno.EIO}
FAULTS = ("kill", "interrupt", *_ERRORS)

Fault = tuple[str, int]  # one of `FAULTS` at the n-th file operation; ("limit", bytes of a file); ("count", 0)


@dataclass(frozen=True)
class Ran:
    """What a command did: its exit status (None: it hung), what it printed, and its file operations if counted."""

    status: int | None
    out: str
    err: str
    operations: tuple[str, ...] = ()


def run_words(words: tuple[str, ...], folder: Path, fault: Fault | None = None) -> Ran:
    """Run a command line in a folder, in a forked process."""
    pipes = [os.pipe() for _ in range(3)]  # a file would count as the command's, and be limited as its files are
    for _, end in pipes:
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, _PIPE)
    process = os.fork()
    if process == 0:
        status = 70
        try:
            os.setpgid(0, 0)
            os.chdir(folder)
            for number, end in enumerate((os.open(os.devnull, os.O_RDONLY), pipes[0][1], pipes[1][1])):
                os.dup2(end, number)
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            os.environ["TMPDIR"] = tempfile.tempdir = f"{folder}/.tmp"
            status = _in_child(words, folder, fault, pipes[2][1])
        finally:
            os._exit(status)
    for _, end in pipes:
        os.close(end)
    status = _wait(process)
    out, err, operations = (_read(end) for end, _ in pipes)
    return Ran(status, out, err, tuple(operations.splitlines()))


def _in_child(words: tuple[str, ...], folder: Path, fault: Fault | None, report: int) -> int:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_BYTES, used + MORE_BYTES))
    if fault and fault[0] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault[1], fault[1]))
    elif fault:
        _watch_files(folder, *fault, report)
    try:
        status = main(words)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _watch_files(folder: Path, what: str, number: int, report: int) -> None:
    """Count the operations that change files of a folder; at the n-th one do what the fault says."""
    count = 0

    def watch(event: str, values: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            if not (isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
        elif event not in _CHANGES:
            return
        path = os.fsdecode(values[0]) if isinstance(values[0], str | bytes | os.PathLike) else ""
        if event != "os.fsync" and (not str(folder / path).startswith(f"{folder}/") or "/.tmp/" in path):
            return
        count += 1
        if what == "count":
            os.write(report, f"{event} {path.removeprefix(f'{folder}/')}\n".encode())
        elif count == number and what in ("kill", "interrupt"):
            os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGINT)
        elif count == number and event not in ("os.remove", "os.rmdir"):
            raise OSError(_ERRORS[what], os.strerror(_ERRORS[what]), path)

    sync = os.fsync
    os.fsync = lambda handle: (sys.audit("os.fsync", handle), sync(handle))[1]  # Python itself tells of the others
    sys.addaudithook(watch)


def _wait(process: int) -> int | None:
    """The exit status; None if it took `SECONDS` of a processor, or did nothing for `IDLE_SECONDS`."""
    handle, used, ended = os.pidfd_open(process), -1.0, []
    while not ended and used < SECONDS:
        ended = select.select([handle], [], [], IDLE_SECONDS)[0]
        before, used = used, _processor_seconds(process)
        if used - before < 0.02:
            break
    os.close(handle)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # what it started ends with it
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code if ended else None


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _read(end: int) -> str:
    os.set_blocking(end, False)
    text = b""
    with suppress(BlockingIOError):
        while more := os.read(end, _PIPE):
            text += more
    os.close(end)
    return text.decode(errors="replace")


_BASH = shutil.which("bash") or "bash"  # a case may take PATH away


def run_shell(command: str, folder: Path, environment: dict[str, str]) -> Ran:
    """Run a line of bash in a folder, in which UNSCENE stands for the program; the status is that of its first part."""
    line = f"{command.replace('UNSCENE', f'{sys.executable} -m unscene')}; exit ${{PIPESTATUS[0]}}"
    variables = os.environ | {"TMPDIR": f"{folder}/.tmp"} | environment
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([_BASH, "-c", line], cwd=folder, env=variables, start_new_session=True, **options) as process:
        try:
            out, err = process.communicate(timeout=10 * SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return Ran(None, "", "")
    return Ran(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
