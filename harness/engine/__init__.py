"""From a subject and a check to a verdict."""
