"""How good sets of images are: distances between their features and those of a reference. See docs/evaluate.md."""
