"""Choosing among the candidates of any policy, on arrays: scores, their combination, the deadline."""
