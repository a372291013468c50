"""Stage 1: expert-guided tree search over lines of reasoning (or random sampling), and the harvest of the best."""
