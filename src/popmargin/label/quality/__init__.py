"""How good labels are: annotators, agreement, cycles, time, and the label report."""
