"""R: the reward of a whole answer, lambda R_cls + (1 - lambda) R_att. In: answer text and truth; out: a `Score`.

Malformed text is a case with a score, never an exception.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from configs.schema import Rewards
from prompts.grammar import parse
from prompts.mentions import MentionFinder
from rewards.attention import attention_reward
from rewards.outcome import outcome_reward


def total_reward(outcome: float, attention: float, weight: float = 0.6) -> float:
    """R = lambda R_cls + (1 - lambda) R_att, with lambda = `weight` (EAG-RL; method section 5)."""
    return weight * outcome + (1.0 - weight) * attention


@dataclass(frozen=True)
class Score:
    """The reward of one answer and what it was made of.

    Attributes:
        total: R. outcome: R_cls. attention: R_att.
        parsed: a probability could be read.
        probability: it, None where not parsed.
        features: C, the distinct features named: canonical where they are known, casefolded as written where not.
        well_formed: the answer keeps the whole grammar of its style.
    """

    total: float
    outcome: float
    attention: float
    parsed: bool
    probability: float | None
    features: tuple[str, ...]
    well_formed: bool


class Scorer:
    """Scores answers to the prompts of one dataset."""

    def __init__(self, mentions: MentionFinder, section: Rewards) -> None:
        self._mentions, self._section = mentions, section

    def score(self, text: str, label: int, expert_features: Iterable[str], style: str = "decomposition",
              read: float | None = None) -> Score:
        """Scores one answer. Without a readable probability R_cls = log 0.01 and R_att = 0, whatever it names.

        Args:
            text: the whole answer, prefilled tags and stop strings included.
            label: y, 0 or 1.
            expert_features: C_exp, canonical names.
            style: one of `prompts.templates.STYLES`.
            read: the risk of a readable answer, read in another way than by its stated number; None: that number.

        Raises:
            ContractError: the label is neither 0 nor 1.
        """
        answer = parse(text, style)
        parsed = answer.probability is not None
        features = self._mentions.canonical_names(answer.features)
        risk = answer.probability if read is None or not parsed else read
        outcome = outcome_reward(risk, label, self._section.beta)
        attention = attention_reward(features, expert_features) if parsed else 0.0
        return Score(total=total_reward(outcome, attention, self._section.weight), outcome=outcome,
                     attention=attention, parsed=parsed, probability=answer.probability, features=features,
                     well_formed=answer.well_formed)
