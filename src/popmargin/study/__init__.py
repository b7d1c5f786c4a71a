"""Studies: several objectives and seeds on the same split, edges and reference, and what they show."""
