from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from unscene.errors import ShapeError
from unscene.ops.slot_packing import MULTIPLE, SlotPacking


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_unpack_restores_packed_slots_and_fills_the_others(batch, slots, seed, share):
    torch.manual_seed(seed)
    used = torch.rand(batch, slots) < share
    packing, values = SlotPacking.from_used(used, used), torch.randn(batch, slots, 2, 3)
    packed = packing.pack(values)
    assert int(used.sum()) <= len(packed) <= min(int(used.sum()) + MULTIPLE, batch * slots)
    back = packing.unpack(packed, fill=-7)
    assert torch.equal(back[used], values[used])
    assert (back[~used] == -7).all()
    images = torch.arange(batch)[:, None].expand(batch, slots)
    assert torch.equal(packing.image, packing.pack(images))


def test_packed_lengths_are_multiples_of_16():
    lengths = set()
    for number in range(1, 161):
        used = (torch.arange(192) < number).view(32, 6)
        lengths.add(len(SlotPacking.from_used(used, used).pack(torch.zeros(32, 6))))
    assert lengths == set(range(16, 161, 16))


def test_all_used_slots_are_packed_in_order_without_a_copy():
    values = torch.randn(4, 4, 5)
    packing = SlotPacking.from_used(None, values)
    assert packing.pack(values).data_ptr() == values.data_ptr()
    assert torch.equal(packing.unpack(packing.pack(values)), values)
    assert packing.image.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4


@pytest.mark.parametrize("slots", [2, 20])
def test_no_slot_used_at_all(slots):
    """A few are computed all the same, for convolutions of nothing have no gradient, and all of them are dropped."""
    packing = SlotPacking.from_used(torch.zeros(3, slots, dtype=torch.bool), torch.zeros(3, slots))
    packed = packing.pack(torch.ones(3, slots, 4))
    assert 0 < len(packed) <= MULTIPLE
    assert not packing.unpack(packed).any()


def test_without_host_reads_only_unpack_leaves_slots_out():
    """The GPU's method, run on a CPU: everything is computed, and `unpack` fills unused slots."""
    used = torch.arange(48).view(8, 6) % 5 == 0
    packing, values = SlotPacking(used, None, None), torch.randn(8, 6, 3)
    assert len(packing.pack(values)) == 48
    known = SlotPacking.from_used(used, used)
    assert torch.equal(packing.unpack(packing.pack(values), 7.0), known.unpack(known.pack(values), 7.0))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_keep_their_layout_and_gradients_add_up(layout):
    images = torch.randn(3, 2, 4, 4).contiguous(memory_format=layout).requires_grad_()
    used = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 0]]).bool().repeat(1, 8)
    packing = SlotPacking.from_used(used, used)
    packed = packing.pack_images(images)
    assert packed.is_contiguous(memory_format=layout)
    assert_close(packed, images[packing.image])
    packing.unpack(packed).sum().backward()
    counts = packing.used.sum(dim=1).float()
    assert_close(images.grad, counts[:, None, None, None].expand_as(images))


def test_gradients_of_unused_slots_are_zero():
    used = torch.tensor([[True, False], [False, False]])
    values = torch.randn(2, 2, 3, requires_grad=True)
    packing = SlotPacking.from_used(used, used)
    packing.unpack(packing.pack(values)).sum().backward()
    assert torch.equal(values.grad, used[..., None].expand(2, 2, 3).float())


def test_flags_of_other_axes_are_refused():
    with pytest.raises(ShapeError, match="used"):
        SlotPacking.from_used(torch.ones(4, dtype=torch.bool), torch.ones(4, 1))


def test_the_plain_body_computes_every_slot_and_gives_the_same(monkeypatch):
    used, values = torch.arange(48).view(8, 6) % 5 == 0, torch.randn(8, 6, 3)
    fast = SlotPacking.from_used(used, used)
    expected = fast.unpack(fast.pack(values), 7.0)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    plain = SlotPacking.from_used(used, used)
    assert len(plain.pack(values)) == 48
    assert torch.equal(plain.unpack(plain.pack(values), 7.0), expected)
