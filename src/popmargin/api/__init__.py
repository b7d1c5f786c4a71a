"""The front door for notebooks and scripts; its names are those of `popmargin`."""
