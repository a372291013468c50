"""Sources: files or a generator in, one `Source` (stays, records, events, what was dropped) out. Parsing only."""
