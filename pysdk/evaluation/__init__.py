"""How good sets of images are: distances between their features and a reference's (docs/quality/evaluation.md)."""
