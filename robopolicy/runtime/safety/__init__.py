"""What stands between a reference and the arm; NOT safety-rated."""
