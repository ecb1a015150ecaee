"""The promises: ways of resuming, and what a saved state must be."""
