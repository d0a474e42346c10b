"""Data of every task: documents, tokens, rows and the order in which they are visited."""
