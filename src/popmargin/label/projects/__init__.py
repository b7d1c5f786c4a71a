"""Creating a project: which preferences or pairs of them people are asked about."""
