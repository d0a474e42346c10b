"""Bundles: finished run folders that can be loaded, checked, listed, changed and exchanged."""
