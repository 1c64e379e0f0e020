"""Images that are not held: the order in which they are read part by part, and batches of them."""
