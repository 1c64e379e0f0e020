"""What surrounds the stages of a run: checks before, its folder after, and the use of its weights."""
