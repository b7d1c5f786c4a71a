"""Sources of PoP edges between training preferences: one file each."""
