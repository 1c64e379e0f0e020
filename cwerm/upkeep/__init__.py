"""The state of a storage and of a machine."""
