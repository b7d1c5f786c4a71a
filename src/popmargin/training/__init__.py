"""Training: the loop around an objective, run directories, and whole runs from a configuration."""
