"""Clinical reasoning as a search problem: states are lines of reasoning, actions are subquestions.

In: a `Patient`, a language model behind `Generate`, the prompts, the grammar and the rewards. Out: a `Reasoning`,
which `search.mcts` can search, whose complete states are texts of the grammar, well formed whatever the model writes:
tags are never sampled but prefilled, and what is written between them goes through `search.asking`.

The calls of one expansion: one for the tags of all d candidates (not at depth 1, where no trajectory ends, nor at depth
T, where each must), d subquestions at once, then together d usefulness scores and d answers. An intermediate answer is
one call; a final one is two, its features and then its probability. All prompts of a patient begin with the same
evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from configs.schema import Search
from contracts.errors import ContractError
from contracts.generation import Generate, RenderChat
from contracts.patients import Patient
from prompts import grammar, templates
from rewards.mixture import Score, Scorer
from search.asking import STOCK_ANSWER, STOCK_FINAL, STOCK_QUESTION, Asker, Tally
from search.mcts import Place, Settings, together
from search.seeds import derived_seed
from search.wording import same


@dataclass(frozen=True)
class Line:
    """A line of reasoning so far.

    Attributes:
        text: whole steps in the grammar, each ending in a line break.
        steps: subquestions answered.
        question: the last subquestion; "" at the root.
        answer: its answer, if it is an intermediate one.
        features, probability: the prediction, if it is the final one.
    """

    text: str = ""
    steps: int = 0
    question: str = ""
    answer: str = ""
    features: tuple[str, ...] = ()
    probability: float | None = None

    @property
    def complete(self) -> bool:
        """Whether it ends in a prediction."""
        return self.probability is not None


@dataclass(frozen=True)
class Question:
    """A candidate subquestion, unanswered; `final` asks for the prediction."""

    text: str
    final: bool


@dataclass(frozen=True)
class Reasoner:
    """All that the searches of a study share.

    Attributes:
        generate, render: the model and its chat template.
        scorer: the rewards.
        section: the settings of the search.
        model: the base model's or an adapter's name on the server.
        seed: of the study.
        outcome: what is predicted.
        count: K, features that a final answer names.
    """

    generate: Generate
    render: RenderChat
    scorer: Scorer
    section: Search
    model: str
    seed: int
    outcome: str = "mortality"
    count: int = 5

    def settings(self, patient: Patient) -> Settings:
        """The numbers of Algorithm 1, with this patient's seed."""
        section = self.section
        return Settings(section.rollouts, section.depth, section.candidates, section.exploration,
                        derived_seed(self.seed, patient.stay_id))

    def problem(self, patient: Patient) -> Reasoning:
        """This patient's search problem.

        Raises:
            ContractError: the evidence shows no feature, or one whose name the grammar cannot read back.
        """
        odd = [name for name in patient.shown if not _readable(name)]
        if odd or not patient.shown:
            raise ContractError(f"patients.shown holds {odd[:3]} of {len(patient.shown)} names",
                                "a prompt shows at least one feature, and each name can stand in a list of names",
                                "recompute the patients, or rename the feature in its catalogue")
        return Reasoning(self, patient)


@dataclass
class Reasoning:
    """One patient's search problem; implements search.mcts.Problem[Line, Question]."""

    reasoner: Reasoner
    patient: Patient
    tally: Tally = field(default_factory=Tally)
    scores: dict[str, Score] = field(default_factory=dict)

    def __post_init__(self) -> None:
        reasoner = self.reasoner
        self._ask = Asker(reasoner.generate, reasoner.model, reasoner.section.temperature,
                          derived_seed(reasoner.seed, self.patient.stay_id), self.tally)
        self._messages = templates.messages(self.patient.evidence, "decomposition", reasoner.outcome, reasoner.count)

    async def actions(self, state: Line, place: Place, count: int, last: bool) -> list[Question]:
        """d candidate subquestions. One that repeats an earlier sibling is asked again once, and then kept."""
        finals = await self._finals(state, place, count, last)
        prompts = {final: self._prompt(state.text + _question_open(state, final)) for final in set(finals)}
        places = [(*place, index) for index in range(count)]
        drawn = await together(self._question(prompts[final], final, one)
                               for final, one in zip(finals, places, strict=True))
        again = _repeats(drawn)
        self.tally.faults["duplicate"] += len(again)
        redrawn = await together(self._question(prompts[finals[index]], finals[index], places[index], attempt=1)
                                 for index in again)
        return [dict(zip(again, redrawn, strict=True)).get(index, question) for index, question in enumerate(drawn)]

    async def answer(self, state: Line, action: Question, place: Place) -> Line:
        """The line with `action` answered: by one line of text, or by features and a probability."""
        return await (self._predict(state, action, place) if action.final else self._reply(state, action, place))

    def terminal(self, state: Line) -> bool:
        """Whether the line ends in a prediction."""
        return state.complete

    async def usefulness(self, state: Line, action: Question, place: Place) -> float:
        """r: the model's own score of the unanswered subquestion under the usefulness prompt P_H."""
        messages = templates.usefulness_messages(self.patient.evidence, state.text, action.text, self.reasoner.outcome)
        return await self._ask.usefulness(self.reasoner.render(messages), place)

    def reward(self, state: Line) -> float:
        """R of section 5 of the method."""
        return self.score(state).total

    def score(self, state: Line) -> Score:
        """R with its parts; computed once for each text."""
        if state.text not in self.scores:
            self.scores[state.text] = self.reasoner.scorer.score(state.text, self.patient.label,
                                                                 self.patient.expert_features)
        return self.scores[state.text]

    async def _finals(self, state: Line, place: Place, count: int, last: bool) -> list[bool]:
        if last or state.steps == 0:
            return [last] * count
        return await self._ask.kinds(self._prompt(state.text + "<"), count, place)

    async def _question(self, ids: Sequence[int], final: bool, place: Place, attempt: int = 0) -> Question:
        text = await self._ask.line(ids, "question", self.reasoner.section.question_tokens, place, attempt)
        return Question(text or (STOCK_FINAL if final else STOCK_QUESTION), final)

    async def _reply(self, state: Line, action: Question, place: Place) -> Line:
        number = state.steps + 1
        opened = _up_to(grammar.render_step(number, action.text, STOCK_ANSWER), grammar.answer_tags(number)[0])
        answer = await self._ask.line(self._prompt(state.text + opened), "answer",
                                      self.reasoner.section.answer_tokens, place) or STOCK_ANSWER
        return Line(state.text + grammar.render_step(number, action.text, answer), number, action.text, answer)

    async def _predict(self, state: Line, action: Question, place: Place) -> Line:
        def prompt(names: Sequence[str]) -> list[int]:
            rendered = grammar.render_final(action.text, names or self.patient.shown, 0.5)
            written = " " + ", ".join(names) if names else ""
            return self._prompt(state.text + _up_to(rendered, grammar.FEATURES_TAGS[0]) + written)

        features = await self._ask.features(prompt(()), self.patient.shown, self.reasoner.count, place, prompt)
        opened = _up_to(grammar.render_final(action.text, features, 0.5), grammar.FINAL_ANSWER_TAGS[0])
        probability = await self._ask.probability(self._prompt(state.text + opened), place)
        done = Line("", state.steps + 1, action.text, "", features, probability)
        return replace(done, text=state.text + grammar.render_final(action.text, features, probability))

    def _prompt(self, prefill: str) -> list[int]:
        return self.reasoner.render(self._messages, prefill)


def describe(line: Line) -> dict[str, Any]:
    """What the JSON form of a tree says about a node."""
    if line.complete:
        return {"question": line.question, "features": list(line.features), "probability": line.probability}
    return {"question": line.question, "answer": line.answer}


def _readable(name: str) -> bool:
    """Whether a feature of this name can stand in a list and is read back as written."""
    try:
        return grammar.parse(grammar.render_final("Risk?", [name], 0.5)).features == (name,)
    except ValueError:
        return False


def _question_open(state: Line, final: bool) -> str:
    return grammar.FINAL_QUESTION_TAGS[0] if final else grammar.question_tags(state.steps + 1)[0]


def _up_to(rendered: str, tag: str) -> str:
    """The rendered text up to and including `tag`, so that the model continues exactly what is kept."""
    head, _, _ = rendered.partition(tag)
    return head + tag


def _repeats(questions: Sequence[Question]) -> list[int]:
    """Places of the questions that say the same as an earlier sibling."""
    seen: set[tuple[str, bool]] = set()
    places = []
    for place, question in enumerate(questions):
        key = (same(question.text), question.final)
        if key in seen:
            places.append(place)
        seen.add(key)
    return places
