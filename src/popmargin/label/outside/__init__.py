"""Labels that people gave elsewhere: read from other tools' exports, matched to items, and stored with their names."""
