import gzip
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unscene.data.tfrecord.example import parse_example
from unscene.data.tfrecord.records import read_records
from unscene.errors import DataError

one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
payloads = st.lists(st.binary(max_size=60), min_size=1, max_size=5)


def crc32c(data: bytes) -> int:
    """Bit by bit, as RFC 3720 defines it: nothing that the library under test uses."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def record_with_byte(datas: list[bytes], position: int) -> tuple[int, int]:
    """Index and offset of the record that the byte at `position` of the uncompressed file belongs to."""
    offset = 0
    for index, data in enumerate(datas):
        if position < offset + len(data) + 16:
            return index, offset
        offset += len(data) + 16
    raise AssertionError("beyond the last record")


def written(folder: Path, content: bytes) -> Path:
    path = folder / "scenes.tfrecords"
    path.write_bytes(content)
    return path


def read(path: Path, on_damage=None) -> tuple[list[bytes], str]:
    """The data of the records read, and the message of the error that ended the reading, or nothing."""
    datas = []
    try:
        datas.extend(record.data for record in read_records(path, on_damage))
    except DataError as error:
        return datas, str(error)
    return datas, ""


class TestSound:
    def test_one_record_by_hand(self, tmp_path):
        # CRC-32C of "123456789" is 0xE3069283; turned right by 15 bits 0x2507C60D; plus 0xA282EAD8 it is 0xC78AB0E5
        content = bytes.fromhex("0900000000000000 37f97139") + b"123456789" + bytes.fromhex("e5b08ac7")
        (record,) = read_records(written(tmp_path, content))
        assert (record.index, record.data, record.file_bytes) == (0, b"123456789", 25)
        assert record.where == "scenes.tfrecords: record 0 at byte 0"

    @one_folder
    @given(payloads, st.sampled_from(["plain", "gzip", "members", "padded", "stored"]))
    def test_written_records_are_read(self, tmp_path, datas, kind):
        parts = [framed(data) for data in datas]
        content = {
            "plain": b"".join(parts),
            "gzip": gzip.compress(b"".join(parts)),
            "members": b"".join(gzip.compress(part) for part in parts),
            "padded": b"\0\0\0".join(gzip.compress(part) for part in parts) + bytes(20000),
            "stored": gzip.compress(b"".join(parts), compresslevel=0),
        }[kind]
        records = list(read_records(written(tmp_path, content)))
        assert [record.data for record in records] == datas
        assert [record.index for record in records] == list(range(len(datas)))
        sizes = [len(part) for part in parts]
        offsets = [sum(sizes[:index]) for index in range(len(sizes))]
        assert all(f"at byte {offset:,}" in record.where for record, offset in zip(records, offsets, strict=True))
        used = [record.file_bytes for record in records]
        assert used == sorted(used)
        assert 0 < used[-1] <= len(content)

    def test_a_plain_file_may_begin_with_the_two_bytes_of_gzip(self, tmp_path):
        data = bytes(0x8B1F)
        content = framed(data)
        assert content[:2] == b"\x1f\x8b"
        assert read(written(tmp_path, content)) == ([data], "")

    def test_large_files_are_not_held_in_memory(self, tmp_path):
        part = framed(bytes(200_000))
        path = written(tmp_path, gzip.compress(part * 100))  # 20 MB
        tracemalloc.start()
        total = sum(len(record.data) for record in read_records(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == 20_000_000
        assert peak < 2_000_000


class TestDamagedPlainFile:
    datas = (b"first", b"", b"the third one")
    content = b"".join(framed(data) for data in datas)

    @pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
    def test_every_changed_byte_is_found_in_its_record(self, tmp_path, flip):
        for position in range(len(self.content)):
            changed = bytearray(self.content)
            changed[position] ^= flip
            index, offset = record_with_byte(self.datas, position)
            datas, message = read(written(tmp_path, bytes(changed)))
            assert datas == list(self.datas[:index])
            assert f"record {index} at byte {offset}" in message
            assert message.startswith("scenes.tfrecords")
            assert "Download the file again" in message

    def test_every_cut_within_a_record_is_found(self, tmp_path):
        ends = [0, 21, 37, 66]
        for cut in range(1, len(self.content)):
            datas, message = read(written(tmp_path, self.content[:cut]))
            whole = max(index for index, end in enumerate(ends) if end <= cut)
            assert datas == list(self.datas[:whole])
            if cut in ends:
                assert message == ""
            elif cut >= 12:  # before, it does not look like a TFRecord file at all
                assert f"record {whole} at byte {ends[whole]} is cut short" in message
                assert f"found {cut - ends[whole]})" in message

    def test_message_names_expected_and_found(self, tmp_path):
        big = framed(bytes(5000)) * 3
        message = read(written(tmp_path, big[:12_345]))[1]
        assert message == (
            "scenes.tfrecords: record 2 at byte 10,032 is cut short (expected 5,016 bytes, found 2,313). "
            "Download the file again, or pass --skip-damaged to leave such records out."
        )

    def test_on_damage_skips_damaged_data(self, tmp_path):
        changed = self.content.replace(b"first", b"fOrst")
        errors = []
        records = list(read_records(written(tmp_path, changed), errors.append))
        assert [record.where for record in records] == [
            "scenes.tfrecords: record 1 at byte 21",
            "scenes.tfrecords: record 2 at byte 37",
        ]
        assert len(errors) == 1
        found = int.from_bytes(masked(b"fOrst"), "little")
        assert f"should be {int.from_bytes(masked(b'first'), 'little'):#010x}, is {found:#010x}" in str(errors[0])

    def test_on_damage_skips_a_cut_record(self, tmp_path):
        errors = []
        datas, message = read(written(tmp_path, self.content[:-1]), errors.append)
        assert (datas, message) == ([b"first", b""], "")
        assert "record 2 at byte 37 is cut short (expected 29 bytes, found 28)" in str(errors[0])

    def test_a_damaged_length_stops_and_names_the_sound_records(self, tmp_path):
        changed = bytearray(self.content)
        changed[37] ^= 1
        errors = []
        datas, message = read(written(tmp_path, bytes(changed)), errors.append)
        assert datas == [b"first", b""]
        assert errors == []
        assert "record 2 at byte 37 has a damaged length" in message
        assert "--count 2 to keep the 2 sound records" in message

    def test_an_impossible_length_allocates_nothing(self, tmp_path):
        length = struct.pack("<Q", 2**60)
        message = read(written(tmp_path, framed(b"a") + length + masked(length)))[1]
        assert "record 1 at byte 17 states a length of 1,152,921,504,606,846,976 bytes" in message


class TestDamagedGzipFile:
    @one_folder
    @given(payloads, st.data())
    def test_a_changed_byte_never_changes_a_record(self, tmp_path, datas, data):
        content = bytearray(gzip.compress(b"".join(framed(payload) for payload in datas)))
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= data.draw(st.integers(1, 255))
        found, message = read(written(tmp_path, bytes(content)))
        assert found == datas[: len(found)]
        if message and position >= 3:
            assert f"record {len(found)} at byte {sum(len(payload) + 16 for payload in found)} (byte " in message
        assert message or found == datas  # the time in gzip's header and a few unused bits do not matter

    @one_folder
    @given(payloads, st.data())
    def test_every_cut_is_found(self, tmp_path, datas, data):
        content = gzip.compress(b"".join(framed(payload) for payload in datas))
        cut = data.draw(st.integers(2, len(content) - 1))
        found, message = read(written(tmp_path, content[:cut]))
        assert found == datas[: len(found)]
        assert f"record {len(found)} at byte {sum(len(payload) + 16 for payload in found)} (byte " in message
        assert f"the file ends inside its gzip stream, at byte {cut}" in message

    def test_every_record_before_a_fault_is_read(self, tmp_path):
        rng = np.random.default_rng(0)
        datas = [rng.bytes(3000) for _ in range(20)]  # does not compress: bytes hardly move
        content = bytearray(gzip.compress(b"".join(map(framed, datas)), compresslevel=0))
        content[10] = 0x07  # a block of a type that does not exist
        assert "gzip stream is broken" in read(written(tmp_path, bytes(content)))[1]
        whole = gzip.compress(b"".join(map(framed, datas[:10])))
        found, message = read(written(tmp_path, whole + b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x07"))
        assert found == datas[:10]
        assert "record 10 at byte 30,160" in message
        assert "invalid block type" in message
        assert "--count 10 to keep" in message

    @pytest.mark.parametrize("position", range(-8, 0))
    def test_a_wrong_gzip_checksum_loses_no_record(self, tmp_path, position):
        datas = [b"one", b"two"]
        content = bytearray(gzip.compress(b"".join(map(framed, datas))))
        content[position] ^= 0x10
        path = written(tmp_path, bytes(content))
        found, message = read(path)
        assert found == datas
        assert "record 2 at byte 38" in message
        assert "gzip stream is broken" in message
        assert "--count 2 to keep the 2 sound records" in message

    def test_a_wrong_checksum_before_another_member_stops(self, tmp_path):
        first, second = bytearray(gzip.compress(framed(b"one"))), gzip.compress(framed(b"two"))
        first[-5] ^= 0x10
        found, message = read(written(tmp_path, bytes(first) + second), [].append)
        assert found == [b"one"]
        assert "broken" in message

    def test_on_damage_reads_the_sound_records_of_a_cut_file(self, tmp_path):
        rng = np.random.default_rng(1)
        datas = [rng.bytes(1000) for _ in range(9)]
        content = gzip.compress(b"".join(map(framed, datas)), compresslevel=0)
        errors = []
        found, message = read(written(tmp_path, content[:5100]), errors.append)
        assert (found, message) == (datas[:5], "")
        assert "record 5 at byte 5,080" in str(errors[0])
        assert len(errors) == 1

    def test_other_bytes_after_the_stream(self, tmp_path):
        found, message = read(written(tmp_path, gzip.compress(framed(b"one")) + b"something else"))
        assert found == [b"one"]
        assert "record 1 at byte 19" in message
        assert "Not a gzipped file (b'so')" in message


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"", "is empty (0 bytes)"),
            (gzip.compress(b"", mtime=0), "holds no record"),
            (gzip.compress(b"<html>this is no TFRecord</html>", mtime=0), "is it a TFRecord file at all?"),
            (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "starts with b'<?xml versio'"),
            (b"\x89HDF\r\n\x1a\n" + bytes(100), "starts with b'\\x89HDF"),
            (b"PK\x03\x04" + bytes(100), "starts with b'PK"),
            (b"x", "is no TFRecord file"),
            (b"\x1f\x8b", "ends inside its gzip stream"),
        ],
    )
    def test_other_formats_are_named(self, tmp_path, content, expected):
        datas, message = read(written(tmp_path, content))
        assert datas == []
        assert message.startswith("scenes.tfrecords")
        assert expected in message

    def test_missing_file_and_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"nothing\.tfrecords cannot be read \(No such file"):
            next(read_records(tmp_path / "nothing.tfrecords"))
        with pytest.raises(DataError, match="Is a directory"):
            next(read_records(tmp_path))


def example_class(packed: bool) -> type:
    """`tf.train.Example` as Google's protobuf library makes it from its definition."""
    file = descriptor_pb2.FileDescriptorProto(name=f"example_{packed}.proto", package=f"e{packed}", syntax="proto3")
    types = descriptor_pb2.FieldDescriptorProto

    def message(name, *fields):
        added = file.message_type.add(name=name)
        for number, (field, kind, repeated, type_name) in enumerate(fields, start=1):
            label = types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
            item = added.field.add(
                name=field, number=number, type=kind, label=label, type_name=type_name and f".e{packed}.{type_name}"
            )
            if repeated and kind in (types.TYPE_FLOAT, types.TYPE_INT64):
                item.options.packed = packed
        return added

    message("BytesList", ("value", types.TYPE_BYTES, True, None))
    message("FloatList", ("value", types.TYPE_FLOAT, True, None))
    message("Int64List", ("value", types.TYPE_INT64, True, None))
    kinds = [("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")]
    feature = message("Feature", *((name, types.TYPE_MESSAGE, False, type_name) for name, type_name in kinds))
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", ("feature", types.TYPE_MESSAGE, True, "Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    feature_type = f".e{packed}.Feature"
    entry.field.add(name="value", number=2, type=types.TYPE_MESSAGE, label=types.LABEL_OPTIONAL, type_name=feature_type)
    message("Example", ("features", types.TYPE_MESSAGE, False, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"e{packed}.Example"))


EXAMPLES = {packed: example_class(packed) for packed in (True, False)}
lists = st.one_of(
    st.tuples(st.just("bytes_list"), st.lists(st.binary(max_size=300), min_size=1, max_size=6)),
    st.tuples(st.just("bytes_list"), st.lists(st.binary(min_size=1, max_size=1), min_size=1, max_size=200)),
    st.tuples(st.just("float_list"), st.lists(st.floats(width=32), min_size=1, max_size=40)),
    st.tuples(st.just("int64_list"), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40)),
)


class TestParseExample:
    @given(st.dictionaries(st.text(max_size=20), lists, max_size=6), st.booleans())
    def test_examples_of_protobuf_are_read(self, features, packed):
        example = EXAMPLES[packed]()
        for name, (kind, values) in features.items():
            getattr(example.features.feature[name], kind).value.extend(values)
        parsed = parse_example(example.SerializeToString())
        assert set(parsed) == set(features)
        for name, (kind, values) in features.items():
            if kind != "bytes_list":
                dtype = np.float32 if kind == "float_list" else np.int64
                assert parsed[name].dtype == dtype
                np.testing.assert_array_equal(parsed[name], np.array(values, dtype))
            elif all(len(value) == 1 for value in values):
                assert parsed[name].dtype == np.uint8
                assert parsed[name].tobytes() == b"".join(values)
            else:
                assert parsed[name] == values

    def test_by_hand(self):
        def message(number, body):
            return bytes([number << 3 | 2, len(body)]) + body

        def entry(name, feature):
            return message(1, message(1, name) + message(2, feature))

        features = (
            entry(b"one byte each", message(1, bytes.fromhex("0a0107 0a01ff 0a0100")))
            + entry(b"in three bytes", message(1, bytes.fromhex("0a03070102")))
            + entry(b"a blob", message(1, bytes.fromhex("0a020701")))
            + entry(b"unpacked", message(2, bytes.fromhex("0d0000803f 0d000000c0")))
            + entry(b"packed", message(2, bytes.fromhex("0a080000803f000000c0")))
            + entry(b"both", message(2, bytes.fromhex("0a040000803f 0d000000c0")))
            + entry(b"integers", message(3, bytes.fromhex("0a0301ac02 08ffffffffffffffffff01")))
            + entry(b"nothing", b"")
            + entry(b"empty", message(2, b""))
        )
        unknown = bytes.fromhex("18ac02 2104030201ffffffff 2d00000000 3a0141")  # fields 3, 4, 5 and 7, all wire types
        length = bytes([len(features) & 0x7F | 0x80, len(features) >> 7])
        parsed = parse_example(message(2, b"?") + unknown + b"\x0a" + length + features)
        assert parsed["one byte each"].tolist() == [7, 255, 0]
        assert parsed["in three bytes"] == [b"\x07\x01\x02"]
        assert parsed["a blob"] == [b"\x07\x01"]
        for name in ("unpacked", "packed", "both"):
            assert parsed[name].tolist() == [1.0, -2.0]
        assert parsed["integers"].tolist() == [1, 300, -1]
        assert parsed["nothing"] == []
        assert parsed["empty"].tolist() == []

    def test_a_message_in_pieces_is_merged_and_the_last_of_two_kinds_counts(self):
        first, second = bytes.fromhex("1205 0a030a0141"), bytes.fromhex("1205 0a030a0142")  # bytes "A", then bytes "B"
        other = bytes.fromhex("1208 12060a040000803f")  # then the float 1
        name = bytes.fromhex("0a0178")
        assert parse_example(bytes([0x0A, 19, 0x0A, 17]) + name + first + second).get("x").tolist() == [65, 66]
        assert parse_example(bytes([0x0A, 22, 0x0A, 20]) + name + first + other).get("x").tolist() == [1.0]

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("0a05", "field 1 reaches to byte 7 of a message of 2"),
            ("0a030a0541", "field 1 reaches to byte 7 of a message of 3"),
            ("0b00", "wire type 3"),
            ("0200", "field 0"),
            ("80", "a number without an end"),
            ("0a" + "ff" * 11, "a number without an end"),
            ("0a0c 0a0a 0a0178 1205 12030a0141", "list of floats has 1 bytes, no multiple of 4 in feature 'x'"),
            ("0a05 0a03 0a01ff", "can't decode byte 0xff"),
        ],
    )
    def test_malformed_messages(self, content, expected):
        with pytest.raises(DataError) as caught:
            parse_example(bytes.fromhex(content), "scenes.tfrecords: record 3 at byte 99")
        assert str(caught.value).startswith("scenes.tfrecords: record 3 at byte 99 holds no well-formed")
        assert expected in str(caught.value)

    @given(st.data())
    def test_any_damage_is_a_data_error_or_another_example(self, data):
        example = EXAMPLES[True]()
        example.features.feature["mask"].bytes_list.value.extend([b"a", b"b"])
        example.features.feature["x"].float_list.value.extend([1, 2])
        content = bytearray(example.SerializeToString())
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        with suppress(DataError):  # and no other error
            assert isinstance(parse_example(bytes(content[: data.draw(st.integers(0, len(content)))])), dict)

    def test_empty_example(self):
        assert parse_example(b"") == {}
