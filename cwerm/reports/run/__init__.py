"""The page on one run: its figures, its samples in pictures, and plain training beside it."""
