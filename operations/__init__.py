"""Everything around a study that is no part of it: the doctor, public data, pins, privacy, the pages."""
