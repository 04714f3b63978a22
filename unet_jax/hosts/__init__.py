"""Several processes of one run: how they start, and how they agree."""
