"""Pictures, pages and tables of sweeps, for people to look at and to take elsewhere."""
