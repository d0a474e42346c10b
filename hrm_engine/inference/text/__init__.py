"""Text models in use: evaluation, generation, reading."""
