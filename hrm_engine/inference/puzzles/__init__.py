"""Solvers in use: evaluation, solving, watching them think."""
