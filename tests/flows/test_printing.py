from io import StringIO

from rich.console import Console

from flows.printing import print_results


def test_the_terminal_shows_point_and_sd_and_a_difference_with_its_interval() -> None:
    out = StringIO()
    print_results(Console(file=out, width=200), [{
        "Arm": "stage1", "AUROC": "96.4 [94.1, 98.3] (96.5 ± 1.1)", "Brier": "0.091 [0.075, 0.107] (0.090 ± 0.008)",
        "AUROC vs reference": "+4.5 [+0.8, +8.4], p = 0.012, Holm 0.024", "AUPRC vs reference": "–"}])
    text = out.getvalue()
    assert "96.4 ± 1.1" in text and "0.091 ± 0.008" in text and "+4.5 [+0.8, +8.4]" in text
    for absent in ("94.1", "Holm", "AUPRC"):
        assert absent not in text


def test_the_terminal_shows_seeds_and_their_spread_only_where_there_are_several() -> None:
    def printed(seeds: str, cell: str) -> str:
        out = StringIO()
        print_results(Console(file=out, width=200), [{"Arm": "stage1", "Seeds": seeds, "AUROC": cell}])
        return out.getvalue()

    several = printed("3", "96.4 [94.1, 98.3] (96.5 ± 1.1; seeds ± 0.7)")
    assert "96.4 ± 1.1 (seeds ± 0.7)" in several and "Seeds" in several and "94.1" not in several
    assert "Seeds" not in printed("1", "96.4 [94.1, 98.3] (96.5 ± 1.1)")
