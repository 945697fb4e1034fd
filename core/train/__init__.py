"""How it is trained, as numbers."""
