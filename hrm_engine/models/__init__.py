"""Neural networks: layers, the recurrent core, ACT over it, and the cache that generation uses."""
