"""One training, from configuration to result: loop, optimizer and schedule, metrics, checkpoints, history."""
