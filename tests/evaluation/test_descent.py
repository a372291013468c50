from typing import Any

import polars as pl

from evaluation import descent


def _chain(name: str, sources: dict[str, str] | None = None, **inputs: Any) -> dict[str, Any]:
    return {"id": f"{name}-1", "stage": name, "sha256": f"{len(name):02x}" * 32, "sources": sources or {},
            "commit": "c" * 40, "tracking_run": f"run of {name}", "inputs": inputs, "started": 10.0, "finished": 12.5}


COHORT = _chain("cohort", {"labs.csv": "a" * 64, "stays.csv": "b" * 64})
BASE = _chain("base", {"weights": "d" * 64})
PATIENTS = _chain("patients", cohort=COHORT)
SFT = _chain("sft", patients=PATIENTS, base=BASE)
VERDICTS = _chain("verdicts", patients=PATIENTS, base=BASE, adapter=SFT)
BASELINES = _chain("baselines", cohort=COHORT)
CHAINS = {"verdicts.stage1": VERDICTS, "cohort": COHORT, "baselines": BASELINES}
LINKS = descent.links(CHAINS, "e" * 40, "this run")
TABLE = pl.DataFrame({"arm": ["stage1", "stage1", "expert"], "reading": ["stated", "tokens", "model"]})


def test_every_link_stands_once_after_what_it_was_made_from() -> None:
    names = [one.id for one in LINKS]
    assert sorted(names) == sorted(["labs.csv", "stays.csv", "weights", "cohort-1", "base-1", "patients-1", "sft-1",
                                    "verdicts-1", "baselines-1", descent.PAGE])
    for place, one in enumerate(LINKS):
        assert set(one.made_from) <= set(names[:place])
    assert names[-1] == descent.PAGE and LINKS[-1].commit == "e" * 40


def test_links_keep_digest_commit_run_time_and_their_names_in_the_report() -> None:
    known = {one.id: one for one in LINKS}
    assert known["labs.csv"].sha256 == "a" * 64 and known["cohort-1"].run == "run of cohort"
    assert known["verdicts-1"].names == ("verdicts.stage1",) and known["patients-1"].names == ()
    assert known["sft-1"].names == ("adapter.stage1",) and '"sft: stage1<br>' in descent.mermaid(LINKS)
    assert known["sft-1"].seconds == 2.5 and known["labs.csv"].commit is None


def test_two_files_of_one_name_that_differ_are_two_links() -> None:
    other = _chain("readings", {"labs.csv": "7" * 64}, cohort=COHORT)
    found = descent.links({"readings": other}, "e" * 40, "r")
    assert {one.id: one.sha256 for one in found if one.id.startswith("labs")} == {
        "labs.csv": "a" * 64, "labs.csv (777777777777)": "7" * 64}


def test_each_arm_leads_back_to_the_files_and_to_nothing_else() -> None:
    origins = descent.origins(LINKS, TABLE)
    assert {arm: [one.id for one in held] for arm, held in origins.items()} == {
        "stage1": ["verdicts-1"], "expert": ["baselines-1"]}
    assert [one.id for one in descent.behind(LINKS, "baselines-1")] == ["labs.csv", "stays.csv", "cohort-1",
                                                                       "baselines-1"]
    assert {"weights", "sft-1", "labs.csv"} <= {one.id for one in descent.behind(LINKS, "verdicts-1")}
    assert descent.behind(LINKS, "nothing") == []


def test_arrows_that_follow_from_others_are_left_out() -> None:
    parents = descent.essential(LINKS)
    assert parents["verdicts-1"] == ("sft-1",) and set(parents["sft-1"]) == {"patients-1", "base-1"}
    assert set(parents[descent.PAGE]) == {"verdicts-1", "baselines-1"}


def test_the_files_of_one_artifact_become_one_link_that_names_them() -> None:
    found = descent.condensed(LINKS)
    files = [one for one in found if one.kind == descent.SOURCE]
    assert [one.names for one in files] == [("labs.csv " + "a" * 12, "stays.csv " + "b" * 12), ()]
    cohort = next(one for one in found if one.id == "cohort-1")
    assert cohort.made_from == (files[0].id,)
    assert descent.anchors(LINKS)[files[0].id] == descent.anchors(LINKS)["labs.csv"]


def test_the_drawing_runs_from_left_to_right_and_escapes_names() -> None:
    hostile = descent.links({"cohort": _chain("cohort", {"<script>": "f" * 64})}, "e" * 40, "r")
    svg = descent.draw(hostile)
    assert svg.count("<g><title>") == 3 and svg.count("<path") == 2 and "<script>" not in svg
    places = {one.id: place for one, place in zip(LINKS, range(len(LINKS)), strict=True)}
    assert descent.draw(LINKS).count("<rect") == len(places)


def test_mermaid_names_every_link_and_arrow() -> None:
    text = descent.mermaid(LINKS)
    assert text.startswith("```mermaid\nflowchart LR") and text.endswith("```")
    assert text.count("-->") == sum(map(len, descent.essential(LINKS).values()))
    assert '["verdicts: stage1<br>080808080808"]' in text


def _several() -> tuple[descent.Link, ...]:
    """Links of a study of three trainings, with validation verdicts and those of the first visit."""
    trained = {number: {**_chain("sft", patients=PATIENTS, base=BASE), "id": f"sft-{number}"} for number in (1, 2, 3)}
    asked = {number: {**_chain("verdicts", patients=PATIENTS, adapter=one), "id": f"verdicts-{number}"}
             for number, one in trained.items()}
    others = {role: {**_chain("verdicts", patients=PATIENTS, adapter=trained[1]), "id": role[:5]}
              for role in ("validation.stage1", "first visit")}
    return descent.links({"seed3.verdicts.stage1": asked[3], "verdicts.stage1": asked[1],
                          "seed2.verdicts.stage1": asked[2], "validation.stage1": others["validation.stage1"],
                          "verdicts.stage1, first visit": others["first visit"], "baselines": BASELINES},
                         "e" * 40, "r")


def test_an_arm_of_several_trainings_rests_on_all_of_them_the_studys_own_first() -> None:
    found = _several()
    origins = descent.origins(found, TABLE)
    assert [one.id for one in origins["stage1"]] == ["verdicts-1", "verdicts-2", "verdicts-3"]
    behind = {one.id for one in descent.behind(found, *(one.id for one in origins["stage1"]))}
    assert behind >= {"sft-1", "sft-2", "sft-3", "labs.csv"} and not behind & {"valid", "first", "baselines-1"}
    assert {one.id for one in descent.behind(found, "verdicts-2")} & {"sft-1", "sft-3"} == set()


def test_an_adapter_is_named_once_by_its_arm_whoever_asked_it() -> None:
    known = {one.id: one for one in _several()}
    assert [known[f"sft-{number}"].names for number in (1, 2, 3)] == [("adapter.stage1",)] * 3
    text = descent.mermaid(_several())
    assert '"verdicts: stage1, seed 2<br>' in text and '"verdicts: stage1, first visit<br>' in text
