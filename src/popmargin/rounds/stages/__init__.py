"""What stages do: each a function on objects, and its form as a stage of a plan."""
