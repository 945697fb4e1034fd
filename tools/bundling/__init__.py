"""How a recipe and the code it reaches become one script."""
