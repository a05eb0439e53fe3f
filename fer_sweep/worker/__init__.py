"""One process per trial: how it starts, what it may use, and how it ends."""
