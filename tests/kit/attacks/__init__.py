"""Files that strangers could make."""
