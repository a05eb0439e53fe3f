"""The names of what a trial reports: what a sweep file may optimise."""

EPOCH_METRICS = (
    "epoch",
    "train_loss",
    "train_acc",
    "val_loss",
    "val_acc",
    "train_val_gap",
    "best_val_acc",
    "lr",
    "images_per_second",
)
"""What a trial reports each epoch; accuracies and the gap are fractions in [0, 1], epochs count from 1."""

RESULT_METRICS = (
    "best_val_acc",
    "best_epoch",
    "train_acc",
    "train_val_gap",
    "val_acc_clean",
    "macro_f1",
    "epochs",
    "parameters",
    "seconds",
    "images_per_second",
    "peak_memory_mb",
)
"""The numbers of a trial's result, ``records.TrialResult``."""

BETTER_HIGH = ("train_acc", "val_acc", "best_val_acc", "val_acc_clean", "macro_f1", "images_per_second")
BETTER_LOW = ("train_loss", "val_loss", "train_val_gap", "seconds", "peak_memory_mb", "parameters")
"""Metrics that a sweep with the opposite goal probably means otherwise."""
