"""Kill it at any moment, start it again, and count: `python -m tests.kill SEED` is one run."""
