"""Training of critics on stored episodes."""
