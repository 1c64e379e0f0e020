"""The gradient of the meta loss through a step of the classifier."""
