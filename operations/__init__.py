"""Everything around a study that is no part of it: doctor, public data, pins, privacy, the local stack, arrivals."""
