"""A copy of fersweep's home on a drive that outlives the machine, and its restoration."""
