"""A manifest's measurements as a table."""

from __future__ import annotations

from rich.table import Table

from robopolicy.runtime.bundle.manifest import STEP, Manifest


def describe(manifest: Manifest) -> Table:
    """What was exported and what the export measured: differences from torch, latencies, success."""
    form = "one step, repeated" if STEP in manifest.features else "one graph"
    precision = " and ".join(sorted({graph.precision for graph in manifest.graphs.values()}))
    title = f"{manifest.policy}: {manifest.denoising_steps} denoising steps as {form}, {precision}"
    table = Table("measured", "value", title=title)
    for name, value in sorted(manifest.measured.items()):
        table.add_row(name, f"{value:.2e}" if name.startswith("parity") else f"{value:.4g}")
    return table
