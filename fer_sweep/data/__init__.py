"""Faces and their labels: readers for every layout, one memory-mapped cache, splits, synthetic faces, an audit."""
