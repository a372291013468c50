"""Recipes: what changes a key, what does not, and the words for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lineage import fingerprint
from lineage.fingerprint import Recipe, changes, code_digests, flatten


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A throw-away room `tiny_room` with two modules, known to the fingerprint."""
    folder = tmp_path / "tiny_room"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "upper.py").write_text(
        '"""Doc."""\nfrom tiny_room.lower import twice\n\n\ndef four(x):\n    return twice(twice(x))\n')
    (folder / "lower.py").write_text('def twice(x):\n    """Doubles."""\n    return 2 * x  # why\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(fingerprint, "ROOMS", (*fingerprint.ROOMS, "tiny_room"))
    yield folder
    for name in [name for name in sys.modules if name.startswith("tiny_room")]:
        del sys.modules[name]
    fingerprint._source.cache_clear()


@pytest.mark.usefixtures("room")
def test_the_code_of_a_stage_is_all_it_can_reach() -> None:
    assert set(code_digests(["tiny_room.upper"])) == {"tiny_room", "tiny_room.upper", "tiny_room.lower"}


def test_comments_and_docstrings_do_not_count(room: Path) -> None:
    before = code_digests(["tiny_room.upper"])
    (room / "lower.py").write_text(
        '"""New."""\n\n\ndef twice(x):\n    """Says more."""\n    # another reason\n    return 2 * x\n')
    assert code_digests(["tiny_room.upper"]) == before


def test_a_changed_function_counts_for_the_stages_that_use_it(room: Path) -> None:
    before = code_digests(["tiny_room.upper"])
    (room / "lower.py").write_text("def twice(x):\n    return 3 * x\n")
    after = code_digests(["tiny_room.upper"])
    assert [name for name in after if after[name] != before[name]] == ["tiny_room.lower"]


def test_a_catalogue_counts_as_code_of_the_module_that_reads_it() -> None:
    assert "contracts.features" in code_digests(["tasks.patients"])


def test_the_search_does_not_depend_on_the_report() -> None:
    reached = code_digests(["tasks.trajectories"])
    assert "search.mcts" in reached and "rewards.outcome" in reached and "prompts.templates" in reached
    assert "models.policy.chat" in reached and "serving.client" in reached
    assert not any(name.startswith(("evaluation", "ehr", "tasks.stage")) for name in reached)


def test_equal_recipes_have_equal_keys_whatever_their_order() -> None:
    one = Recipe("s", {"a": "1", "b": "2"}, {"x": 1}, {}, {})
    other = Recipe("s", {"b": "2", "a": "1"}, {"x": 1}, {}, {})
    assert one.key == other.key
    assert one.key != Recipe("s", {"a": "1", "b": "3"}, {"x": 1}, {}, {}).key


def test_differences_are_said_in_words() -> None:
    old = Recipe("s", {"cohort": "1"}, {"policy.grpo.lr": 3e-6}, {"rewards.outcome": "a"}, {"trl": "1"})
    new = Recipe("s", {"cohort": "2"}, {"policy.grpo.lr": 1e-5}, {"rewards.outcome": "b"}, {"trl": "2"})
    assert changes(old.to_json(), new) == [
        "input cohort changed", "setting policy.grpo.lr: 3e-06 -> 1e-05", "code of rewards.outcome changed",
        'version of trl: "1" -> "2"']
    assert changes(new.to_json(), new) == []
    assert changes(None, new) == ["never made before"]


def test_nested_settings_become_dotted_names() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [1]}) == {"a.b.c": 1, "d": [1]}


def test_looking_at_code_imports_nothing() -> None:
    told = subprocess.run([sys.executable, "-c", "import sys\nfrom lineage.fingerprint import code_digests\n"
                           "assert 'models.policy.entropy_clip' in code_digests(['models.policy.grpo'])\n"
                           "print(sorted({'torch', 'trl', 'vllm', 'models'} & set(sys.modules)))"],
                          capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2])
    assert told.stdout.strip() == "[]"


def test_every_data_file_of_a_room_belongs_to_a_module() -> None:
    root = Path(__file__).resolve().parents[2]
    owned = {path for module, pattern in fingerprint.DATA.items()
             for path in root.joinpath(*module.split(".")[:-1]).glob(pattern)}
    found = {path for room in fingerprint.ROOMS for suffix in ("yaml", "html", "json", "jinja")
             for path in (root / room).rglob(f"*.{suffix}")}
    assert found == owned


@pytest.mark.parametrize("stage", ["report", "robustness", "transfer", "comparison"])
def test_a_stage_that_writes_a_page_depends_on_the_templates(stage: str) -> None:
    assert "evaluation.pages" in code_digests([f"tasks.{stage}"])


def test_whoever_loads_templates_owns_every_template_beside_it() -> None:
    """So that a page which includes a part, or imports from it, is made again when that part changes."""
    root, loaders = Path(__file__).resolve().parents[2], []
    for path in (path for room in fingerprint.ROOMS for path in (root / room).rglob("*.py")):
        if "FileSystemLoader(" in path.read_text(encoding="utf-8"):
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            assert set(fingerprint._data_files(module, path)) >= set(path.parent.glob("*.html")), module
            loaders.append(module)
    assert loaders == ["evaluation.pages"]
