"""What every switch of a recipe does: one row a technique, in the rooms of the techniques."""
