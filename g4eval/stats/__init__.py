"""Statistics: outcomes in, estimates with their errors out."""
