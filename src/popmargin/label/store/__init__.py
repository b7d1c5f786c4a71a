"""The label store: projects, items, assignments and labels in a database."""
