"""Text encoders: instructions to vectors, without torch."""
