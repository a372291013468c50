"""The study of an extract: begun only on the files that arrived, compared with the study before it and with the one
whose policy is the champion, be it by hand. Store, ledger and extract are real; what is trained and judged is not."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from configs.load import load
from contracts.errors import DataError
from ehr.extracts.write import synthesize
from flows import study_extract as module
from flows.landing import digest_of
from flows.opening import Artifacts, handed, open_session
from lineage.artifact import Artifact
from operations.ledger import Ledger
from support.small_store import put
from tasks.comparison import BEFORE, BY_HAND, CHAMPION, FILE, KEPT, REMOVED, _verdict, judged_with
from tasks.session import Session
from tasks.stage import Work


@pytest.fixture(scope="module")
def extract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("made") / "x", "mimic-iv-2.2", 20, rows_per_stay=1).folder


class Nights:
    """A workspace in which extracts arrive and are studied.

    Attributes:
        crowned: id of the crowned policy, "" as long as none is. compared: roles and variant of each comparison.
        during: what happens while the next study runs, once its artifacts are made.
    """

    def __init__(self, folder: Path, extract: Path) -> None:
        self.extract, self.landing = extract, folder / "landing"
        self.overrides = ["cohort.source=mimic_iv", f"paths.workspace={folder / 'workspace'}", "study.name=nightly",
                          f"landing.folder={self.landing}",
                          "evaluation.arms=[vanilla, stage1+2]"]
        self.session = open_session("demo", self.overrides)
        self.ledger = Ledger(self.session.workspace)
        self.crowned, self.count, self.better = "", 0, True
        self.compared: list[tuple[dict[str, str], str]] = []
        self.during: Callable[[], Any] = lambda: None

    def arrive(self, name: str) -> Path:
        """An extract of its own content, as the watch records it."""
        place = self.landing / name
        shutil.copytree(self.extract, place, dirs_exist_ok=True)
        (place / "hosp" / "patients.csv.gz").write_bytes(self.patients(name))
        own = open_session("demo", [*self.overrides, f"paths.data={place}"])
        self.ledger.add(str(place), "arrived", "new", digest=digest_of(own), version="2.2", date="")
        return place

    def patients(self, name: str) -> bytes:
        return gzip.compress(gzip.decompress((self.extract / "hosp" / "patients.csv.gz").read_bytes()),
                             mtime=sum(name.encode()))

    def study(self, study: str = "nightly") -> dict[str, Artifact]:
        """What a study makes, each time anew."""
        self.count += 1
        name, store = f"{study}-{self.count}.txt", self.session.store
        made = {"cohort": put(store, "cohort", {name: ""}, study=study)}
        made["patients"] = put(store, "patients", {name: ""}, {"cohort": made["cohort"]}, study=study)
        made["rl"] = put(store, "rl", {name: ""}, {"patients": made["patients"]}, study=study)
        for arm in ("stage1+2", "vanilla"):
            adapter = {"adapter": made["rl"]} if arm == "stage1+2" else {}
            made[f"verdicts.{arm}"] = put(store, "verdicts", {name: ""}, {"patients": made["patients"], **adapter},
                                          arm, study=study)
        made["baselines"] = put(store, "baselines", {name: ""}, {"cohort": made["cohort"]}, study=study)
        made["report"] = put(store, "report", {name: ""}, {"rl": made["rl"]}, study=study)
        return made

    def run_study(self, *_: Any) -> Artifacts:
        made = handed(self.study())
        self.during()
        return made

    def compare(self, _: Session, roles: Mapping[str, Artifact], variant: str = "") -> Artifact:
        self.compared.append(({role: artifact.id for role, artifact in roles.items()}, variant))
        text = json.dumps({"champion_replaced": self.better and not variant,
                           "reason": KEPT.get(variant, "as compared")})
        return put(self.session.store, "comparison", {FILE: text, f"{len(self.compared)}.txt": ""}, study="nightly")

    def champion(self, *_: Any) -> Any:
        return SimpleNamespace(artifact=self.crowned) if self.crowned else None

    def crown(self, _study: str, role: str, artifact: Artifact, _reason: str) -> None:
        self.crowned = artifact.id if role == "policy" else self.crowned

    def remove(self, *artifacts: Artifact) -> None:
        for artifact in artifacts:
            self.session.store.discard(artifact)

    def night(self, place: Path | None = None) -> Artifacts:
        found: Artifacts = module.study_extract.fn("demo", self.overrides, place and str(place))
        return found

    def several(self, count: int) -> None:
        """Nights with an extract each."""
        for number in range(count):
            self.arrive(f"before-{number}")
            self.night()

    def two(self) -> tuple[Artifacts, Artifacts]:
        """What January's study makes, whose model is crowned, and February's, whose model is not."""
        self.arrive("jan")
        first = self.night()
        self.better = False
        self.arrive("feb")
        return first, self.night()

    def last_row(self) -> dict[str, Any]:
        return self.ledger.rows()[-1]


@pytest.fixture
def nights(tmp_path: Path, extract: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    found = Nights(tmp_path, extract)
    registry = SimpleNamespace(champion=found.champion, crown=found.crown)
    monkeypatch.setattr(Session, "tracker", SimpleNamespace(registry=registry))
    monkeypatch.setattr(module, "get_run_logger", lambda: logging.getLogger("nights"))
    monkeypatch.setattr(module, "run_study", found.run_study)
    monkeypatch.setattr(module, "comparison", SimpleNamespace(run=found.compare))
    return found


def test_an_extract_is_studied_once_and_the_first_model_is_champion(nights: Nights) -> None:
    nights.arrive("jan")
    made = nights.night()
    assert nights.crowned == made["rl"]["id"] and nights.last_row()["status"] == "studied"
    assert nights.last_row()["reason"] == "champion named: this is the first study"
    assert nights.night() == {} and nights.compared == []


def test_an_extract_that_was_overwritten_since_it_arrived_is_not_studied(nights: Nights) -> None:
    place = nights.arrive("current")
    (place / "hosp" / "patients.csv.gz").write_bytes(nights.patients("the next one"))
    with pytest.raises(DataError, match="changed before it was studied") as caught:
        nights.night()
    assert nights.count == 0 and "copy it again" in caught.value.next_step
    assert nights.last_row()["status"] == "failed" and "changed before it was studied" in nights.last_row()["reason"]
    (place / "icu" / "icustays.csv.gz").unlink()
    with pytest.raises(DataError, match="has no icu/icustays"):
        nights.night()


def test_an_extract_that_is_overwritten_while_it_is_studied_does_not_count_as_studied(nights: Nights) -> None:
    place = nights.arrive("current")
    nights.during = lambda: (place / "hosp" / "patients.csv.gz").write_bytes(nights.patients("the next one"))
    with pytest.raises(DataError, match="changed while it was studied"):
        nights.night()
    assert [row["status"] for row in nights.ledger.rows()] == ["arrived", "studying", "failed"]
    assert nights.crowned == "" and nights.ledger.pending(str(place), "nightly") is not None


def test_an_extract_whose_next_copy_has_begun_is_left_alone(nights: Nights) -> None:
    place = nights.arrive("current")
    nights.ledger.add(str(place), "waiting", "half-copied")
    assert nights.night() == nights.night(place) == {} and nights.count == 0


def test_after_a_kill_the_second_attempt_is_compared_with_what_the_first_was(nights: Nights) -> None:
    by_hand = nights.study()
    nights.arrive("jan")

    def killed() -> None:
        raise KeyboardInterrupt

    nights.during = killed
    with pytest.raises(KeyboardInterrupt):
        nights.night()
    nights.during = lambda: None
    made = nights.night()
    roles = nights.compared[0][0]
    assert roles["cohort"] == made["cohort"]["id"] and roles[f"{BEFORE}cohort"] == by_hand["cohort"].id
    assert roles[f"{BEFORE}verdicts.stage1+2"] == by_hand["verdicts.stage1+2"].id


def test_a_study_is_compared_with_the_last_one_and_with_that_of_the_crowned_policy(nights: Nights) -> None:
    first, second = nights.two()
    nights.arrive("mar")
    nights.night()
    roles, variant = nights.compared[-1]
    assert nights.crowned == first["rl"]["id"] and variant == ""
    assert roles[f"{BEFORE}cohort"] == second["cohort"]["id"]
    assert roles[f"{CHAMPION}verdicts.stage1+2"] == first["verdicts.stage1+2"]["id"]
    assert roles[f"{CHAMPION}baselines"] == first["baselines"]["id"]


@pytest.mark.parametrize("before", [0, 1])
def test_a_champion_set_by_hand_is_compared_by_its_own_verdicts(nights: Nights, before: int) -> None:
    nights.several(before)
    own = nights.study("elsewhere")
    nights.study("another")
    nights.crowned, nights.better = own["rl"].id, False
    nights.arrive("jan")
    nights.night()
    roles, variant = nights.compared[0]
    assert {role.removeprefix(CHAMPION): name for role, name in roles.items() if role.startswith(CHAMPION)} == {
        role: own[role].id for role in ("cohort", "baselines", "verdicts.stage1+2")}
    assert variant == "" and nights.crowned == own["rl"].id and nights.last_row()["champion"] is False


@pytest.mark.parametrize("before", [0, 1])
def test_a_champion_set_by_hand_without_verdicts_stays(nights: Nights, before: int) -> None:
    nights.several(before)
    nights.crowned = "rl-of-elsewhere"
    nights.arrive("jan")
    nights.night()
    assert nights.crowned == "rl-of-elsewhere" and [variant for _, variant in nights.compared] == [BY_HAND] * before
    assert nights.last_row()["reason"] == "champion kept: set by hand, its verdicts are not here"


def test_where_the_last_study_is_gone_the_champions_takes_its_place_and_the_reason_says_so(nights: Nights) -> None:
    champion, gone = nights.two()
    nights.remove(Artifact.from_json(gone["verdicts.vanilla"]))
    nights.arrive("mar")
    nights.night()
    roles = nights.compared[-1][0]
    assert roles[f"{BEFORE}cohort"] == roles[f"{CHAMPION}cohort"] == champion["cohort"]["id"]
    assert nights.last_row()["reason"] == "champion as compared; what the last study made is no longer in the workspace"


def test_where_both_are_gone_the_study_ends_well_and_a_crowned_policy_stays(nights: Nights) -> None:
    nights.arrive("jan")
    made = nights.night()
    nights.remove(*(Artifact.from_json(made[role]) for role in ("verdicts.stage1+2", "baselines", "cohort")))
    nights.arrive("feb")
    nights.night()
    assert nights.last_row()["status"] == "studied" and nights.crowned == made["rl"]["id"] and not nights.compared
    assert nights.last_row()["reason"] == (f"champion {KEPT[REMOVED]}; what the last study made is no longer in the "
                                           "workspace")


def test_where_no_policy_is_crowned_and_the_best_study_is_gone_the_new_one_is_named(nights: Nights) -> None:
    nights.arrive("jan")
    made = nights.night()
    nights.crowned = ""
    nights.remove(Artifact.from_json(made["baselines"]))
    nights.arrive("feb")
    again = nights.night()
    assert nights.crowned == again["rl"]["id"] and nights.last_row()["champion"] is True
    assert nights.last_row()["reason"].startswith("champion named: this is a study with none to compare with; what")


def test_the_newest_whole_judging_of_a_policy_is_found(nights: Nights) -> None:
    made, store = nights.study("x"), nights.session.store
    assert judged_with(store, "rl-nobody") == {}
    expected = {role: made[role] for role in ("cohort", "baselines", "verdicts.stage1+2")}
    elsewhere = nights.study("y")
    put(store, "verdicts", {"z.txt": ""}, {"patients": elsewhere["patients"], "adapter": made["rl"]}, "stage1+2@x")
    assert judged_with(store, made["rl"].id) == expected
    first = put(store, "verdicts", {"z.txt": ""}, {"patients": made["patients"], "adapter": made["rl"]},
                "stage1+2, first visit")
    assert judged_with(store, made["rl"].id) == {**expected, "verdicts.stage1+2, first visit": first}
    store.discard(made["cohort"])
    assert judged_with(store, made["rl"].id) == {}


def test_the_stage_keeps_a_champion_that_it_cannot_compare(tmp_path: Path) -> None:
    pl.DataFrame({"arm": ["stage1+2"]}).write_parquet(tmp_path / "verdicts.parquet")

    def verdict(variant: str) -> tuple[bool, str]:
        session: Any = SimpleNamespace(config=load("demo"))
        found = _verdict(Work(f"comparison{variant}", session, {"verdicts.stage1+2": tmp_path}, {}, tmp_path, tmp_path,
                              ""), {})
        return found.replaced, found.reason

    assert verdict(f":{BY_HAND}") == (False, "kept: set by hand, its verdicts are not here")
    assert verdict(f":{REMOVED}") == (False, "kept: its verdicts are no longer in the workspace")
    assert verdict("") == (True, "named: there was none before")
