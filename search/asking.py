"""What a search asks of the language model: one method a kind of call, each returns what can be used as it is.

In: the token ids of a prompt and a seed. Out: a kind of step, a line of text, K distinct feature names, a probability
or a usefulness score. Lists, numbers and tags are asked for by constrained decoding; free text by stop strings and
`search.wording`. What a call could not deliver is asked for once more with another seed; if that fails too a stated
stand-in is used and counted, so that every trajectory is complete. `Tally` holds the counts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from contracts.generation import Generate, Generation
from prompts import grammar
from search.seeds import derived_seed
from search.wording import STOPS, one_line

# What the two choices of the next tag look like after the "<" that is prefilled.
NEXT, FINAL = "Subquestion", "Final"
# Stand-ins for a text that stayed empty after the second try.
STOCK_QUESTION = "What else in this record bears on the outcome?"
STOCK_FINAL = "Taken together, how likely is the outcome?"
STOCK_ANSWER = "The record does not tell."
STOCK_PROBABILITY = 0.5
_TAG_TOKENS, _NUMBER_TOKENS = 12, 8
_LIKELIEST = 10

ExtendPrompt = Callable[[Sequence[str]], Sequence[int]]


@dataclass
class Tally:
    """What a search asked for and what it got.

    Attributes:
        calls: requests by kind: tag, question, answer, features, probability, usefulness.
        prompt_tokens, completion_tokens: of all of them.
        faults: truncated (texts that ran into their limit), empty (no usable text, asked again), stock (still none: a
            stand-in was used), duplicate (sibling questions asked again), repeated (feature lists that named a feature
            twice, the rest asked for again), broken (a constrained answer that is not what it was constrained to).
    """

    calls: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, generations: Sequence[Generation]) -> None:
        """Counts one request and its answers."""
        self.calls[kind] += 1
        self.prompt_tokens += max((one.prompt_tokens for one in generations), default=0)
        self.completion_tokens += sum(one.completion_tokens for one in generations)


@dataclass(frozen=True)
class Asker:
    """Puts the calls of one patient's search to the model.

    Attributes:
        model: the base model's or an adapter's name on the server.
        temperature: of everything that is sampled; usefulness scores are greedy.
        seed: the patient's seed, from which each request's is derived.
    """

    generate: Generate
    model: str
    temperature: float
    seed: int
    tally: Tally

    async def kinds(self, ids: Sequence[int], count: int, place: Sequence[int]) -> list[bool]:
        """For each of `count` candidates whether the model wants to end: its choice of the next tag, after a "<"."""
        seed = derived_seed(self.seed, list(place), "tag")
        drawn = await self.generate(ids, model=self.model, max_tokens=_TAG_TOKENS, temperature=self.temperature,
                                    seed=seed, count=count, choices=(NEXT, FINAL))
        self.tally.note("tag", drawn)
        words = [one.text.strip() for one in drawn] + [""] * (count - len(drawn))
        self.tally.faults["broken"] += sum(word not in (NEXT, FINAL) for word in words[:count])
        return [word == FINAL for word in words[:count]]

    async def line(self, ids: Sequence[int], kind: str, limit: int, place: Sequence[int], attempt: int = 0) -> str:
        """One line of text of at most `limit` tokens, tags and line breaks removed; "" if two tries gave none."""
        for again in (attempt, attempt + 100):
            seed = derived_seed(self.seed, list(place), kind, again)
            drawn = await self.generate(ids, model=self.model, max_tokens=limit, temperature=self.temperature,
                                        seed=seed, stop=STOPS)
            self.tally.note(kind, drawn)
            truncated = drawn[0].finish_reason == "length"
            self.tally.faults["truncated"] += truncated
            text = one_line(drawn[0].text, truncated, single=kind == "question")
            if text:
                return text
            self.tally.faults["empty"] += 1
        self.tally.faults["stock"] += 1
        return ""

    async def features(self, ids: Sequence[int], names: Sequence[str], count: int, place: Sequence[int],
                       ids_after: ExtendPrompt) -> tuple[str, ...]:
        """`count` distinct of `names` (all, if there are fewer), in one request if the model repeats none.

        A regular expression cannot say "distinct" without spelling out all orders. So the whole list is asked for at
        once; if it names a feature twice, the first mentions stay and the rest is asked for among the others.

        Args:
            ids: the prompt up to the opening tag.
            ids_after: the prompt with names already written behind the tag.
        """
        chosen: list[str] = []
        wanted, fruitless = min(count, len(names)), 0
        while len(chosen) < wanted and fruitless < 2:
            left = [name for name in names if name not in chosen]
            missing = wanted - len(chosen)
            seed = derived_seed(self.seed, list(place), "features", len(chosen), fruitless)
            drawn = await self.generate(ids_after(chosen) if chosen else ids, model=self.model,
                                        max_tokens=_list_tokens(left, missing), temperature=self.temperature,
                                        seed=seed, regex=list_regex(left, missing, bool(chosen)))
            self.tally.note("features", drawn)
            found = read_names(drawn[0].text, left)[:missing]
            fruitless = 0 if found else fruitless + 1
            self.tally.faults["repeated" if found else "broken"] += len(set(found)) < missing
            chosen.extend(dict.fromkeys(found))
        return (*chosen, *self._others(names, chosen, place)[:wanted - len(chosen)])

    def _others(self, names: Sequence[str], chosen: Sequence[str], place: Sequence[int]) -> list[str]:
        """The names not chosen, in an order that the seed decides: the stand-in where the model names none."""
        left = [name for name in names if name not in chosen]
        return sorted(left, key=lambda name: derived_seed(self.seed, list(place), "name", name))

    async def probability(self, ids: Sequence[int], place: Sequence[int]) -> float:
        """A probability in two decimals."""
        for attempt in range(2):
            seed = derived_seed(self.seed, list(place), "probability", attempt)
            drawn = await self.generate(ids, model=self.model, max_tokens=_NUMBER_TOKENS, seed=seed,
                                        temperature=self.temperature, regex=f" {grammar.PROBABILITY_REGEX}")
            self.tally.note("probability", drawn)
            if re.fullmatch(grammar.PROBABILITY_REGEX, drawn[0].text.strip()):
                return float(drawn[0].text)
            self.tally.faults["broken"] += 1
        self.tally.faults["stock"] += 1
        return STOCK_PROBABILITY

    async def usefulness(self, ids: Sequence[int], place: Sequence[int]) -> float:
        """The local reward r of P_H: the greedy score 1 to 100, plus at most 0.1 that orders equal scores.

        Small models give many questions the same score. The fraction is the expected score, over what the model would
        have put in place of the first digits, divided by 1000: it decides among equals and never against the score.
        """
        seed = derived_seed(self.seed, list(place), "usefulness")
        drawn = await self.generate(ids, model=self.model, max_tokens=_NUMBER_TOKENS, temperature=0.0, seed=seed,
                                    regex=grammar.SCORE_REGEX, top_logprobs=_LIKELIEST)
        self.tally.note("usefulness", drawn)
        score = grammar.parse_score(drawn[0].text)
        self.tally.faults["broken"] += score is None
        return 1.0 if score is None else score + expected_score(drawn[0], score) / 1000.0


def expected_score(generation: Generation, score: int) -> float:
    """The expected score if only the first number token varies over its likely alternatives; `score` if unknown.

    The reported log-probabilities are those of the unconstrained model: they are renormalised over the alternatives
    that are numbers from 1 to 100 together with as many of the digits that follow as fit ("9" for the "1" of 100: 90).
    """
    for token, alternatives in zip(generation.tokens, generation.top, strict=False):
        if not token.strip().isdecimal():
            continue
        rest = str(score).removeprefix(token.strip())
        numbers: dict[int, float] = {}
        for alternative, logprob in alternatives.items():
            number = _number(alternative.strip(), rest)
            if number:
                numbers[number] = numbers.get(number, 0.0) + math.exp(logprob)
        mass = sum(numbers.values())
        return sum(number * weight for number, weight in numbers.items()) / mass if mass > 0.0 else float(score)
    return float(score)


def _number(first: str, rest: str) -> int | None:
    """`first` and as many digits of `rest` as make a number from 1 to 100; None if there is none."""
    if not (first.isascii() and first.isdecimal() and len(first) <= 3):
        return None
    numbers = (int(first + rest[:length]) for length in range(len(rest), -1, -1))
    return next((number for number in numbers if 1 <= number <= 100), None)


def list_regex(names: Sequence[str], count: int, continued: bool) -> str:
    """A regular expression for `count` of `names`, comma-separated, each preceded by a blank.

    Args:
        continued: names stand already before, so the text begins with a comma.
    """
    one = "(" + "|".join(re.sub(r"([\\.^$*+?{}\[\]()|])", r"\\\1", name) for name in names) + ")"
    more = f"(, {one})" if count > 1 or continued else ""
    if continued:
        return more + f"{{{count}}}"
    return f" {one}{more}" + (f"{{{count - 1}}}" if count > 1 else "")


def read_names(text: str, names: Sequence[str]) -> list[str]:
    """The known names at the start of a comma-separated list, repeats included; it ends at the first unknown one."""
    known, found = set(names), []
    for part in text.strip().removeprefix(",").split(","):
        if part.strip() not in known:
            break
        found.append(part.strip())
    return found


def _list_tokens(names: Sequence[str], count: int) -> int:
    """Room for the `count` longest names: two bytes a token is what digits and Greek letters need at worst."""
    longest = sorted((len(name.encode()) for name in names), reverse=True)[:count]
    return sum(longest) // 2 + 2 * count + 4
