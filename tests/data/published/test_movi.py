"""MOVi as TFDS writes it: uncompressed TFRecords of `tf.train.Example`s, encoded by Google's protobuf library."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image

from unscene.data.hdf5.reader import SceneStore
from unscene.data.published.conversion import convert
from unscene.errors import DataError

T, M = 24, 3
rng = np.random.default_rng(0)


def example_class() -> type:
    file = descriptor_pb2.FileDescriptorProto(name="movi.proto", package="movi", syntax="proto3")
    types = descriptor_pb2.FieldDescriptorProto

    def message(name, *fields):
        added = file.message_type.add(name=name)
        for number, (field, kind, repeated, of) in enumerate(fields, start=1):
            label = types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
            added.field.add(name=field, number=number, type=kind, label=label, type_name=of and f".movi.{of}")
        return added

    message("BytesList", ("value", types.TYPE_BYTES, True, None))
    message("FloatList", ("value", types.TYPE_FLOAT, True, None))
    message("Int64List", ("value", types.TYPE_INT64, True, None))
    kinds = (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List"))
    message("Feature", *((name, types.TYPE_MESSAGE, False, of) for name, of in kinds))
    entry = message("Features", ("feature", types.TYPE_MESSAGE, True, "Features.FeatureEntry")).nested_type.add(
        name="FeatureEntry"
    )
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=types.TYPE_MESSAGE, label=types.LABEL_OPTIONAL, type_name=".movi.Feature"
    )
    message("Example", ("features", types.TYPE_MESSAGE, False, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("movi.Example"))


EXAMPLE = example_class()


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def video() -> dict[str, list]:
    """Object 1 grows a row a frame, object 2 is never seen, object 3 is one pixel."""
    frames, maps = rng.integers(0, 256, (T, 16, 16, 3), np.uint8), np.zeros((T, 16, 16), np.uint8)
    for t in range(T):
        maps[t, : min(t + 1, 15), :4] = 1
    maps[:, 15, 15] = 3
    return {
        "video": [png(frame) for frame in frames],
        "segmentations": [png(labels) for labels in maps],
        "depth": [png(labels) for labels in maps],
        "metadata/video_name": [b"7"],
        "metadata/num_instances": [M],
        "instances/positions": np.arange(M * T * 3, dtype=float).tolist(),
        "instances/visibility": list(range(M * T)),
        "instances/shape_label": [0, 1, 2],
        "instances/color": np.linspace(0, 1, 9).tolist(),
        "instances/bboxes/ragged_flat_values": [0.5] * 8,
        "instances/bboxes/ragged_row_lengths_0": [1, 0, 1],
    }


def encoded(features: dict[str, list]) -> bytes:
    example = EXAMPLE()
    for name, values in features.items():
        kind = {bytes: "bytes_list", float: "float_list", int: "int64_list"}[type(values[0])]
        getattr(example.features.feature[name], kind).value.extend(values)
    return example.SerializeToString()


@pytest.fixture
def movi(tmp_path, framed) -> Path:
    folder = tmp_path / "movi_a" / "1.0.0"
    folder.mkdir(parents=True)
    for shard in range(2):
        (folder / f"movi_a-train.tfrecord-{shard:05d}-of-00002").write_bytes(framed(encoded(video())))
    (folder / "movi_a-validation.tfrecord-00000-of-00001").write_bytes(framed(encoded(video())))
    features = {"pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict"}
    features["featuresDict"] = {"features": {name: {} for name in ("video", "segmentations", "instances", "metadata")}}
    (folder / "features.json").write_text(json.dumps(features))
    return folder


def test_a_frame_is_a_scene(movi, tmp_path):
    assert convert("movi", [movi], tmp_path / "out.h5", {"split": "train"}, progress=False) == 2 * T
    sample = SceneStore(tmp_path / "out.h5").batch(range(2 * T))
    assert sample["video"].tolist() == [0] * T + [1] * T
    assert sample["frame"].tolist() == [*range(T)] * 2
    assert sample["boxes"][4, :3].tolist() == [[0, 0, 4, 5], [0] * 4, [15, 15, 16, 16]]
    assert sample["visibility"][4, :4].tolist() == [1, 0, 1, 0]
    assert sample["visible_pixels"][4, :3].tolist() == [4, 0, 2 * T + 4]
    assert sample["position"][4, 0].tolist() == [12, 13, 14]
    assert sample["position"][4, 2].tolist() == [2 * T * 3 + 12 + n for n in range(3)]
    assert sample["shape"][4, :3].tolist() == [0, 0, 2]
    assert sample["color"][4, 2].tolist() == pytest.approx([0.75, 0.875, 1])
    assert sample["boxes"].shape == (2 * T, 23, 4)


def test_a_flipped_byte_is_named_with_file_and_record(movi, tmp_path):
    path = movi / "movi_a-train.tfrecord-00001-of-00002"
    content = path.read_bytes()
    for position in (3, 9, 40, len(content) // 2, len(content) - 2):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(DataError, match=r"movi_a-train\.tfrecord-00001-of-00002(: record 0| is no TFRecord)"):
            convert("movi", [movi], tmp_path / "out.h5", {"split": "train"}, progress=False)


def test_other_records_and_other_features(movi, tmp_path, framed):
    one = movi / "movi_a-validation.tfrecord-00000-of-00001"
    one.write_bytes(framed(encoded({"image": [b"ab"], "label": [1]})))
    with pytest.raises(DataError, match=r"record 0 at byte 0 is no video of MOVi.*Its features are image, label"):
        convert("movi", [one], tmp_path / "out.h5", progress=False)
    one.write_bytes(framed(encoded(video() | {"instances/positions": [0.5] * 7})))
    with pytest.raises(DataError, match="7 values of 'instances/positions' for 3 objects"):
        convert("movi", [one], tmp_path / "out.h5", progress=False)
    (movi / "features.json").write_text('{"featuresDict": {"features": {"image": {}}}}')
    with pytest.raises(DataError, match=r"features\.json is not of MOVi"):
        convert("movi", [movi], tmp_path / "out.h5", progress=False)
