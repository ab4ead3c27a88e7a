"""Grades to estimates: scores, paired differences, sequential tests, drift and planning."""
