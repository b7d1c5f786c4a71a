"""Where PoP edges of training preferences are read from: one file each."""
