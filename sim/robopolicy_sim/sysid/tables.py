"""An identification as tables to print."""

from __future__ import annotations

from rich.table import Table

from robopolicy_sim.sysid.identify import Identification


def estimates(result: Identification) -> Table:
    """One row per parameter: before, after, interval."""
    table = Table("parameter", "of", "unit", "model", "identified", "95 %", "", title="parameters")
    for estimate in result.estimates:
        table.add_row(
            estimate.kind,
            estimate.joint,
            estimate.unit,
            f"{estimate.nominal:.4g}",
            f"{estimate.value:.4g}",
            f"{estimate.low:.4g} to {estimate.high:.4g}",
            "open" if estimate.open else "",
        )
    return table


def errors(result: Identification) -> Table:
    """Open-loop error on held-out logs, before and after."""
    count, seconds = len(result.held_out), sum(log.seconds for log in result.held_out)
    title = f"open-loop error (RMS) on {count} held-out logs, {seconds:.0f} s"
    table = Table("", "before", "after", "unit", title=title)
    for name in result.after.joints:
        unit = "mm" if name == list(result.after.joints)[-1] and _has_gripper(result) else "mrad"
        before, after = result.before.joints[name], result.after.joints[name]
        table.add_row(name, f"{1e3 * before:.2f}", f"{1e3 * after:.2f}", unit)
    table.add_row("all joints", f"{1e3 * result.before.arm:.2f}", f"{1e3 * result.after.arm:.2f}", "mrad")
    table.add_row("tool", f"{result.before.tool_mm:.2f}", f"{result.after.tool_mm:.2f}", "mm")
    return table


def _has_gripper(result: Identification) -> bool:
    return any(log.gripper for log in result.held_out)
