"""Public data over a real connection: resumed, verified, never half there."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.errors import ConfigError, DataError, NetworkError, StorageError
from operations.fetch import fetch, fetch_source, sha256_of
from operations.sources import SOURCES, PublicFile, PublicSource
from support.file_server import FileServer, serve_files

LARGE, SMALL = random.Random(1).randbytes(300_000), b"licence\n"
RELEASE = {"raw/table.csv.gz": LARGE, "LICENSE": SMALL}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve_files(FileServer(dict(RELEASE))) as running:
        yield running


def source(address: str, sized: bool = True) -> PublicSource:
    def described(path: str, place: str, content: bytes) -> PublicFile:
        return PublicFile(path, place, hashlib.sha256(content).hexdigest(), len(content) if sized else None)

    return PublicSource("sample", "sample-1.0", address, "none", (
        described("hosp/table.csv.gz", "raw/table.csv.gz", LARGE), described("LICENSE", "LICENSE", SMALL)))


def get(server: FileServer, target: Path, sized: bool = True) -> list[Path]:
    return fetch_source(source(server.address, sized), target, pause=0.01)


def half_there(target: Path, content: bytes = LARGE[:100_000]) -> Path:
    part = target / "sample-1.0" / "hosp" / "table.csv.gz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    return part


def assert_complete(target: Path) -> None:
    folder = target / "sample-1.0"
    assert (folder / "hosp" / "table.csv.gz").read_bytes() == LARGE
    assert (folder / "LICENSE").read_bytes() == SMALL
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("announce", [True, False])
def test_every_file_arrives_whole_and_under_its_name(server: FileServer, tmp_path: Path, sized: bool,
                                                     announce: bool) -> None:
    server.announce = announce
    paths = get(server, tmp_path, sized)
    assert [path.relative_to(tmp_path / "sample-1.0").as_posix() for path in paths] == ["hosp/table.csv.gz", "LICENSE"]
    assert_complete(tmp_path)


def test_progress_grows_to_the_size_of_all_files(server: FileServer, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    fetch_source(source(server.address), tmp_path, lambda *facts: told.append(facts))
    done = [row[0] for row in told]
    assert done == sorted(done) and told[-1] == (len(LARGE) + len(SMALL), len(LARGE) + len(SMALL), "LICENSE")


def test_a_second_call_asks_the_server_for_nothing(server: FileServer, tmp_path: Path) -> None:
    get(server, tmp_path)
    asked = len(server.seen)
    get(server, tmp_path)
    assert len(server.seen) == asked


@pytest.mark.parametrize("sized", [True, False])
def test_a_half_file_is_continued_where_it_ended(server: FileServer, tmp_path: Path, sized: bool) -> None:
    half_there(tmp_path)
    get(server, tmp_path, sized)
    assert server.seen[0] == ("raw/table.csv.gz", "bytes=100000-")
    assert [path for path, _ in server.seen].count("raw/table.csv.gz") == 1
    assert_complete(tmp_path)


def test_a_server_without_ranges_starts_again(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    half_there(tmp_path)
    get(server, tmp_path)
    assert_complete(tmp_path)


def test_another_part_than_asked_for_is_not_glued_on(server: FileServer, tmp_path: Path) -> None:
    server.wrong_range = True
    half_there(tmp_path)
    get(server, tmp_path)
    assert_complete(tmp_path)


@pytest.mark.parametrize("sized", [True, False])
def test_a_connection_that_breaks_twice_is_resumed_twice(server: FileServer, tmp_path: Path, sized: bool) -> None:
    server.cut_after = [120_000, 50_000]
    get(server, tmp_path, sized)
    ranges = [asked for path, asked in server.seen if path == "raw/table.csv.gz"]
    assert len(ranges) == 3 and ranges[0] is None
    assert 0 < int(str(ranges[1])[6:-1]) < int(str(ranges[2])[6:-1]) <= 170_000
    assert_complete(tmp_path)


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("rubbish", [b"x" * 100_000, b"x" * 300_000, b"x" * 400_000])
def test_a_damaged_half_file_is_thrown_away(server: FileServer, tmp_path: Path, rubbish: bytes, sized: bool) -> None:
    half_there(tmp_path, rubbish)
    get(server, tmp_path, sized)
    assert_complete(tmp_path)


def test_a_whole_part_that_was_never_renamed_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    half_there(tmp_path, LARGE)
    get(server, tmp_path)
    assert [path for path, _ in server.seen] == ["LICENSE"]
    assert_complete(tmp_path)


def test_errors_of_the_server_itself_are_tried_again(server: FileServer, tmp_path: Path) -> None:
    server.errors = [500, 503, 429]
    get(server, tmp_path)
    assert_complete(tmp_path)


def test_a_server_that_stays_broken_names_the_files_their_places_and_sums(server: FileServer, tmp_path: Path) -> None:
    server.errors = [500] * 50
    with pytest.raises(NetworkError) as caught:
        get(server, tmp_path)
    for file in source(server.address).files:
        assert f"{server.address}/{file.address}" in caught.value.next_step
        assert str(tmp_path / "sample-1.0" / file.path) in caught.value.next_step
        assert file.sha256 in caught.value.next_step
    assert len(server.seen) == 5


def test_a_file_that_is_not_there_is_asked_for_once(server: FileServer, tmp_path: Path) -> None:
    del server.files["raw/table.csv.gz"]
    with pytest.raises(NetworkError, match="404"):
        get(server, tmp_path)
    assert len(server.seen) == 1


def test_without_a_network_the_error_says_what_to_put_where(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(NetworkError) as caught:
        fetch_source(source(address), tmp_path, pause=0.01)
    assert hashlib.sha256(LARGE).hexdigest() in caught.value.next_step


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("content", [b"<html>log in</html>", bytes(300_000), LARGE + b"more"])
def test_another_content_is_refused_and_leaves_nothing(server: FileServer, tmp_path: Path, content: bytes,
                                                       sized: bool) -> None:
    server.files["raw/table.csv.gz"] = content
    with pytest.raises(DataError, match="pinned file has"):
        get(server, tmp_path, sized)
    assert not [path for path in (tmp_path / "sample-1.0").rglob("*") if path.is_file() and path.name[0] != "."]


def test_an_altered_file_is_reported_and_left_alone(server: FileServer, tmp_path: Path) -> None:
    get(server, tmp_path)
    mine = tmp_path / "sample-1.0" / "LICENSE"
    mine.write_text("my own notes")
    asked = len(server.seen)
    with pytest.raises(DataError, match="LICENSE is there with sha256"):
        get(server, tmp_path)
    assert mine.read_text() == "my own notes" and len(server.seen) == asked


def test_a_target_that_cannot_hold_files_is_a_storage_error(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "sample-1.0").write_text("a file stands in the way")
    with pytest.raises(StorageError) as caught:
        get(server, tmp_path)
    assert "--target" in caught.value.next_step


def test_an_unknown_source_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tjh, mimic-demo"):
        fetch("mimic-iv", tmp_path)


def test_a_killed_fetch_is_continued_by_the_next(tmp_path: Path) -> None:
    with serve_files(FileServer(dict(RELEASE), pause=0.02)) as server:
        code = ("import sys; sys.path[:0] = ['tests', 'tests/operations']\n"
                "import test_fetch as t; from pathlib import Path\n"
                f"t.fetch_source(t.source({server.address!r}), Path({str(tmp_path)!r}))")
        child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
        part = tmp_path / "sample-1.0" / "hosp" / "table.csv.gz.part"
        limit = time.monotonic() + 60
        while (not part.exists() or part.stat().st_size < 50_000) and time.monotonic() < limit:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        have = part.stat().st_size
        assert 50_000 <= have < len(LARGE)
        server.pause = 0.0
        get(server, tmp_path)
        assert server.seen[1] == ("raw/table.csv.gz", f"bytes={have}-")
    assert_complete(tmp_path)


def test_sources_are_pinned_by_version_and_sum() -> None:
    for name, known in SOURCES.items():
        assert known.name == name and known.address.startswith("https://")
        assert len({file.path for file in known.files}) == len(known.files)
        assert all(len(bytes.fromhex(file.sha256)) == 32 for file in known.files)
        assert any("LICENSE" in file.path for file in known.files)


@pytest.mark.real_data
def test_the_pinned_sums_are_those_of_the_real_files() -> None:
    if "EAG_RL_DATA" not in os.environ:
        pytest.skip("EAG_RL_DATA names no folder of real data")
    looked_at = 0
    for known in SOURCES.values():
        for file in known.files:
            path = Path(os.environ["EAG_RL_DATA"]) / known.folder / file.path
            if path.is_file() and file.size is not None:
                assert (path.stat().st_size, sha256_of(path)) == (file.size, file.sha256), path
                looked_at += 1
    assert looked_at >= 3
