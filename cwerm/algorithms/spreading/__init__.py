"""From the weights of a coreset to those of all samples."""
