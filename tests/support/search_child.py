"""A real process that searches a forest slowly, for tests that kill it: python search_child.py OUT PATIENTS SECONDS."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.schema import Rewards, Search
from contracts.features import catalogue
from contracts.patients import Patient
from prompts.mentions import MentionFinder
from rewards.mixture import Scorer
from search.forest import grow
from search.reasoning import Reasoner
from support.scripted_model import ScriptedModel, render_characters

SECTION = Search(rollouts=2, depth=2, candidates=2, patients_at_once=2)


def patients(count):
    """Stays whose names are no file names."""
    names = catalogue("mimic_iv").tokens
    return [Patient(f"../../stay {number}\n", "train", number % 2, f"Heart Rate: {number}", names, names[:5])
            for number in range(count)]


def reasoner(model, section=SECTION):
    """A reasoner over a scripted model and the real prompts, grammar and rewards."""
    scorer = Scorer(MentionFinder(catalogue("mimic_iv")), Rewards())
    return Reasoner(model, render_characters, scorer, section, "base", 42)


if __name__ == "__main__":
    folder, count, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    asyncio.run(grow(patients(count), reasoner(ScriptedModel(pause=lambda: seconds)), folder))
