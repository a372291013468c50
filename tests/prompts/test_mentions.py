"""Mentions: which features a text names, where, and what it does not name."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.features import STATIC, catalogue
from prompts.grammar import parse, render_final, render_step
from prompts.mentions import Mention, MentionFinder

MIMIC, TJH = MentionFinder(catalogue("mimic_iv")), MentionFinder(catalogue("tjh"))
NT_PROBNP = "Amino-terminal brain natriuretic peptide precursor(NT-proBNP)"
FINDERS = {"mimic_iv": MIMIC, "tjh": TJH}


def found(finder, text):
    return [(mention.feature, text[mention.start:mention.end]) for mention in finder.find(text)]


def test_a_sentence_gives_its_features_with_their_places():
    text = "A low mean arterial pressure (61) and SpO₂ of 85% at age 85; HR rises."
    assert found(MIMIC, text) == [("Mean blood pressure", "mean arterial pressure"), ("Oxygen saturation", "SpO₂"),
                                  (STATIC, "age"), ("Heart Rate", "HR")]
    assert MIMIC.find("x HR y") == [Mention("Heart Rate", 2, 4)]


@pytest.mark.parametrize(("text", "feature", "words"), [
    ("red blood cell distribution width SD", "RBC distribution width SD", None),
    ("red blood cell distribution width", "Red blood cell distribution width", None),
    ("red blood cell count", "Red blood cell count", None),
    ("mean corpuscular hemoglobin concentration", "mean corpuscular hemoglobin concentration", None),
    ("mean corpuscular hemoglobin", "mean corpuscular hemoglobin", None),
    ("high-sensitivity C-reactive protein", "High sensitivity C-reactive protein", None),
    ("IL-6", "Interleukin 6", None), ("interleukin-6", "Interleukin 6", None), ("il6", "Interleukin 6", None),
    ("IL-10", "Interleukin 10", None), ("sIL-2R", "Interleukin 2 receptor", None), ("IL-1β", "Interleukin 1β", None),
    ("IL-1 beta", "Interleukin 1β", None), ("TNF-alpha", "Tumor necrosis factorα", None),
    ("TNFα", "Tumor necrosis factorα", None), ("γ-GT", "γ-glutamyl transpeptidase", None),
    ("gamma-glutamyl transferase", "γ-glutamyl transpeptidase", None), ("Ca²⁺", "calcium", None),
    ("K+", "Serum potassium", None),
    ("HCO₃⁻", "HCO3-", "HCO₃"), ("neutrophils (%)", "neutrophils(%)", None), ("(%)lymphocyte", "(%)lymphocyte", None),
    ("lymphocyte %", "(%)lymphocyte", None), ("lymphocytes", "(%)lymphocyte", None),
    ("lymphocyte count", "lymphocyte count", None),
    ("basophil count(#)", "basophil count(#)", None), ("NT-proBNP", NT_PROBNP, None), ("haemoglobin", "hemoglobin",
    None),
    ("hyperkalaemia", "Serum potassium", None), ("D dimers", "D-D dimer", None), ("platelets", "Platelet count", None),
    ("blood\nurea nitrogen", "Urea", None), ("**LDH**", "Lactate dehydrogenase", "LDH"),
    ("LDH升高", "Lactate dehydrogenase", "LDH"),
    (NT_PROBNP, NT_PROBNP, None),
    ("aPTT", "Activation of partial thromboplastin time", None), ("INR", "International standard ratio", None),
])
def test_the_longest_name_wins_in_any_spelling(text, feature, words):
    assert found(TJH, f"The {text} 5.1 rose.") == [(feature, words or text)]


@pytest.mark.parametrize("text", [
    "pt walks", "after 72 hr", "ca. 5 days", "maps to", "to map out", "a-fib", "blood pressure",
    "arterial pressure falls",
    "hypotension", "the alto range", "page 85", "unisex", "ageing", "hello LDHx", "xLDH", "IL-6R", "vitamin K",
    "lactate", "urine",
    "IL-60", "nap", ""])
def test_other_words_name_nothing(text):
    assert found(MIMIC, text) == found(TJH, text) == []


def test_words_that_name_nothing_together_are_used_up():
    assert found(MIMIC, "The pulse pressure narrows, the pulse rises.") == [("Heart Rate", "pulse")]
    assert found(TJH, "Hepatitis B antibodies, then HBsAg.") == [("HBsAg", "HBsAg")]
    assert MIMIC.canonical_names(["Pulse pressure", "HR"]) == ("pulse pressure", "Heart Rate")


def test_words_of_different_sentences_are_not_joined():
    assert found(TJH, "It is low. Platelet. Count the days: serum, sodium") == [
        ("Platelet count", "Platelet"), ("serum sodium", "sodium")]


def test_a_percent_sign_after_a_value_belongs_to_the_value():
    assert found(TJH, "neutrophils 92% lymphocyte count 0.4") == [
        ("neutrophils(%)", "neutrophils"), ("lymphocyte count", "lymphocyte count")]


def test_a_number_after_a_name_is_not_cut_at_its_point():
    assert found(TJH, "interleukin 6.5") == []
    assert found(TJH, "interleukin 6 6.5") == [("Interleukin 6", "interleukin 6")]


@pytest.mark.parametrize("text", ["age 85", "67-year-old", "a male patient", "Age & Sex", "age/sex", "sex",
"Gender: female",
                                  "years old", "age and sex"])
def test_the_static_data_is_one_feature(text):
    for finder in FINDERS.values():
        assert {feature for feature, _ in found(finder, text)} == {STATIC}
        assert finder.canonical(text) == STATIC


@pytest.mark.parametrize("name", FINDERS)
def test_features_of_the_list_of_an_answer_are_found_inside_the_whole_answer(name):
    tokens = catalogue(name).tokens
    text = render_step(1, "What stands out?", "Nothing.") + render_final("Risk?", tokens, 0.5)
    assert tuple(feature for feature, _ in found(FINDERS[name], text)) == tokens
    assert FINDERS[name].canonical_names(parse(text).features) == tokens


@pytest.mark.parametrize("name", FINDERS)
def test_the_tags_of_the_grammar_name_nothing(name):
    text = render_step(1, "-", "-") + render_final("-", ["x"], 0.5) + "<think> </think> <answer> </answer>"
    assert FINDERS[name].find(text) == []


@pytest.mark.parametrize(("entry", "feature"), [
    ("Lactate dehydrogenaze", "Lactate dehydrogenase"),
    ("elevated lactat dehydrogenase level", "Lactate dehydrogenase"),
    ("lymphocite", "(%)lymphocyte"), ("creatinin", "creatinine"), ("Serum chlorid", "Serum chloride"),
    ("hemoglobine", "hemoglobin"),
    ("k", "Serum potassium"), ("pt", "Prothrombin time"), ("LACTATE DEHYDROGENASE (LDH)", "Lactate dehydrogenase"),
    ("rising D-dimer of 21 ug/mL", "D-D dimer"), ("low serum albumin levels", "albumin"),
    ("hepatitis B surface antigen", "HBsAg"), ("hepatits B surface antigen", "HBsAg"), ("hepatitis B", None),
    ("hepatitis B virus antibody", None), ("anti-hepatitis B", None), ("hepatitis B vaccination", None),
    ("hepatitis C", "HCV antibody quantification"), ("hepatitis A", None), ("hepatitis E antibody", None),
    ("hepatitis B antibody", None), ("Hepatitis B surface antibodies", None), ("hepatitis antibody", None),
    ("creatine", "creatinine"), ("Creactive protein", "High sensitivity C-reactive protein"),
    ("K/mmol", None), ("Interleukin 9", None), ("Interleukin 66", None), ("ldj", None), ("bum", None),
    ("lactate", None),
    ("moon phase", None), ("", None), ("<>", None), ("BUN/creatinine ratio", None), ("level", None),
    ("x" * 100_000, None)])
def test_a_list_entry_is_read_exactly_then_without_qualifiers_then_by_likeness(entry, feature):
    assert TJH.canonical(entry) == feature


@pytest.mark.parametrize(("entry", "feature"), [
    ("low mean arterial pressure", "Mean blood pressure"), ("Diastolic blod presure", "Diastolic blood pressure"),
    ("Systolic blood pressur", "Systolic blood pressure"), ("siastolic blood pressure", None),
    ("Respitory rate", "Respiratory rate"),
    ("Temprature", "Temperature"), ("GCS", "Glasgow coma scale total"),
    ("Glasgow coma scale", "Glasgow coma scale total"),
    ("GCS (motor)", "Glasgow coma scale motor response"), ("PH", "pH"), ("ph", "pH"), ("pJ", None),
    ("map", "Mean blood pressure"),
    ("blood pressure", None), ("Pressure", None), ("pulse pressure", None), ("a narrow Pulse Pressure of 20", None),
    ("pulse pressure and heart rate", "Heart Rate"), ("pulse", "Heart Rate"),
    ("oxygen saturation 85%", "Oxygen saturation"),
    ("FiO₂", "Fraction inspired oxygen")])
def test_list_entries_of_mimic_iv_are_read(entry, feature):
    assert MIMIC.canonical(entry) == feature


def test_lists_become_distinct_names_and_junk_stays():
    entries = ["HR", "heart rate", "Pulse", "Moon  Phase", "moon phase", "MAP and pH", "Age", "sex"]
    assert MIMIC.canonical_names(entries) == ("Heart Rate", "moon phase", "Mean blood pressure", "pH", STATIC)
    assert MIMIC.canonical_names([]) == ()


def test_canonical_names_map_to_themselves():
    for name, finder in FINDERS.items():
        tokens = catalogue(name).tokens
        assert finder.canonical_names(tokens) == tokens


shreds = st.lists(st.sampled_from(["LDH", "HR ", " pH", "age", " ", "-", "(", ")", "%", "blood", " pressure", "count",
"IL", "6", ".5",
                                   "₂", "\n", "neutrophils", "(%)", "升", "\udc80", "\x00", "K", "+", "mean ",
                                   "platelet"]),
                  max_size=25).map("".join)


@given(st.text(st.characters(exclude_categories=()), max_size=200) | shreds)
def test_mentions_lie_in_the_text_in_order_never_overlap_and_stand_alone(text):
    for finder in FINDERS.values():
        edge = 0
        for mention in finder.find(text):
            assert edge <= mention.start < mention.end <= len(text)
            edge = mention.end
            assert finder.canonical(text[mention.start:mention.end]) == mention.feature
        finder.canonical(text)


@given(st.data())
def test_any_alias_is_found_in_any_surroundings(data):
    name = data.draw(st.sampled_from(sorted(FINDERS)))
    feature = data.draw(st.sampled_from(catalogue(name).features))
    alias = data.draw(st.sampled_from([alias for alias in (feature.name, *feature.aliases) if len(alias) > 1]))
    before, after = (data.draw(st.sampled_from(["", ". ", "zzz ", "the rising, ", "\n", "<b>"])),
                     data.draw(st.sampled_from(["", ". ", " zzz", ": 5", ", low", "\n"])))
    mentions = FINDERS[name].find(before + alias + after)
    assert [mention.feature for mention in mentions] == [feature.name]
    assert alias.startswith((before + alias + after)[mentions[0].start:mentions[0].end])


TRAJECTORY = ("The mean arterial pressure falls from 88 to 61 while HR rises (tachycardia), SpO₂ 85% on FiO2 60. "
              "LDH 1867 U/L, neutrophils (%) 92, (%)lymphocyte 3.1; D-D dimer > 21, IL-6 5000. " * 25)[:4000]


@pytest.mark.parametrize("name", FINDERS)
def test_a_trajectory_is_searched_in_milliseconds(name):
    def seconds():
        began = time.process_time()
        FINDERS[name].find(TRAJECTORY)
        return time.process_time() - began
    assert min(seconds() for _ in range(15)) < 0.025


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["mean ", "red blood cell distribution width ", "%", "a", "(", "+", "β", "K+ "])
def test_a_long_hostile_text_takes_time_in_proportion_to_find(unit):
    text = unit * (30_000 // len(unit))
    began = time.process_time()
    TJH.find(text)
    TJH.canonical(text)
    assert time.process_time() - began < 5.0
