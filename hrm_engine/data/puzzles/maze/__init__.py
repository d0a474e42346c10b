"""Mazes: generated with one shortest path each, or read from the published CSV form; see ``build.py``."""
