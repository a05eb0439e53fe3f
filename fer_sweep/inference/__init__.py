"""Trained models at work: the test split, predictions, and exports in the formats that others read.

A format is a module with ``write`` and ``logits``: ``write(examinee, folder)`` puts a model's files into a folder, and
``logits(folder, pixels)`` is what comes out of those files by the library that reads them elsewhere, so that an export
is checked as it will be used.
"""
