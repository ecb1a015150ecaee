"""Where schedulers under test come from."""
