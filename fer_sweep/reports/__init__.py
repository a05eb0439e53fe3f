"""Pictures and pages of sweeps, for people to look at. Empty so far: `fersweep best` prints a table."""
