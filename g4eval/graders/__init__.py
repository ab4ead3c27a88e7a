"""Graders: sample and completion in, grade out."""
