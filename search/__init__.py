"""Stage 1: expert-guided tree search over lines of reasoning, and the harvest of the best ones."""
