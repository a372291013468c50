"""`eag-rl cohort --diff`: folders and artifact ids, a table or JSON, files where asked for, refusals in three lines."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from contracts.errors import ArtifactError, ConfigError, DataError
from ehr.cohort import write
from ehr.comparison_files import FILES
from flows.cli import app
from flows.compare_cohorts import find, print_comparison
from lineage.fingerprint import Recipe
from lineage.store import Store
from support.clean_cohort import clean_cohort, of_meta, of_stays


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """An older and a newer cohort, in which ten stays have another age."""
    ten = pl.int_range(pl.len()) < 10
    new = of_stays(clean_cohort(), pl.when(ten).then(pl.col("age") + 1).otherwise(pl.col("age")).alias("age"))
    return str(write(clean_cohort(), tmp_path / "old")), str(write(new, tmp_path / "new"))


def stored(workspace: Path, kind: str) -> str:
    """The id of an artifact that holds the clean cohort."""
    store, recipe = Store(workspace), Recipe(kind, {}, {}, {}, {})
    with store.drafting(kind, recipe.key) as draft:
        write(clean_cohort(), draft.out)
        return store.commit(draft, kind, recipe, {}, {}).id


def test_two_folders_are_compared_as_json_and_as_a_table(folders: tuple[str, str]) -> None:
    done = CliRunner().invoke(app, ["cohort", "--diff", *folders, "--json"])
    values = json.loads(done.stdout)
    assert done.exit_code == 0 and values["counts"]["changed"] == 10 and values["files"] == []
    table = CliRunner().invoke(app, ["cohort", "--diff", *folders])
    assert table.exit_code == 0 and "changed" in table.stdout and "Largest shifts" in table.stdout


def test_the_files_are_written_where_asked(folders: tuple[str, str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["cohort", "--diff", *folders, "--out", str(tmp_path / "out"), "--json"])
    assert [Path(path).name for path in json.loads(done.stdout)["files"]] == list(FILES)
    assert all((tmp_path / "out" / name).stat().st_size for name in FILES)


def test_an_artifact_is_found_by_the_beginning_of_its_id(folders: tuple[str, str], tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    name = stored(workspace, "cohort")
    folder = workspace.resolve() / "artifacts" / "cohort" / name
    assert find(name[:10], workspace) == find("cohort", workspace) == folder
    done = CliRunner().invoke(app, ["cohort", "--diff", name, folders[1], "--json", "--set",
                                    f"paths.workspace={workspace}"])
    assert json.loads(done.stdout)["counts"]["changed"] == 10


def test_what_is_no_cohort_is_refused(folders: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no cohort"):
        find(stored(tmp_path / "workspace", "report"), tmp_path / "workspace")
    done = CliRunner().invoke(app, ["cohort", "--diff", folders[0], "nowhere", "--set",
                                    f"paths.workspace={tmp_path / 'empty'}"])
    assert isinstance(done.exception, ArtifactError) and "no artifact 'nowhere'" in done.exception.value


def test_a_folder_without_two_cohorts_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["cohort", "--out", str(tmp_path)])
    assert isinstance(done.exception, ConfigError) and "without --diff" in done.exception.value


def test_two_catalogues_are_refused(folders: tuple[str, str], tmp_path: Path) -> None:
    old = of_meta(clean_cohort(), catalogue="tjh")
    done = CliRunner().invoke(app, ["cohort", "--diff", folders[0], str(write(old, tmp_path / "other"))])
    assert isinstance(done.exception, DataError)


def test_a_changed_split_ends_with_an_error_code(folders: tuple[str, str], tmp_path: Path) -> None:
    moved = pl.col("patient_id") == clean_cohort().stays.filter(pl.col("split") == "train")["patient_id"][0]
    new = of_stays(clean_cohort(), pl.when(moved).then(pl.lit("test")).otherwise(pl.col("split")).alias("split"))
    done = CliRunner().invoke(app, ["cohort", "--diff", folders[0], str(write(new, tmp_path / "moved"))])
    assert done.exit_code == 2 and "patients changed" in done.stdout


def test_no_identifier_is_printed(folders: tuple[str, str]) -> None:
    from ehr.compare import compare
    from ehr.folder import read

    page = StringIO()
    print_comparison(Console(width=200, file=page), compare(read(Path(folders[0])), read(Path(folders[1]))))
    text = page.getvalue()
    assert "changed" in text and [one for one in clean_cohort().stays["stay_id"] if one in text] == []
