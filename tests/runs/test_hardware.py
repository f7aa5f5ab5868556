"""hardware: what a machine is said to be, and when bfloat16 is used."""

from __future__ import annotations

import json
import shlex
import sys

import pytest
import torch

from unscene.runs import hardware


def test_the_description_is_whole_and_ready_for_json(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/unscene", "train", "r", "--data.folder", "my photos"])
    machine = hardware.describe_machine()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["torch"] == torch.__version__.partition("+")[0]
    assert machine["cores"] >= 1
    assert shlex.split(machine["command"]) == ["unscene", "train", "r", "--data.folder", "my photos"]
    assert machine["date"].endswith("+00:00")


def test_auto_asks_the_machine(monkeypatch):
    for fast in (True, False):
        monkeypatch.setattr(hardware, "fast_at_bfloat16", lambda device, fast=fast: fast)
        assert hardware.use_bfloat16("auto", "cpu") is fast
        assert hardware.use_bfloat16("bf16", "cpu") is True
        assert hardware.use_bfloat16("float32", "cpu") is False


@pytest.mark.parametrize("supported", [True, False])
def test_a_cpu_is_fast_where_it_says_so(monkeypatch, supported):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: supported, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert hardware.fast_at_bfloat16("cpu") is supported


def test_another_device_is_not_known_to_be_fast():
    assert not hardware.fast_at_bfloat16("meta")


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert hardware.git_commit() is None
