"""Extracts: files as PhysioNet gives them out, written from generated patients; for tests and benchmarks of a reader.

In: a layout, a number of ICU stays, a seed. Out: a folder with `hosp/`, `icu/`, `SHA256SUMS.txt`, the truth that was
planted and the dirt that was strewn. No real patient stands behind any of it.
"""
