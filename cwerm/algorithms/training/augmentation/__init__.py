"""How images are changed at random, so that a network does not learn them by heart."""
