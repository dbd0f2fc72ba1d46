"""Recipes: the life cycle, one file a way through it, each to be read from top to bottom.

A recipe holds one public function of its own name that takes a resolved `Project` (or an artifact's folder), does the
work through the rooms below, leaves its results on disk and in the store, and returns them as plain values. The
commands of `cli/` and the Python API call these functions and nothing else.
"""
