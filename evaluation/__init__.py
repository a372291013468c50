"""Judging: what each arm says about the test patients, how good that is, and the page that shows it.

The room's item is the verdict (contract VERDICTS): one arm's risk for one stay. In go patients, a language model's door
(`contracts.generation.Generate`), the cohort folder and the expert's readings; out come verdicts, a results table and
one self-contained HTML report.

- `verdicts` asks a policy arm, `baselines` makes the arms that need no language model.
- `metrics` holds the measures, `statistics` the bootstrap, `tables` the results table, `paper_figures` the paper's.
- `gain` says where the gain comes from: `faithfulness` to the expert, `uncertainty`, `variety` of the answers,
  `citations` of the patient's values.
- `plots` draws, `case_study` picks and marks up patients, `search_tree` draws one patient's search, `radar` several
  measures at once, `descent` what every figure was made from; `report` writes the page,
  and `pages` turns the room's templates into HTML.
- `study_facts` says the study in sentences, for `tripod` (reporting checklists) and `model_card`.
"""
