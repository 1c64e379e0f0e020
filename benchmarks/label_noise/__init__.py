"""Rooms of label_errors.py: the data, the noise, the methods, their figures and the tables."""
