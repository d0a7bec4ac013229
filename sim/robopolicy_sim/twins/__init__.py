"""A twin: a task under hidden effects, which plays the real robot in sim-to-sim studies."""
