"""What differs between trainings: data, model, loss, evaluation. Stepping and keeping are written once, elsewhere."""
