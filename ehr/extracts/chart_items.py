"""Chart items: what nurses chart, which of it are the 17 features, and how often.

In: nothing. Out: `FEATURES` (groups of items charted together), `OTHERS` (items of no interest, with their share) and
the words that text items hold. Item ids, labels, units and shares are those of the open MIMIC-IV demo 2.2; the words
are typical of the charting system.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ehr.sources.physiology import (
    ACIDITY,
    BREATHS,
    CAPILLARY,
    COMA_EYE,
    COMA_MOTOR,
    COMA_VERBAL,
    DIASTOLIC,
    GLUCOSE,
    HEART,
    HEIGHT,
    MEAN,
    OXYGEN,
    SATURATION,
    SYSTOLIC,
    TEMPERATURE,
    WEIGHT,
)

ONCE = 1_000_000


@dataclass(frozen=True)
class Item:
    """A row of `d_items` and how its values look.

    Attributes:
        unit: `valueuom` of its rows, None where they have none.
        sign: the feature it measures, "" if it is of no interest.
        low, high, digits: range and decimals of numbers of items of no interest.
        words: (text, number or None) that the item can hold, () for items of numbers only.
        weight: share among the items of no interest (rows in the demo).
    """

    itemid: int
    label: str
    abbreviation: str
    category: str
    unit: str | None = None
    sign: str = ""
    low: float = 0.0
    high: float = 0.0
    digits: int = 0
    words: tuple[tuple[str, float | None], ...] = ()
    weight: int = 0


@dataclass(frozen=True)
class Group:
    """Items that are charted together.

    Attributes:
        share: probability that it is charted in an hour in which it is due.
        every: it is due in hours that this number divides, counted from the begin of the stay; ONCE: in the first only.
        only: it needs an arterial line ("line"), a ventilator ("ventilator"), or nothing ("").
    """

    items: tuple[Item, ...]
    share: float
    every: int = 1
    only: str = ""


def _scale(*labels: str, first: int = 1) -> tuple[tuple[str, float | None], ...]:
    return tuple((label, float(number)) for number, label in enumerate(labels, first))


_VITAL, _BREATH, _NERVE, _LAB, _BODY = "Routine Vital Signs", "Respiratory", "Neurological", "Labs", "General"
_REFILL = (("Normal <3 Seconds", None), ("Abnormal >3 Seconds", None))
INTUBATED = "No Response-ETT"
_EYE = Item(220739, "GCS - Eye Opening", "Eye Opening", _NERVE, sign=COMA_EYE,
            words=_scale("None", "To Pain", "To Speech", "Spontaneously"))
_VERBAL = Item(223900, "GCS - Verbal Response", "Verbal Response", _NERVE, sign=COMA_VERBAL, words=(
    *_scale("No Response", "Incomprehensible sounds", "Inappropriate Words", "Confused", "Oriented"), (INTUBATED, 1.0)))
_MOTOR = Item(223901, "GCS - Motor Response", "Motor Response", _NERVE, sign=COMA_MOTOR, words=_scale(
    "No response", "Abnormal extension", "Abnormal Flexion", "Flex-withdraws", "Localizes Pain", "Obeys Commands"))

FEATURES: tuple[Group, ...] = (
    Group((Item(220045, "Heart Rate", "HR", _VITAL, "bpm", HEART),), 0.97),
    Group((Item(220210, "Respiratory Rate", "RR", _BREATH, "insp/min", BREATHS),), 0.97),
    Group((Item(220277, "O2 saturation pulseoxymetry", "SpO2", _BREATH, "%", SATURATION),), 0.95),
    Group((Item(220179, "Non Invasive Blood Pressure systolic", "NBPs", _VITAL, "mmHg", SYSTOLIC),
           Item(220180, "Non Invasive Blood Pressure diastolic", "NBPd", _VITAL, "mmHg", DIASTOLIC),
           Item(220181, "Non Invasive Blood Pressure mean", "NBPm", _VITAL, "mmHg", MEAN)), 0.6),
    Group((Item(220050, "Arterial Blood Pressure systolic", "ABPs", _VITAL, "mmHg", SYSTOLIC),
           Item(220051, "Arterial Blood Pressure diastolic", "ABPd", _VITAL, "mmHg", DIASTOLIC),
           Item(220052, "Arterial Blood Pressure mean", "ABPm", _VITAL, "mmHg", MEAN)), 0.95, only="line"),
    Group((Item(224690, "Respiratory Rate (Total)", "Respiratory Rate (Total)", _BREATH, "insp/min", BREATHS),
           Item(223835, "Inspired O2 Fraction", "FiO2", _BREATH, sign=OXYGEN)), 0.95, 3, "ventilator"),
    Group((Item(223761, "Temperature Fahrenheit", "Temperature F", _VITAL, "°F", TEMPERATURE),), 0.9, 4),
    Group((Item(223762, "Temperature Celsius", "Temperature C", _VITAL, "°C", TEMPERATURE),), 0.03),
    Group((_EYE, _VERBAL, _MOTOR), 0.93, 4),
    Group((Item(223951, "Capillary Refill R", "Capillary Refill R", "Cardiovascular (Pulses)", sign=CAPILLARY,
                words=_REFILL),
           Item(224308, "Capillary Refill L", "Capillary Refill L", "Cardiovascular (Pulses)", sign=CAPILLARY,
                words=_REFILL)), 0.88, 8),
    Group((Item(220621, "Glucose (serum)", "Glucose (serum)", _LAB, "mg/dL", GLUCOSE),), 0.066),
    # The unit of this item is never written.
    Group((Item(225664, "Glucose finger stick (range 70-100)", "Glucose FS (range 70 -100)", _LAB, sign=GLUCOSE),),
          0.117),
    Group((Item(226537, "Glucose (whole blood)", "Glucose (whole blood)", _LAB, "mg/dL", GLUCOSE),), 0.015),
    Group((Item(223830, "PH (Arterial)", "PH (Arterial)", _LAB, "units", ACIDITY),), 0.046),
    Group((Item(226707, "Height", "Height", _BODY, "Inch", HEIGHT),
           Item(226730, "Height (cm)", "Height (cm)", _BODY, "cm", HEIGHT)), 0.55, ONCE),
    Group((Item(226512, "Admission Weight (Kg)", "Admission Weight (Kg)", _BODY, "kg", WEIGHT),
           Item(226531, "Admission Weight (lbs.)", "Admission Weight (lbs.)", _BODY, sign=WEIGHT)), 0.92, ONCE),
    Group((Item(224639, "Daily Weight", "Daily Weight", _BODY, "kg", WEIGHT),), 0.7, 24))


def _number(itemid: int, label: str, category: str, unit: str | None, low: float, high: float, digits: int,
            weight: int) -> Item:
    return Item(itemid, label, label, category, unit, low=low, high=high, digits=digits, weight=weight)


def _words(itemid: int, label: str, category: str, weight: int, *texts: str) -> Item:
    return Item(itemid, label, label, category, words=tuple((text, None) for text in texts), weight=weight)


def _scored(itemid: int, label: str, category: str, weight: int, words: Mapping[str, float]) -> Item:
    return Item(itemid, label, label, category, words=tuple(words.items()), weight=weight)


_ALARM, _SKIN, _CARE, _LUNG, _PAIN = "Alarms", "Skin - Assessment", "Treatments", "Pulmonary", "Pain/Sedation"
_PLAN, _SAFE = "Care Plans", "Restraint/Support Systems"
_SOUNDS = ("Clear", "Diminished", "Crackles", "Rhonchi", "Insp Wheeze", "Exp Wheeze", "Bronchial")
_STRENGTH = {"No movement": 0.0, "Trace movement": 1.0, "Movement, but not against gravity": 2.0,
             "Lifts and falls back": 3.0, "Lifts and holds": 4.0, "Normal strength": 5.0}
_RASS = {"-5 Unarousable, no response to voice or physical stimulation": -5.0,
         "-4 Deep sedation, no response to voice, but any movement to physical stimulation": -4.0,
         "-2 Light sedation, briefly awakens (<10 sec) to voice": -2.0, "-1 Awakens to voice, eyes open >10 sec": -1.0,
         " 0  Alert and calm": 0.0, "+1 Anxious, apprehensive, but not aggressive": 1.0}
OTHERS: tuple[Item, ...] = (
    _words(227969, "Safety Measures", _SAFE, 19330, "Call light within reach", "Bed alarm on", "Side rails up x2, x3",
           'Sign "fall risk" at the door, bed low', "Door/curtain open; visible from station"),
    _words(220048, "Heart Rhythm", _VITAL, 12460, "SR (Sinus Rhythm)", "ST (Sinus Tachycardia) ",
           "SB (Sinus Bradycardia)", "AF (Atrial Fibrillation)", "1st AV (First degree AV Block) ",
           "V Paced, A Sensed"),
    _words(224650, "Ectopy Type 1", _VITAL, 11044, "None", "PVC's", "PAC's", "PVC's, multifocal"),
    _words(227958, "Less Restrictive Measures", _SAFE, 7675, "Reorientation, reassurance", "Repositioning",
           "Diversion"),
    _words(228928, "Impaired Tissue Perfusion NCP - Interventions", _PLAN, 5463, "Monitor VS, labs and urine output",
           "Assess pulses, colour, temperature of skin", 'Notify team if MAP "below goal"'),
    _words(228905, "Altered Respiratory Status NCP - Interventions", _PLAN, 5398, "Suction, as needed", "Elevate HOB"),
    _words(223792, "Pain Management", _PAIN, 5371, "Declined", "PRN medication", "Repositioned", "Ice, heat"),
    _words(224080, "Head of Bed", _CARE, 5124, "30 Degrees", "45 Degrees", "Flat", "As tolerated"),
    _words(224082, "Turn", _CARE, 5045, "Left Side", "Right Side", "Supine", "Self",
           'Refused; "too tired", per patient'),
    _words(224086, "Activity Tolerance", _CARE, 4863, "Good", "Fair", "Poor"),
    _words(224093, "Position", _CARE, 4742, "Supine", "Semi-fowlers", "Left side-lying", "Chair"),
    _words(228988, "Safety Restraints NCP - Interventions", _PLAN, 4658, "Assess need q2h", "Release, skin check"),
    _words(228868, "Assistance", _CARE, 3947, "1 person", "2 person", "Independent"),
    _words(224642, "Temperature Site", _VITAL, 3794, "Oral", "Axillary", "Blood", "Temporal"),
    _words(224073, "Education Topic", _SAFE, 3497, "Medications", "Plan of care", "Falls, safety",
           'Use of "call light"'),
    _words(224087, "Therapeutic Bed", _CARE, 3346, "Atmos Air", "First Step", "Standard"),
    _words(223781, "Pain Present", _PAIN, 3330, "No", "Yes", "Unable to assess"),
    _words(226732, "O2 Delivery Device(s)", _BREATH, 3145, "None", "Nasal cannula", "Endotracheal tube",
           "High flow nasal cannula", "Aerosol-cool"),
    _words(223987, "RLL Lung Sounds", _LUNG, 3104, *_SOUNDS), _words(223989, "LLL Lung Sounds", _LUNG, 3070, *_SOUNDS),
    _words(223986, "RUL Lung Sounds", _LUNG, 3047, *_SOUNDS), _words(223988, "LUL Lung Sounds", _LUNG, 3015, *_SOUNDS),
    _words(224003, "Abdominal Assessment", "GI/GU", 2898, "Soft", "Distended", "Obese", "Tender, guarding"),
    _words(223783, "Pain Location", _PAIN, 2780, "Abdomen", "Back", "Head", "Generalized", "Incision"),
    _words(224001, "Diet Type", "GI/GU", 2570, "NPO", "Regular", "Heart healthy, low sodium", "Diabetic",
           "Tube feeding"),
    _words(223907, "Pupil Size Right", _NERVE, 2546, "2 mm", "3 mm", "4 mm", "5 mm"),
    _words(227121, "Pupil Response Right", _NERVE, 2538, "Brisk", "Sluggish", "Non-reactive"),
    _words(227944, "Side Rails", _SAFE, 3032, "2 rails up", "3 rails up", "4 rails up, per patient"),
    _number(224641, "Alarms On", _ALARM, None, 1, 1, 0, 3020),
    _number(224168, "Parameters Checked", _ALARM, None, 1, 1, 0, 2970),
    _number(228305, "ST Segment Monitoring On", _ALARM, None, 1, 1, 0, 2383),
    _scored(228096, "Richmond-RAS Scale", _PAIN, 2751, _RASS),
    _scored(228299, "Goal Richmond-RAS Scale", _PAIN, 2455, _RASS),
    _scored(228409, "Strength L Arm", _NERVE, 2109, _STRENGTH),
    _scored(228412, "Strength R Arm", _NERVE, 2107, _STRENGTH),
    _scored(228410, "Strength L Leg", _NERVE, 2104, _STRENGTH),
    _scored(228411, "Strength R Leg", _NERVE, 2103, _STRENGTH),
    _scored(224054, "Braden Sensory Perception", _SKIN, 1662, {"No Impairment": 4.0, "Slight Impairment": 3.0,
                                                               "Very Limited": 2.0, "Completely Limited": 1.0}),
    _scored(224055, "Braden Moisture", _SKIN, 1659, {"Rarely Moist": 4.0, "Occasionally Moist": 3.0, "Moist": 2.0}),
    _scored(224056, "Braden Activity", _SKIN, 1659, {"Bedfast": 1.0, "Chairfast": 2.0, "Walks Occasionally": 3.0}),
    _scored(223791, "Pain Level", _PAIN, 2099, {"0-None": 0.0, "3-Mild to Mod": 3.0, "5-Moderate": 5.0,
                                                 "7-Severe": 7.0}),
    _number(220339, "PEEP set", _BREATH, "cmH2O", 5, 14, 0, 1447),
    _number(220074, "Central Venous Pressure", "Hemodynamics", "mmHg", -2, 20, 0, 1386),
    _number(224687, "Minute Volume", _BREATH, "L/min", 5.4, 14.7, 1, 1359),
    _number(224697, "Mean Airway Pressure", _BREATH, "cmH2O", 6, 17, 0, 1342),
    _number(224685, "Tidal Volume (observed)", _BREATH, "mL", 311, 792, 0, 1331),
    _number(224695, "Peak Insp. Pressure", _BREATH, "cmH2O", 10, 31, 0, 1319),
    _number(224689, "Respiratory Rate (spontaneous)", _BREATH, "insp/min", 0, 27, 0, 1314),
    _number(220292, "Minute Volume Alarm - Low", _ALARM, "L/min", 3.5, 10, 1, 1303),
    _number(220293, "Minute Volume Alarm - High", _ALARM, "L/min", 14, 25, 0, 1297),
    _number(223876, "Apnea Interval", _BREATH, "sec", 20, 20, 0, 1288),
    _number(220046, "Heart rate Alarm - High", _ALARM, "bpm", 110, 140, 0, 1217),
    _number(220047, "Heart Rate Alarm - Low", _ALARM, "bpm", 50, 60, 0, 1208),
    _number(223770, "O2 Saturation Pulseoxymetry Alarm - Low", _ALARM, "%", 85, 92, 0, 1212),
    _number(223769, "O2 Saturation Pulseoxymetry Alarm - High", _ALARM, "%", 100, 100, 0, 1208),
    _number(224161, "Resp Alarm - High", _ALARM, "insp/min", 30, 40, 0, 1187),
    _number(224162, "Resp Alarm - Low", _ALARM, "insp/min", 8, 8, 0, 1187),
    _number(226253, "SpO2 Desat Limit", _ALARM, "%", 85, 90, 0, 1176),
    _scored(227341, "History of falling (within 3 mnths)", _SAFE, 1157, {"No": 0.0, "Yes": 25.0}))
