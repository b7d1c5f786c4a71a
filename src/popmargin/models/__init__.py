"""Models from folders and the hub: finding and loading them, adapters on them, and saving what was trained."""
