"""The grammar of answers: its tags are written and read here and nowhere else.

In: an answer as text; out: a `Parsed`. One parser serves search, fine-tuning, rewards and evaluation.

Three styles:

- decomposition: `<Subquestion n> .. </Subquestion n> <Answer n> .. </Answer n>` for n = 1, 2, .. (none is allowed: a
  tree of depth 1 ends at once), then `<Final subquestion>`, `<Important Features>`, `<Final answer>`.
- think: `<think> .. </think> <answer> 0.XX </answer>`.
- vanilla: `<Final answer> 0.XX </Final answer>` and nothing else.

Rules of reading:

- Tags are found in any letter case and with a few blanks inside. Other text in angle brackets is just text.
- Well formed: every tag of the style in order, closed, numbered 1, 2, ..; only white space between and around them; at
  least one feature (decomposition); a plain decimal number from 0 to 1. An empty question or answer keeps the grammar.
- Of tags that repeat, the FIRST counts, as if decoding had stopped there (think: the first answer after `</think>`).
- A text that is not well formed still has a probability if its first final-answer tag holds exactly one number that
  lies in [0, 1], or a percentage in [0, 100] ("85%" is 0.85), in at most 200 characters. That tag may be left
  open if nothing but its content follows. Anything else (nan, inf, "85", "0.8-0.9", "0,85") is unreadable: None.
- Every step is linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

PROBABILITY_REGEX = r"0\.[0-9]{2}"
SCORE_REGEX = r"(?:100|[1-9][0-9]?)"

FINAL_QUESTION_TAGS = ("<Final subquestion>", "</Final subquestion>")
FEATURES_TAGS = ("<Important Features>", "</Important Features>")
FINAL_ANSWER_TAGS = ("<Final answer>", "</Final answer>")
THINK_TAGS = ("<think>", "</think>")
THINK_ANSWER_TAGS = ("<answer>", "</answer>")

_TAG = re.compile(r"<\s{0,3}(?P<close>/?)\s{0,3}(?P<kind>final[\s_-]{1,3}subquestion|final[\s_-]{1,3}answer|"
                  r"important[\s_-]{1,3}features?|subquestion|answer|think)"
                  r"(?:\s{0,3}\#?(?P<number>[0-9]{1,4}))?\s{0,3}>", re.IGNORECASE | re.ASCII)
# Possessive throughout: the "0." of "0.XX" is no number.
_NUMBER = re.compile(r"(?<![\w.])[+-]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:e[+-]?[0-9]++)?+(?!\w|\.[0-9])"
                     r"(?P<percent>\s?%)?", re.IGNORECASE | re.ASCII)
_PLAIN_NUMBER = re.compile(r"(?:[01](?:\.[0-9]{0,12})?|\.[0-9]{1,12})", re.ASCII)
_SCORE = re.compile(r"(?<![\w.-])([0-9]{1,3})(?![\w]|\.[0-9])", re.ASCII)
_LIST_MARK = re.compile(r"(?:[-*\u2022]|[0-9]{1,2}[.)]|and|&)\s+", re.IGNORECASE | re.ASCII)
_LONGEST_NUMBER_TEXT = 200
_LAYOUT = {"vanilla": ("final answer",), "think": ("think", "answer"),
           "decomposition": ("final subquestion", "important features", "final answer")}
_KINDS = {"vanilla": frozenset(_LAYOUT["vanilla"]), "think": frozenset(_LAYOUT["think"]),
          "decomposition": frozenset({"subquestion", "answer", *_LAYOUT["decomposition"]})}
_ENDS = frozenset({"important features", "final answer", "answer"})


@dataclass(frozen=True)
class Step:
    """One subquestion and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Parsed:
    """What an answer says.

    Attributes:
        steps: subquestions that are followed by their answer.
        final_question: the final subquestion, None where there is none.
        features: the important features as written, in order.
        probability: p in [0, 1], None where none can be read.
        probability_span: characters [start, end) of the number in the text, without a percent sign.
        well_formed: the text keeps the whole grammar of its style.
        problem: the first breach of the grammar, None if well formed.
    """

    steps: tuple[Step, ...]
    final_question: str | None
    features: tuple[str, ...]
    probability: float | None
    probability_span: tuple[int, int] | None
    well_formed: bool
    problem: str | None


@dataclass(frozen=True)
class _Tag:
    kind: str
    number: int | None
    closing: bool
    start: int
    end: int


@dataclass(frozen=True)
class _Block:
    """An opening tag, its content [start, end), and where its closing tag ends."""

    kind: str
    number: int | None
    opening: int
    start: int
    end: int
    after: int


def question_tags(number: int) -> tuple[str, str]:
    """Opening and closing tag of subquestion `number` (from 1)."""
    return f"<Subquestion {number}>", f"</Subquestion {number}>"


def answer_tags(number: int) -> tuple[str, str]:
    """Opening and closing tag of the answer to subquestion `number` (from 1)."""
    return f"<Answer {number}>", f"</Answer {number}>"


def render_step(number: int, question: str, answer: str) -> str:
    """One step as text, ending in a line break. Tags inside the texts lose their angle brackets."""
    return _line(question_tags(number), question) + _line(answer_tags(number), answer)


def render_final(question: str, features: Sequence[str], probability: float) -> str:
    """The final subquestion with features and probability, ending in a line break; well formed whatever the texts are.

    Raises:
        ValueError: there is no feature, a name is blank or holds a separator, or the probability is not in [0, 1].
    """
    names = [_harmless(name) for name in features]
    if not names or any(_split_features(name) != (name,) for name in names):
        raise ValueError(f"features {list(features)!r}: at least one name, none with commas, semicolons or list marks")
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability {probability!r} is not in [0, 1]")
    return (_line(FINAL_QUESTION_TAGS, question) + _line(FEATURES_TAGS, ", ".join(names))
            + _line(FINAL_ANSWER_TAGS, f"{probability:.2f}"))


def render_answer(style: str, probability: float) -> str:
    """An answer that holds nothing but the probability, ending in a line break; well formed.

    Raises:
        ValueError: the style is not vanilla, or the probability is not in [0, 1].
    """
    if style != "vanilla":
        raise ValueError(f"style {style!r}: only a vanilla answer holds nothing but a number")
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability {probability!r} is not in [0, 1]")
    return _line(FINAL_ANSWER_TAGS, f"{probability:.2f}")


def parse(text: str, style: str = "decomposition") -> Parsed:
    """Reads an answer; never raises on any text.

    Args:
        text: the whole answer, prefilled tags and stop strings included.
        style: vanilla, think or decomposition.

    Raises:
        ValueError: there is no such style.
    """
    if style not in _LAYOUT:
        raise ValueError(f"style {style!r} is not one of {', '.join(_LAYOUT)}")
    blocks, problem = _blocks(text, _tags(text, _KINDS[style]))
    first: dict[str, _Block] = {}
    for block in blocks:
        first.setdefault(block.kind, block)
    number = _probability(text, _final_block(blocks, style))
    features = _features(text, first.get("important features"))
    problem = (problem or _stray_text(text, blocks) or _order_problem(blocks, style)
               or _content_problem(text, blocks, features, style))
    question = first.get("final subquestion")
    return Parsed(steps=_steps(text, blocks) if style == "decomposition" else (),
                  final_question=_content(text, question) if question else None, features=features,
                  probability=number[0] if number else None, probability_span=number[1] if number else None,
                  well_formed=problem is None, problem=problem)


def reasoning(text: str) -> str:
    """What an answer of any style says before its features and its number: without tags, runs of blanks as one."""
    end = next((tag.start for tag in _tags(text, _ENDS) if not tag.closing and tag.number is None), len(text))
    return " ".join(_TAG.sub(" ", text[:end]).split())


def parse_score(text: str) -> int | None:
    """The usefulness score: the first whole number in the first 200 characters, None if it is not from 1 to 100."""
    found = _SCORE.search(text[:_LONGEST_NUMBER_TEXT])
    score = int(found.group(1)) if found else 0
    return score if 1 <= score <= 100 else None


def _line(tags: tuple[str, str], content: str) -> str:
    return f"{tags[0]} {_harmless(content)} {tags[1]}\n"


def _harmless(content: str) -> str:
    """The content stripped, with round brackets for the angle brackets of tags: nothing in it can end its block."""
    return _TAG.sub(lambda tag: f"({tag.group()[1:-1].strip()})", content).strip()


def _tags(text: str, kinds: frozenset[str]) -> list[_Tag]:
    tags = []
    for found in _TAG.finditer(text):
        kind = " ".join(re.split(r"[\s_-]+", found["kind"].lower()))
        kind = "important features" if kind == "important feature" else kind
        if kind in kinds:
            number = int(found["number"]) if found["number"] else None
            tags.append(_Tag(kind, number, bool(found["close"]), found.start(), found.end()))
    return tags


def _blocks(text: str, tags: list[_Tag]) -> tuple[list[_Block], str | None]:
    """Pairs each opening tag with the next tag if that closes it; the last may stay open. First breach besides."""
    blocks: list[_Block] = []
    problem = None if tags else "no tag of the grammar"
    position = 0
    while position < len(tags):
        tag = tags[position]
        following = tags[position + 1] if position + 1 < len(tags) else None
        closed = bool(following and following.closing and not tag.closing
                      and (following.kind, following.number) == (tag.kind, tag.number))
        if closed and following:
            blocks.append(_Block(tag.kind, tag.number, tag.start, tag.end, following.start, following.end))
        else:
            name = _shown(tag.kind, tag.number, "/" if tag.closing else "")
            problem = problem or f"{name} {'closes nothing' if tag.closing else 'is not closed'}"
            if following is None and not tag.closing:
                blocks.append(_Block(tag.kind, tag.number, tag.start, tag.end, len(text), len(text)))
        position += 2 if closed else 1
    return blocks, problem


def _content(text: str, block: _Block) -> str:
    return text[block.start:block.end].strip()


def _stray_text(text: str, blocks: list[_Block]) -> str | None:
    edge = 0
    for block in blocks:
        if text[edge:block.opening].strip():
            return f"text outside the tags before <{block.kind}>"
        edge = block.after
    return "text after the last tag" if text[edge:].strip() else None


def _order_problem(blocks: list[_Block], style: str) -> str | None:
    """Checks the sequence of blocks: pairs numbered 1, 2, .. (decomposition), then the fixed end of the style."""
    fixed = _LAYOUT[style]
    pairs = max(len(blocks) - len(fixed), 0) // 2 if style == "decomposition" else 0
    expected: list[tuple[str, int | None]] = [
        (kind, number) for number in range(1, pairs + 1) for kind in ("subquestion", "answer")]
    expected += [(kind, None) for kind in fixed]
    found = [(block.kind, block.number) for block in blocks]
    for wanted, got in zip(expected, found, strict=False):
        if wanted != got:
            return f"{_shown(*wanted)} expected, {_shown(*got)} found"
    if len(found) < len(expected):
        return f"{_shown(*expected[len(found)])} is missing"
    return f"{_shown(*found[len(expected)])} after the end" if len(found) > len(expected) else None


def _shown(kind: str, number: int | None, slash: str = "") -> str:
    return f"<{slash}{kind}{'' if number is None else f' {number}'}>"


def _content_problem(text: str, blocks: list[_Block], features: tuple[str, ...], style: str) -> str | None:
    if style == "decomposition" and not features:
        return "no important feature"
    number = _PLAIN_NUMBER.fullmatch(_content(text, blocks[-1]))
    return None if number and float(number.group()) <= 1.0 else "the final answer is not a decimal number from 0 to 1"


def _steps(text: str, blocks: list[_Block]) -> tuple[Step, ...]:
    return tuple(Step(_content(text, question), _content(text, answer))
                 for question, answer in zip(blocks, blocks[1:], strict=False)
                 if (question.kind, answer.kind) == ("subquestion", "answer") and question.number == answer.number)


def _final_block(blocks: list[_Block], style: str) -> _Block | None:
    kind = _LAYOUT[style][-1]
    kinds = [block.kind for block in blocks]
    begin = kinds.index("think") if style == "think" and "think" in kinds else 0
    return next((block for block in (*blocks[begin:], *blocks) if block.kind == kind), None)


def _probability(text: str, block: _Block | None) -> tuple[float, tuple[int, int]] | None:
    """Value and span of the one number that the block holds, None if there is not exactly one or it is out of range."""
    if block is None:
        return None
    content = _content(text, block)
    if len(content) > _LONGEST_NUMBER_TEXT:
        return None
    numbers = list(_NUMBER.finditer(content))
    if len(numbers) != 1:
        return None
    percent = numbers[0]["percent"] or ""
    digits = numbers[0].group().removesuffix(percent)
    value = float(digits) / (100.0 if percent else 1.0)
    if digits.startswith("-") or not 0.0 <= value <= 1.0:
        return None
    start = text.index(content, block.start) + numbers[0].start()
    return value, (start, start + len(digits))


def _features(text: str, block: _Block | None) -> tuple[str, ...]:
    return _split_features(_content(text, block)) if block else ()


def _split_features(content: str) -> tuple[str, ...]:
    """Names between commas, semicolons and line breaks, without list marks, quotes and full stops around them."""
    names = []
    for part in re.split(r"[,;\n\r]", content):
        name = part.strip(" \t\"'`*.")
        mark = _LIST_MARK.match(name)
        name = name[mark.end():].strip(" \t\"'`*.") if mark else name
        if name.strip():
            names.append(name.strip())
    return tuple(names)
