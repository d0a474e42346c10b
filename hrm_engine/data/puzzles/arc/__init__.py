"""ARC tasks as rows of tokens: reading them, augmentations and their inverses, the dataset; see ``build.py``."""
