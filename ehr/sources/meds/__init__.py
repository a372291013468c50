"""MEDS (Medical Event Data Standard): datasets of any hospital, read by a mapping from their codes."""
