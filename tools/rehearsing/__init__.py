"""A rehearsal: the short recipe, the processes that run it, what was seen, what it comes to."""
