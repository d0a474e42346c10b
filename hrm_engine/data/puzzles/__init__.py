"""Puzzles as rows of tokens: the dataset format, the board kinds, and builders of datasets of each kind.

``kinds`` names the board kinds; ``sudoku``, ``maze`` and ``arc`` hold one each. No module imports torch.
"""
