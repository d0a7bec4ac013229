"""The control loop: deadlines, monitors, faults, log."""
