"""Trained models in the formats that others read: one file a format, each with ``write`` and ``logits``.

``write(examinee, folder)`` puts a model's files into a folder, and ``logits(folder, pixels)`` is what comes out of
those files again, by the library that reads them elsewhere: so that an export is checked as it will be used.
"""
