"""Specs, horizons, normalisers, geometry, errors and the policy protocol. numpy only."""
