"""Everything that speaks to W&B: its server, its runs, its account."""
