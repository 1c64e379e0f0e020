"""Losses, schedules, augmentation and evaluation."""
