"""play: the page's server and its protection, sources of frames, numbers, and what goes wrong."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unscene.cli.main import main
from unscene.data.image_file import AS_STORED, ContrastSettings
from unscene.errors import DataError, ExtraError, RecipeError
from unscene.inference.frame_sources import Frame, camera_frames, file_frames, game_frames
from unscene.inference.live import LiveView, play
from unscene.inference.live_server import serving
from unscene.inference.newest import Newest
from unscene.inference.tracking import Tracker
from unscene.runs.loading import LoadedModel, load

MODEL = "rmonet_unet/multi_dsprites_cpu"


@pytest.fixture(scope="module")
def loaded(trained) -> LoadedModel:
    return load(trained.path)


@pytest.fixture
def served() -> Iterator[tuple[LiveView, int]]:
    view = LiveView()
    with serving(view, "a <model>") as address:
        yield view, int(address.rpartition(":")[2])


def get(port: int, path: str, host: str = "") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={"Host": host} if host else {})
    response = connection.getresponse()
    return response.status, dict(response.headers), response.read()


def frame(grey: int = 0, size: int = 64, starts: bool = False) -> Frame:
    return Frame(np.full((size, size, 3), grey, np.uint8), time.perf_counter(), starts)


def show(view: LiveView, loaded: LoadedModel, shown: Frame) -> None:
    view.show(shown, Tracker(loaded).update(shown.pixels))


def test_the_page_names_the_model_and_loads_nothing_from_elsewhere(served):
    _, port = served
    status, headers, page = get(port, "/")
    assert status == 200
    assert b"a &lt;model&gt;" in page
    assert b"TITLE" not in page
    assert not re.search(rb"(src|href)=.?(https?:)?//", page)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/other", "/../etc/passwd", "/status/"])
def test_there_is_nothing_else(served, path):
    assert get(served[1], path)[0] == 404


def test_another_name_of_this_machine_is_refused(served):
    _, port = served
    for path in ("/", "/status", "/stream", "/other"):
        assert get(port, path, f"evil.example:{port}")[0] == 403
        assert get(port, path, "127.0.0.1")[0] == 403  # without the port it is another origin
    assert get(port, "/", f"localhost:{port}")[0] == 200


def test_the_address_is_this_machine_alone(served):
    with pytest.raises(OSError, match=r"refused|unreachable"):
        socket.create_connection(("127.0.0.2", served[1]), timeout=5)


def test_the_stream_begins_with_the_newest_picture(served, loaded):
    view, port = served
    for grey in (0, 250):
        show(view, loaded, frame(grey))
    threading.Timer(1.0, view.jpeg.close).start()
    status, headers, content = get(port, "/stream")
    assert status == 200
    assert headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
    parts = content.split(b"--frame\r\n")
    assert parts[0] == parts[-1] == b""
    assert len(parts) == 3  # the first picture was dropped
    head, _, jpeg = parts[1].partition(b"\r\n\r\n")
    assert f"Content-Length: {len(jpeg) - 2}".encode() in head
    picture = np.asarray(Image.open(io.BytesIO(jpeg)))
    assert picture.shape == (320, 320, 3)  # enlarged five times
    assert np.median(picture) > 150


def test_a_viewer_who_does_not_read_delays_nobody(served, loaded):
    view, port = served
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        large = np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)  # larger than all buffers
        found = Tracker(loaded).update(large)
        for _ in range(4):
            view.show(Frame(large, time.perf_counter()), found)
        began = time.perf_counter()
        assert json.loads(get(port, "/status")[2])["frames"] == 4
        assert time.perf_counter() - began < 5


def test_numbers_about_the_last_frames(served, loaded):
    view, port = served
    assert json.loads(get(port, "/status")[2]) == {
        "frames": 0,
        "objects": 0,
        "frames_per_second": None,
        "latency_ms": None,
        "latency_ms_95": None,
    }
    assert view.summary() == "0 frames."
    view.frames = 3
    view._times.extend([(10.0, 10.1), (10.5, 10.6), (11.0, 11.3)])
    numbers = json.loads(get(port, "/status")[2])
    assert numbers["frames_per_second"] == pytest.approx(2 / 1.2)
    assert numbers["latency_ms"] == pytest.approx(100)
    assert numbers["latency_ms_95"] == pytest.approx(280)
    assert view.status(2)["frames_per_second"] == pytest.approx(1 / 0.7)
    assert view.summary() == (
        "3 frames, 1.7 a second; from a frame's arrival to its overlay 100 ms (median), 280 ms (95 % of the frames)."
    )


def test_memory_holds_the_newest_value_and_a_fixed_number_of_times(loaded, monkeypatch):
    view = LiveView()
    found = Tracker(loaded).update(frame().pixels)
    monkeypatch.setattr("unscene.inference.live._encoded", lambda *frame: bytes(1000))
    for _ in range(1500):
        view.show(frame(), found)
    assert view.frames == 1500
    assert len(view._times) == 1000
    assert [value for value in vars(view.jpeg).values() if isinstance(value, bytes)] == [bytes(1000)]


def test_who_waits_gets_the_newest_value_and_none_at_the_end():
    newest: Newest[str] = Newest()
    newest.put("a")
    newest.put("b")
    assert newest.after(0) == (2, "b")
    threading.Timer(0.1, newest.put, ("c",)).start()
    assert newest.after(2) == (3, "c")
    threading.Timer(0.1, newest.close).start()
    assert newest.after(3) is None
    assert newest.after(0) == (3, "c")


def test_as_many_frames_as_asked_for_are_played_at_the_pace_asked_for(loaded, capsys):
    frames = (frame(grey) for grey in range(100))
    began = time.perf_counter()
    view = play(loaded, frames, "greys", fps=20, count=5)
    assert time.perf_counter() - began >= 0.2
    assert view.frames == 5
    assert capsys.readouterr().out.startswith("Open http://127.0.0.1:")
    assert list(frames) == []  # closed


def test_a_new_sequence_gets_new_numbers(loaded, monkeypatch):
    numbers: list[list[int]] = []
    monkeypatch.setattr(LiveView, "show", lambda self, frame, found: numbers.append(found.slots.tolist()))
    scene = np.full((64, 64, 3), 60, np.uint8)
    scene[20:40, 20:40] = (220, 40, 40)
    scenes = [Frame(scene, 0.0, starts) for starts in (True, False, True, False)]
    play(load(MODEL), (scene for scene in scenes), "", count=4)
    assert numbers[0] == numbers[1] == [1]
    assert numbers[2] == numbers[3] == [2]
    numbers.clear()
    play(load(MODEL), (scene for scene in scenes), "", count=4, track=False)
    assert len({tuple(slots) for slots in numbers}) == 1


def test_the_frames_of_a_game_are_the_models_size_and_repeat_with_the_seed():
    pytest.importorskip("ale_py")
    first, again, other = (list(islice(game_frames("pong", 64, seed, AS_STORED), 60)) for seed in (0, 0, 1))
    assert first[0].pixels.shape == (64, 64, 3)
    assert first[0].picture.shape == (160, 160, 3)
    assert [shown.starts for shown in first] == [True] + 59 * [False]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, other, strict=True))
    dark = next(game_frames("pong", 64, 0, ContrastSettings(gamma=3.0)))
    assert dark.pixels.mean() < first[0].pixels.mean()


def test_a_game_that_is_over_starts_again(monkeypatch):
    class Emulator:
        acts = resets = 0

        def act(self, action: int) -> None:
            self.acts += 1

        def game_over(self) -> bool:
            return self.acts % 6 == 0

        def reset_game(self) -> None:
            self.resets += 1

        def getScreenRGB(self) -> Any:  # noqa: N802
            return np.zeros((210, 160, 3), np.uint8)

    emulator = Emulator()
    monkeypatch.setattr("unscene.inference.frame_sources.new_emulator", lambda game: emulator)
    starts = [shown.starts for shown in islice(game_frames("any", 8, 0, AS_STORED), 8)]
    assert starts == [True, False, False, True, False, False, True, False]  # two acts a frame
    assert emulator.resets == 2


def test_a_folder_is_played_in_the_order_of_its_names_again_and_again(tmp_path):
    for name, grey in (("10", 100), ("9", 90), ("1", 10)):
        Image.new("RGB", (6, 4), (grey,) * 3).save(tmp_path / f"{name}.png")
    shown = list(islice(file_frames(tmp_path, AS_STORED), 5))
    assert [int(one.pixels[0, 0, 0]) for one in shown] == [10, 90, 100, 10, 90]
    assert [one.starts for one in shown] == [True, False, False, True, False]
    assert shown[0].pixels.shape == (4, 6, 3)


def test_an_animation_is_played_frame_by_frame(tmp_path):
    pages = [Image.new("RGB", (8, 8), (grey,) * 3) for grey in (0, 100, 200)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    shown = islice(file_frames(tmp_path / "a.tif", AS_STORED), 4)
    assert [int(one.pixels[0, 0, 0]) for one in shown] == [0, 100, 200, 0]


def camera(monkeypatch, reads: list[Any], is_there: bool = True) -> list[str]:
    """Put a module in OpenCV's place whose camera gives these frames; return what happens to the camera."""
    events: list[str] = []

    class VideoCapture:
        def __init__(self, number: int) -> None:
            events.append(f"opened {number}")

        def isOpened(self) -> bool:  # noqa: N802
            return is_there

        def read(self) -> tuple[bool, Any]:
            picture = reads.pop(0) if reads else None
            if callable(picture):
                picture = picture()
            return picture is not None, picture

        def release(self) -> None:
            events.append("released")

    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=VideoCapture))
    return events


def test_frames_of_a_camera_that_come_meanwhile_are_dropped(monkeypatch):
    pictures = [np.full((4, 6, 3), (0, 0, grey), np.uint8) for grey in range(50)]
    unplugged = threading.Event()

    def last() -> None:
        unplugged.wait(20)

    events = camera(monkeypatch, [*pictures, last])
    frames = camera_frames(3, AS_STORED)
    while len(events) < 1:
        time.sleep(0.01)
    time.sleep(0.3)  # the model works
    shown = next(frames)
    assert shown.pixels[0, 0].tolist() == [49, 0, 0]  # the newest; red is last in OpenCV
    unplugged.set()
    with pytest.raises(DataError, match=r"camera 3 gives no more frames\. Expected a connected camera: connect it"):
        next(frames)
    assert events == ["opened 3", "released"]


def test_a_camera_is_released_at_the_end(monkeypatch, loaded):
    endless = [lambda: time.sleep(0.01) or np.zeros((64, 64, 3), np.uint8)] * 1000
    events = camera(monkeypatch, endless)
    assert play(loaded, camera_frames(0, AS_STORED), "", fps=1000, count=3).frames == 3
    deadline = time.monotonic() + 10
    while "released" not in events and time.monotonic() < deadline:
        time.sleep(0.01)
    assert events == ["opened 0", "released"]


def test_a_camera_that_is_not_there(monkeypatch):
    camera(monkeypatch, [], is_there=False)
    with pytest.raises(DataError, match=r"camera 7 cannot be opened\. Expected .*\. Name another one with --camera N"):
        camera_frames(7, AS_STORED)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ExtraError, match=r"cv2 is not installed, .*'unscene\[camera\]'"):
        camera_frames(0, AS_STORED)


def test_a_port_in_use_is_named(served, loaded):
    _, port = served
    with pytest.raises(RecipeError, match=rf"port {port} \(.*\)\. Expected a free port .*--port"):
        play(loaded, (frame() for _ in range(1)), "", port=port)
    with pytest.raises(RecipeError, match="port 70000"):
        play(loaded, (frame() for _ in range(1)), "", port=70000)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RecipeError: one source of frames was expected, not none: name --game NAME, --camera N or --frames"),
        (
            ["--game", "pong", "--camera", "0"],
            "RecipeError: one source of frames was expected, not --game and --camera",
        ),
        (["--frames", "missing"], "DataError: There is no image or folder"),
        (["--frames", "missing", "--seed", "1"], "RecipeError: --seed is for the agent of a --game: leave it out."),
        (["--game", "pong", "--data.size", "3"], "RecipeError: `unscene play` takes the settings --model.num_slots"),
        (["--game", "pong", "--min-score", "2"], "RecipeError: "),
    ],
)
def test_wrong_words_are_one_line(words, message, trained, capsys):
    assert main(["play", str(trained.path), *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(("game", "message"), [("pongg", "there is no game 'pongg'. Did you mean 'pong'?")])
def test_an_unknown_game_or_run(game, message, trained, capsys, monkeypatch):
    assert main(["play", "no/run", "--game", "pong"]) == 1
    assert capsys.readouterr().err.startswith("CheckpointError: no/run does not exist. Name a run's folder")
    monkeypatch.setitem(sys.modules, "ale_py", None)
    assert main(["play", str(trained.path), "--game", game]) == 1
    assert "pip install 'unscene[atari]'" in capsys.readouterr().err
    monkeypatch.undo()
    pytest.importorskip("ale_py")
    assert main(["play", str(trained.path), "--game", game]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--fps", "0"], ["--fps", "abc"], ["--count", "0"], ["--count", "1.5"], ["--fps", "inf"], ["--camera", "x"]],
)
def test_impossible_numbers_end_with_2(words, trained, capsys):
    with pytest.raises(SystemExit) as end:
        main(["play", str(trained.path), "--game", "pong", *words])
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_frames_of_two_sizes_are_an_error(trained, tmp_path, capsys):
    Image.new("RGB", (64, 64)).save(tmp_path / "1.png")
    Image.new("RGB", (64, 32)).save(tmp_path / "2.png")
    assert main(["play", str(trained.path), "--frames", str(tmp_path), "--count", "2"]) == 1
    assert "DataError: frame 2 is 64 x 32 pixels" in capsys.readouterr().err


def test_the_command_counts_frames_and_names_its_times(trained, tmp_path, capsys):
    Image.new("RGB", (64, 64)).save(tmp_path / "1.png")
    assert main(["play", str(trained.path), "--frames", str(tmp_path), "--count", "4"]) == 0
    address, summary = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"Open http://127\.0\.0\.1:\d+  \(Ctrl-C ends it\)", address)
    assert re.fullmatch(
        r"4 frames, [\d.]+ a second; from a frame's arrival to its overlay \d+ ms \(median\), \d+ ms \(95 % of the "
        r"frames\)\.",
        summary,
    )


def test_ctrl_c_ends_it_with_the_summary(trained, tmp_path, capsys, monkeypatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "1.png")
    paced = islice(file_frames(tmp_path, AS_STORED), 2)

    def interrupted(*_: Any) -> Iterator[Frame]:
        yield from paced
        raise KeyboardInterrupt

    monkeypatch.setattr("unscene.inference.live._paced", interrupted)
    assert main(["play", str(trained.path), "--frames", str(tmp_path), "--no-browser"]) == 130
    assert re.match(r"2 frames, [\d.]+ a second; from", capsys.readouterr().err)
