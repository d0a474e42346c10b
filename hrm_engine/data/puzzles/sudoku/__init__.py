"""Sudoku 4x4, 6x6 and 9x9: generate, solve, read the published CSV form, vary by symmetry, build datasets.

``search`` is compiled by numba and loaded only by what searches; ``symmetries`` is numpy alone, for use while training.
"""
