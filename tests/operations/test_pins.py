"""Pins are read with their markers, and what drifts from them is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from operations.doctor import installed_device
from operations.pins import Pin, drifts, pins, unreadable

ROOT = Path(__file__).parents[2]


def requirements(folder: Path, text: str) -> Path:
    path = folder / "requirements.txt"
    path.write_text(text)
    return path


def test_only_pins_whose_marker_holds_here_are_wanted(tmp_path: Path) -> None:
    path = requirements(tmp_path, "here==1.0 ; python_full_version >= '3.11' \\\n    --hash=sha256:00\n"
                                  "elsewhere==1.0 ; sys_platform == 'never' \\\n    --hash=sha256:00\n"
                                  "    # via here==9\n"
                                  "local==2.13.0+cpu \\\n    --hash=sha256:00\n")
    assert pins(path) == [Pin("here", "1.0"), Pin("local", "2.13.0+cpu")]


def test_this_environment_keeps_every_pin_of_its_requirements() -> None:
    wanted = pins(ROOT / "requirements" / f"{installed_device()}.txt")
    assert len(wanted) > 200
    assert list(drifts(wanted)) == []


def test_a_missing_and_an_older_package_are_drifts() -> None:
    found = {drift.pin.name: drift.found for drift in drifts([Pin("no-such-package-here", "1"), Pin("pytest", "0.1")])}
    assert found["no-such-package-here"] == "not installed"
    assert found["pytest"] not in ("0.1", "not installed")


def installed(site: Path, name: str, metadata: str = "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n",
              record: str = "{}/__init__.py,,\n") -> Path:
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(metadata.format(name))
    (folder / "RECORD").write_text(record.format(name))
    (site / name).mkdir()
    (site / name / "__init__.py").write_text("")
    return folder


def test_records_cut_off_in_writing_are_unreadable_and_whole_ones_are_not(tmp_path: Path) -> None:
    installed(tmp_path, "whole")
    empty, listless = installed(tmp_path, "empty", metadata=""), installed(tmp_path, "listless", record="")
    gone = installed(tmp_path, "gone")
    (gone / "METADATA").unlink()
    assert unreadable(tmp_path) == sorted([empty, listless, gone])


def test_a_package_that_lost_a_file_is_named_on_the_command_line(tmp_path: Path) -> None:
    installed(tmp_path, "whole")
    installed(tmp_path, "holed")
    (tmp_path / "holed" / "__init__.py").unlink()
    path = requirements(tmp_path, "whole==1.0\nholed==1.0\n")
    code = (f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from operations.pins import main\n"
            f"sys.exit(main([{str(path)!r}]))")
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (1, "holed\n")
    assert "holed/__init__.py is missing" in answer.stderr


def block(text: str, name: str) -> list[str]:
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{name}=="))
    return [line.strip(" \\") for line in lines[start + 1:start + 12] if "--hash" in line]


@pytest.mark.parametrize("name", ["cpu.txt", "gpu.txt", "uv.txt"])
def test_every_pin_has_a_hash_and_no_file_names_an_address(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    heads = [number for number, line in enumerate(text.splitlines()) if line and line[0] not in " #"]
    lines = text.splitlines()
    assert heads and all("--hash=sha256:" in lines[number + 1] for number in heads)
    assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_the_cpu_build_of_torch_is_pinned_for_both_pythons_on_both_processors() -> None:
    assert len(block((ROOT / "requirements" / "cpu.txt").read_text(), "torch")) == 4
