"""Puzzles as rows of tokens: the dataset format, what boards mean, and what builds datasets of each kind.

``format`` and ``boards`` serve all kinds; ``sudoku``, ``maze`` and ``arc`` make their rows. Nothing here imports torch.
"""
