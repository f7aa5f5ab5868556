"""Objects Room: samples by (seed, index), every object in view, labels that agree with the geometry."""

import numpy as np
import pytest

from unscene.data import shifts_of
from unscene.data.objects_room.dataset import GAP, LEAST_PIXELS, ROOM, ObjectsRoom, ObjectsRoomSettings
from unscene.errors import RecipeError

COUNT = 40


@pytest.fixture(scope="module")
def scenes() -> dict[str, np.ndarray]:
    return ObjectsRoom(ObjectsRoomSettings(count=COUNT)).batch(range(COUNT))


def test_a_sample_is_the_same_in_any_batch(scenes):
    source = ObjectsRoom(ObjectsRoomSettings(count=COUNT))
    for indices in ([5], [31, 3, 3], []):
        for name, values in source.batch(np.array(indices, np.int64)).items():
            np.testing.assert_array_equal(values, scenes[name][indices])


def test_the_scenes_of_a_seed_never_change(scenes):
    # scene 3 of seed 0, pasted from version 1 of the generator: raise VERSION when it changes on purpose
    assert scenes["shape"][3].tolist() == [1, 2, 1]
    assert scenes["boxes"][3].tolist() == [[27, 25, 45, 41], [0, 26, 20, 48], [47, 30, 62, 44]]
    assert scenes["image"][3].sum() == pytest.approx(1345736, rel=1e-5)


def test_the_arrays_have_their_shapes_and_types(scenes):
    found = {name: (values.shape[1:], values.dtype.name) for name, values in scenes.items()}
    assert found == {
        "image": ((64, 64, 3), "uint8"),
        "labels": ((64, 64), "uint8"),
        "boxes": ((3, 4), "float32"),
        "shape": ((3,), "uint8"),
        "color": ((3, 3), "float32"),
        **dict.fromkeys(("visibility", "x", "y", "radius", "rotation"), ((3,), "float32")),
    }


def test_every_object_shows_and_stands_alone_in_the_room(scenes):
    present = scenes["shape"] > 0
    assert set(present.sum(axis=1).tolist()) == {1, 2, 3}
    np.testing.assert_array_equal(scenes["visibility"] > 0, present)
    for b, m in np.argwhere(present):
        assert (scenes["labels"][b] == m + 1).sum() >= LEAST_PIXELS
        assert max(scenes["x"][b, m], scenes["y"][b, m]) + scenes["radius"][b, m] < ROOM
        for other in np.flatnonzero(present[b, :m]):
            away = np.hypot(*(scenes[axis][b, m] - scenes[axis][b, other] for axis in "xy"))
            assert away > scenes["radius"][b, m] + scenes["radius"][b, other] + GAP


def test_sky_floor_and_walls_are_labels_by_a_setting(scenes):
    everything = ObjectsRoom(ObjectsRoomSettings(count=COUNT, background=1)).batch(range(COUNT))
    np.testing.assert_array_equal(everything["image"], scenes["image"])
    np.testing.assert_array_equal(np.maximum(everything["labels"].astype(int) - 3, 0), scenes["labels"])
    np.testing.assert_array_equal(everything["shape"][:, 3:], scenes["shape"])
    assert everything["visibility"][:, 0].all()  # the floor
    labels = everything["labels"]
    assert (labels[:, 0] == 0).mean() > 0.9  # the sky is above
    assert np.isin(labels[:, -1], [0, 2, 3]).mean() < 0.05  # and below is the floor, or an object
    left, right = ((labels == wall).nonzero()[2].mean() for wall in (2, 3))
    assert left < 32 < right
    for b in range(5):  # the sky has one colour
        assert len(np.unique(everything["image"][b][:3][labels[b][:3] == 0], axis=0)) == 1


def test_the_published_test_sets_are_shifts():
    shifts = shifts_of("objects_room")
    six = ObjectsRoom(ObjectsRoomSettings(count=3, **shifts["six_objects"])).batch(range(3))
    assert (six["shape"] > 0).all()
    assert six["shape"].shape == (3, 6)
    same = ObjectsRoom(ObjectsRoomSettings(count=6, **shifts["identical_colour"])).batch(range(6))
    assert set((same["shape"] > 0).sum(axis=1).tolist()) <= {4, 5, 6}
    for colours, shapes in zip(same["color"], same["shape"], strict=True):
        assert len(np.unique(colours[shapes > 0], axis=0)) == 1


def test_an_empty_room_and_another_size():
    empty = ObjectsRoom(ObjectsRoomSettings(count=2, min_objects=0, max_objects=0, size=32)).batch([0, 1])
    assert empty["image"].shape == (2, 32, 32, 3)
    assert not empty["labels"].any()
    assert empty["boxes"].tolist() == [[[0] * 4]] * 2
    with pytest.raises(RecipeError, match="min_objects must be at most max_objects"):
        ObjectsRoomSettings(min_objects=4)
