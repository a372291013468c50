"""From what rows say to values in the catalogue's units: factors by item and unit, numbers for coded texts.

In: columns of many rows of interest. Out: feature and value of each, or why it has none. Units and texts are digests;
what one is spelt like is asked once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from ehr.sources.mimic_iv.items import Items
from ehr.sources.mimic_iv.sieve import EMPTY

KEPT, NO_NUMBER, UNKNOWN_UNIT, UNKNOWN_TEXT, _NEW_UNIT, _NEW_TEXT = range(6)


class UnitTable:
    """Factor and offset of each pair of item and unit, value of each coded text; both are found once.

    Args:
        known: all items. table: whose rows are read.
    """

    def __init__(self, known: Items, table: str) -> None:
        self._known, self._items = known, known.of_table(table)
        self.numbers = np.array([item.number for item in self._items], dtype=np.int64)
        self._features = np.array([item.feature for item in self._items], dtype=np.int8)
        self._coded = np.array([item.feature in known.coded for item in self._items], dtype=np.bool_)
        self._units = np.empty(0, np.uint64)
        self._factors = np.empty((2, len(self._items), 0))
        self._texts, self._meant = np.empty((0, 2), np.uint64), np.empty(0)

    def convert(self, item: np.ndarray, unit: np.ndarray, number: np.ndarray, text: np.ndarray,
                spelling: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, values and reasons, (R,) each; a value counts where the reason is KEPT.

        Args:
            item: (R,) items of this table. unit, text: (R,) digests. number: (R,) as written, NaN where empty.
            spelling: what a digest stands for.
        """
        columns = [np.ascontiguousarray(column) for column in (item, unit, number, text)]
        while True:
            index, value, why = _convert(*columns, self.numbers, self._features, self._coded, self._units,
                                         self._factors, self._texts, self._meant)
            new_units, new_texts = why == _NEW_UNIT, why == _NEW_TEXT
            if not new_units.any() and not new_texts.any():
                return self._features[index], value, why
            for code in np.unique(unit[new_units]).tolist():
                self._learn_unit(code, "" if code == EMPTY else spelling(code))
            for feature, code in set(zip(self._features[index[new_texts]].tolist(), text[new_texts].tolist(),
                                         strict=True)):
                self._learn_text(feature, code, spelling(code))

    def _learn_unit(self, code: int, spelling: str) -> None:
        pairs = [self._known.conversion(item, spelling) or (np.nan, np.nan) for item in self._items]
        self._units = np.append(self._units, np.uint64(code))
        self._factors = np.concatenate([self._factors, np.array(pairs).reshape(-1, 2).T[:, :, None]], axis=2)

    def _learn_text(self, feature: int, code: int, spelling: str) -> None:
        self._texts = np.concatenate([self._texts, np.array([[feature, code]], np.uint64)])
        self._meant = np.append(self._meant, float(self._known.coded[feature].get(spelling.strip(), np.nan)))


@njit(nogil=True, cache=True)
def _convert(item, unit, number, text, numbers, features, coded, units, factors, texts, meant):
    index, value, why = np.empty(item.size, np.int64), np.empty(item.size), np.zeros(item.size, np.int8)
    column = 0
    for row in range(item.size):
        place = np.searchsorted(numbers, item[row])
        index[row], value[row] = place, np.nan
        if coded[place]:
            if text[row] == EMPTY:
                why[row] = NO_NUMBER
                continue
            entry = 0
            while entry < meant.size and (texts[entry, 1] != text[row] or texts[entry, 0] != features[place]):
                entry += 1
            if entry == meant.size:
                why[row] = _NEW_TEXT
            else:
                value[row] = meant[entry]
                why[row] = UNKNOWN_TEXT if np.isnan(meant[entry]) else KEPT
            continue
        if column >= units.size or units[column] != unit[row]:
            column = 0
            while column < units.size and units[column] != unit[row]:
                column += 1
        if column == units.size:
            why[row] = _NEW_UNIT
        elif np.isnan(number[row]):
            why[row] = NO_NUMBER
        else:
            value[row] = number[row] * factors[0, place, column] + factors[1, place, column]
            why[row] = UNKNOWN_UNIT if np.isnan(value[row]) else KEPT
    return index, value, why
