"""What acts on candidates: objectives that critics learn by, and the rewards that they learn from."""
