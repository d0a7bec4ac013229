"""Trainings of benchmarks that are kept, and used again only for the plan that they were made by."""
