"""Rollouts in Gymnasium environments, honest statistics, videos and the HTML report."""
