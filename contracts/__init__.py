"""What crosses a border between rooms: frames with their columns, feature catalogues, and the exception tree."""
