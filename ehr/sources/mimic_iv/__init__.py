"""MIMIC-IV as PhysioNet ships it: layout, tables, items, the sieve that reads its large files, and the source."""
