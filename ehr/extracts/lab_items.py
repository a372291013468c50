"""Laboratory items: what the laboratory reports, which of it are features, and how often.

In: nothing. Out: `FEATURES` and `OTHERS`. Item ids, labels, units, reference ranges and shares are those of the open
MIMIC-IV demo 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from ehr.sources.physiology import ACIDITY, GLUCOSE, SATURATION


@dataclass(frozen=True)
class Lab:
    """A row of `d_labitems` and how its values look.

    Attributes:
        unit: `valueuom` of its rows, None where they have none.
        normal: reference range, None where none is printed.
        low, high, digits: range and decimals of numbers of labs of no interest.
        sign: the feature it measures, "" if it is of no interest.
        per_hour: expected reports of a feature in an hour of the stay.
        weight: share among the labs of no interest (rows in the demo).
        words: what a lab without numbers reports.
        hidden: share of rows whose `value` is `___` though `valuenum` is there.
        comment: what the laboratory adds to each report.
    """

    itemid: int
    label: str
    category: str
    unit: str | None = None
    normal: tuple[float, float] | None = None
    low: float = 0.0
    high: float = 0.0
    digits: int = 0
    weight: int = 0
    sign: str = ""
    per_hour: float = 0.0
    words: tuple[str, ...] = ()
    hidden: float = 0.06
    comment: str | None = None


_GAS, _CHEMISTRY, _BLOOD = "Blood Gas", "Chemistry", "Hematology"
_FASTING = "IF FASTING, 70-100 NORMAL, >125 PROVISIONAL DIABETES."
FEATURES: tuple[Lab, ...] = (
    Lab(50820, "pH", _GAS, "units", (7.35, 7.45), sign=ACIDITY, per_hour=0.075),
    Lab(50931, "Glucose", _CHEMISTRY, "mg/dL", (70, 100), sign=GLUCOSE, per_hour=0.17, hidden=0.8, comment=_FASTING),
    Lab(50809, "Glucose", _GAS, "mg/dL", (70, 105), sign=GLUCOSE, per_hour=0.02),
    Lab(50817, "Oxygen Saturation", _GAS, "%", sign=SATURATION, per_hour=0.017))
OTHERS: tuple[Lab, ...] = (
    Lab(50971, "Potassium", _CHEMISTRY, "mEq/L", (3.3, 5.1), 3.3, 5.3, 1, 3022),
    Lab(50983, "Sodium", _CHEMISTRY, "mEq/L", (133, 145), 128, 146, 0, 3007),
    Lab(50912, "Creatinine", _CHEMISTRY, "mg/dL", (0.5, 1.2), 0.5, 4.4, 1, 3003),
    Lab(50902, "Chloride", _CHEMISTRY, "mEq/L", (96, 108), 90, 111, 0, 2981),
    Lab(51006, "Urea Nitrogen", _CHEMISTRY, "mg/dL", (6, 20), 6, 78, 0, 2974),
    Lab(51221, "Hematocrit", _BLOOD, "%", (40, 51), 21.6, 42.7, 1, 2913),
    Lab(50882, "Bicarbonate", _CHEMISTRY, "mEq/L", (22, 32), 17, 32, 0, 2863),
    Lab(50868, "Anion Gap", _CHEMISTRY, "mEq/L", (8, 20), 9, 23, 0, 2860),
    Lab(51265, "Platelet Count", _BLOOD, "K/uL", (150, 400), 23, 473, 0, 2827),
    Lab(51222, "Hemoglobin", _BLOOD, "g/dL", (13.7, 17.5), 7.1, 14.2, 1, 2787),
    Lab(51248, "MCH", _BLOOD, "pg", (26, 32), 25.4, 34.2, 1, 2760),
    Lab(51249, "MCHC", _BLOOD, "g/dL", (32, 37), 29.9, 35.3, 1, 2760),
    Lab(51250, "MCV", _BLOOD, "fL", (82, 98), 80, 105, 0, 2760),
    Lab(51301, "White Blood Cells", _BLOOD, "K/uL", (4, 10), 2.5, 44, 1, 2760),
    Lab(51279, "Red Blood Cells", _BLOOD, "m/uL", (4.6, 6.1), 2.31, 4.8, 2, 2760),
    Lab(51277, "RDW", _BLOOD, "%", (10.5, 15.5), 12.7, 20.9, 1, 2760),
    Lab(50960, "Magnesium", _CHEMISTRY, "mg/dL", (1.6, 2.6), 1.6, 2.6, 1, 2470),
    Lab(50893, "Calcium, Total", _CHEMISTRY, "mg/dL", (8.4, 10.3), 7.4, 9.8, 1, 2377),
    Lab(50970, "Phosphate", _CHEMISTRY, "mg/dL", (2.7, 4.5), 1.8, 6.6, 1, 2337),
    Lab(51275, "PTT", _BLOOD, "sec", (25, 36.5), 24.9, 87.3, 1, 1500),
    Lab(51237, "INR(PT)", _BLOOD, None, (0.9, 1.1), 1.0, 2.7, 1, 1481),
    Lab(51274, "PT", _BLOOD, "sec", (9.4, 12.5), 10.8, 29.7, 1, 1481),
    Lab(50934, "H", _CHEMISTRY, "U", (0, 40), 0, 69, 0, 1300),
    Lab(50878, "Asparate Aminotransferase (AST)", _CHEMISTRY, "IU/L", (0, 40), 13, 227, 0, 1165),
    Lab(50885, "Bilirubin, Total", _CHEMISTRY, "mg/dL", (0, 1.5), 0.2, 4.5, 1, 1164),
    Lab(50861, "Alanine Aminotransferase (ALT)", _CHEMISTRY, "IU/L", (0, 40), 7, 222, 0, 1163),
    Lab(52033, "Specimen Type", _GAS, weight=1033, words=("ART.", "VEN.", "MIX.", "ART., CENTRAL")),
    Lab(50804, "Calculated Total CO2", _GAS, "mEq/L", (21, 30), 13, 34, 0, 889),
    Lab(50818, "pCO2", _GAS, "mm Hg", (35, 45), 27, 63, 0, 889),
    Lab(50821, "pO2", _GAS, "mm Hg", (85, 105), 36, 358, 0, 889),
    Lab(50802, "Base Excess", _GAS, "mEq/L", None, -13, 6, 0, 889),
    Lab(50813, "Lactate", _GAS, "mmol/L", (0.5, 2), 0.9, 6.1, 1, 758))
# None is by far the most frequent (see ehr.extracts.laboratory).
COMMENTS: tuple[str, ...] = (
    "___", "NEG.", "NORMAL.", "VERIFIED.", "OCCASIONAL*.", "New reference range as of ___.",
    "HOLD.  DISCARD GREATER THAN 4 HOURS OLD.",
    'VERIFIED, "1 NRBC"/100 WBCS SEEN.', 'REPORTED TO "DR. ___", 11:40 AM, READ BACK.',
    "GREATER THAN 500.  VERIFIED.", 'Using this patient\'s age, gender, and serum creatinine value of 0.8, "eGFR" = 75')
