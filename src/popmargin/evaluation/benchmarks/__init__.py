"""Any model on any set of compared responses: how often it ranks the better ones first."""
