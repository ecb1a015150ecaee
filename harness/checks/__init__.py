"""The promises: ways of resuming, and requirements on a saved state."""
