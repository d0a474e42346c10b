"""Side-by-side measurements: ours, the library's form where there is one, and the machine's own limit, in one run."""
