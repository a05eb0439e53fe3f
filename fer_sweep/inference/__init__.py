"""Use of trained models: the test split, predictions, and exports to other formats."""
