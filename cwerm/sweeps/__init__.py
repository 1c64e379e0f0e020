"""What a sweep is made of: its file, its space, one trial, and what is left of all."""
