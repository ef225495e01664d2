"""What is done to an image: randomness, recipes, plans, and the pixels that they make."""
