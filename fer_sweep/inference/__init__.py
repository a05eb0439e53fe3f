"""Use of trained models: the test split, predictions, and exports to other formats.

A format is a module with two functions: ``write(examinee, folder)`` writes a model's files into a folder, and
``logits(folder, pixels)`` evaluates these files with the library that others use, to check the export.
"""
