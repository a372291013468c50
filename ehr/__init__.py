"""From hospital files to visits: the item of this room is one calendar day of one stay.

In: the files of a source (`ehr.sources`) and a `configs.schema.Cohort`. Out: a `Cohort` with stays, visits (as
measured), filled visits (last observation carried forward), statistics of the training split and a count of all that
was dropped.
"""
