"""What tells a sample's class without its label: a space, its neighbours, and what is learned in it."""
