"""The name under which the five documents call the command line; the lab itself is the package ``lab``."""
