"""Building blocks in torch: temporal U-Net, vision encoder, noise schedules, the policy module."""
