"""A copy of fersweep's home on a drive that outlives the machine, and the way back from it."""
