"""The image demo: coloured digits and emoji that ship with the package, a small base model, exact rewards."""
