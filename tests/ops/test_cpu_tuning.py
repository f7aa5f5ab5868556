from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import torch

from unscene.ops.cpu_tuning import tune_cpu


def test_tuning_sets_the_allocator_to_keep_freed_memory(monkeypatch):
    options = {}
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=options.__setitem__))
    tune_cpu()
    # glibc's malloc.h: -4 is M_MMAP_MAX, -1 M_TRIM_THRESHOLD, -2 M_TOP_PAD
    assert options == {-4: 0, -1: 2**31 - 1, -2: 2**28}


def test_tuning_passes_without_mallopt(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    tune_cpu()


def test_tuning_flushes_denormal_numbers():
    tune_cpu()
    assert (torch.full((8,), 1e-30) * 1e-12).abs().max() == 0
