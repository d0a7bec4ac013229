"""System identification: fit gains, inertia, friction and delay of a robot's model to logged motion."""
