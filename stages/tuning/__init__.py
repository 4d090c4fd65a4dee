"""Tuning: many trainings that look for good settings, judged on validation images."""
