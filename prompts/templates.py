"""The four prompts, in our own words. In: a patient's evidence (prompts/evidence.py); out: chat messages.

The evidence comes first and the instructions after it: all styles and all calls of a search on one patient share the
long part of the prompt, which the server's prefix cache reads once. The system message is the same for all styles.
The example is invented; its measurements are in no feature catalogue, so copying it names no feature. It holds no
probability either: a small model copies the one it sees (0.91 in 99 of 100 answers), whatever the patient.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.errors import ConfigError
from prompts.grammar import (
    FINAL_ANSWER_TAGS,
    THINK_ANSWER_TAGS,
    THINK_TAGS,
    render_final,
    render_step,
)

VERSION = "2"
STYLES = ("vanilla", "think", "decomposition")
SYSTEM = "You are a physician who judges risk from hospital records."

# What the examples find in their patient, with and without subquestions.
EXAMPLE_FINDINGS = ("Lactate rises from 2.1 to 9.6, urine output stops: shock.",
                    "Lactate rose from 2.1 to 9.6 and urine stopped: shock.")
_EXAMPLE_FEATURES = ("Lactate", "Urine output", "Base excess", "Norepinephrine", "Pupil reaction")


@dataclass(frozen=True)
class _Wording:
    """What is predicted, in words: as an event, as a question, and what the ends of the scale mean."""

    event: str
    question: str
    likely: str
    unlikely: str


_OUTCOMES = {
    "mortality": _Wording("dies in hospital during this stay", "Will the patient die in hospital?", "death",
                          "survival"),
    "readmission": _Wording("enters intensive care again within 30 days after discharge",
                            "Will the patient be readmitted to intensive care?", "readmission",
                            "no readmission"),
}


def messages(evidence: str, style: str, outcome: str = "mortality", count: int = 5) -> list[dict[str, str]]:
    """Chat messages that ask for an answer in one style.

    Args:
        evidence: the patient's data as text.
        style: one of STYLES.
        outcome: what is predicted, mortality or readmission.
        count: K, the number of important features asked for (decomposition).

    Raises:
        ConfigError: the style or the outcome is unknown, or the count is not positive.
    """
    wording = _wording(outcome)
    if count < 1:
        raise ConfigError(f"count {count}", "at least one important feature", "correct prompts.expert_features")
    if style == "vanilla":
        form = _vanilla_form()
    elif style == "think":
        form = _think_form()
    elif style == "decomposition":
        form = _decomposition_form(wording, count)
    else:
        raise ConfigError(f"style {style!r}", f"one of {', '.join(STYLES)}", "correct the style")
    return _chat(evidence, f"{_scale(wording)}\n{form}\n{_numbers(wording)}")


def usefulness_messages(evidence: str, so_far: str, question: str, outcome: str = "mortality") -> list[dict[str, str]]:
    """The prompt P_H: asks for the usefulness, 1 to 100, of the next, still unanswered subquestion.

    Args:
        evidence: the patient's data as text.
        so_far: the answered subquestions, as `prompts.grammar.render_step` writes them; may be empty.
        question: the subquestion to score.
        outcome: mortality or readmission.

    Raises:
        ConfigError: the outcome is unknown.
    """
    instructions = (
        f"Goal: judge whether the patient {_wording(outcome).event}. Score the next question from 1 to 100 by how much "
        "its answer helps.\n"
        "High: new, clinically relevant, about abnormal values or trends or several features together.\n"
        "Low: repeated, irrelevant, or only about static facts.\n"
        "Example: \"Do rising lactate and falling urine output point to shock?\" 90. \"Is the patient male?\" 5.\n"
        f"Asked so far:\n{so_far.strip() or 'nothing'}\n"
        f"Next question: {question.strip()}\n"
        "Reply with the number only.")
    return _chat(evidence, instructions)


def _chat(evidence: str, instructions: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{evidence.strip()}\n\n{instructions}"}]


def _wording(outcome: str) -> _Wording:
    if outcome not in _OUTCOMES:
        raise ConfigError(f"outcome {outcome!r}", f"one of {', '.join(_OUTCOMES)}", "correct cohort.outcome")
    return _OUTCOMES[outcome]


def _scale(wording: _Wording) -> str:
    return (f"Task: estimate the probability that this patient {wording.event}. 0.00 means certainly not, 1.00 "
            f"certainly; above 0.50, {wording.likely} is likelier than not.")


def _numbers(wording: _Wording) -> str:
    return (f"Write a number for 0.XX: 0.07 if {wording.unlikely} is nearly certain, 0.35, 0.62, or 0.93 if "
            f"{wording.likely} is.")


def _vanilla_form() -> str:
    opening, closing = FINAL_ANSWER_TAGS
    return f"Reply only with: {opening} 0.XX {closing}"


def _think_form() -> str:
    think, answer = THINK_TAGS, THINK_ANSWER_TAGS
    return (f"Think first, then answer. Form: {think[0]} reasons {think[1]} {answer[0]} 0.XX {answer[1]}\n"
            f"Example (another patient): {think[0]} {EXAMPLE_FINDINGS[1]} {think[1]} "
            f"{answer[0]} 0.XX {answer[1]}")


def _decomposition_form(wording: _Wording, count: int) -> str:
    noun = "feature" if count == 1 else "features"
    return (f"Ask and answer short subquestions about the data above, numbered 1, 2, .., then the final one. List the "
            f"{count} most important {noun}, spelt as above. Example of the form (another patient):\n"
            + render_step(1, "How does perfusion change?", EXAMPLE_FINDINGS[0])
            + render_final(wording.question, _EXAMPLE_FEATURES[:count], 0.5).replace("0.50", "0.XX")).rstrip()
