"""Best of n: reward models that learned from different labels choose among the same samples; a gold reward judges."""
