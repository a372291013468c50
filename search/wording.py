"""What a model wrote, made fit to stand between two tags of the grammar.

In: a raw continuation, and whether it ran into its token limit. Out: one line of text that holds no tag; "" where
nothing is left. Trajectories are thereby well formed whatever the model writes:

1. The text ends where something like a tag begins ("</", "<Answer", "<Final" ...). If nothing stands before it, such
   tags are taken out and what stands between them is kept.
2. Line breaks, control characters and runs of blanks become one space.
3. "<" and ">" stay only as comparisons ("< 65", ">=7.3"); elsewhere they are dropped.
4. A text that ran into the limit ends at its last whole sentence; if that would cost more than half of it, at its last
   whole word.
5. A text without a letter or digit counts as empty.
"""

from __future__ import annotations

import re

_WORDS = "subquestion|answer|final|important|think"
_TAG_START = re.compile(rf"<\s*/|<\s*(?:{_WORDS})", re.IGNORECASE)
_TAG = re.compile(rf"<\s*(?:/|{_WORDS})[^<>\n]{{0,40}}>|<\s*(?:/\s*)?(?:{_WORDS})?(?![=\d])", re.IGNORECASE)
_NO_COMPARISON = re.compile(r"[<>](?!\s*[=\d])")
_SENTENCE_END = re.compile(r"[.?!](?=\s)|(?<!\d)[.?!]$")
# Strings that end a continuation at the server, so that nothing is generated in vain. The completions endpoint takes
# four at most; what they miss ("<Important", other letter case) is cut by rule 1.
STOPS = ("</", "<Sub", "<Answer", "<Final")


def one_line(text: str, truncated: bool = False, single: bool = False) -> str:
    """Rules 1 to 5 of the module header; with `single` only the first line of the text counts."""
    kept = _before_tags(text)
    kept = first_line(kept) if single else kept
    reaches_end = text.endswith(kept)
    kept = "".join(letter if letter.isprintable() else " " for letter in kept)
    kept = " ".join(_NO_COMPARISON.sub(" ", kept).split())
    if truncated and reaches_end:
        kept = whole_sentences(kept)
    return kept if any(letter.isalnum() for letter in kept) else ""


def first_line(text: str) -> str:
    """The first line that holds a letter or digit; the whole text if none does."""
    return next((line for line in text.splitlines() if any(letter.isalnum() for letter in line)), text)


def whole_sentences(text: str) -> str:
    """Cuts a text that ran into its limit at its last sentence, or at its last word."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    if ends and 2 * ends[-1] >= len(text):
        return text[:ends[-1]]
    return text.rpartition(" ")[0] or text


def same(text: str) -> str:
    """Two texts are the same line of reasoning if this form of them is: case, blanks and punctuation do not count."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _before_tags(text: str) -> str:
    found = _TAG_START.search(text)
    if found is None:
        return text
    head = text[:found.start()]
    return head if any(letter.isalnum() for letter in head) else _TAG.sub(" ", text)
