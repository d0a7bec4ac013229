"""What MuJoCo does not do by itself with a URDF: speed limits, package:// paths, Collada, fixed links."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from robopolicy_sim.errors import ModelError

_MESHES = (".stl", ".obj", ".msh")  # what MuJoCo reads
_COMPILER = {
    "discardvisual": "false",
    "fusestatic": "false",
    "strippath": "false",
    "balanceinertia": "true",
}


def speed_limits(root: ElementTree.Element) -> dict[str, float]:
    """Joint -> its speed limit [rad/s or m/s]; 0 means none, and is left out."""
    limits = {}
    for joint in root.iter("joint"):
        limit = joint.find("limit")
        velocity = float(limit.get("velocity", 0.0)) if limit is not None else 0.0
        if velocity > 0:
            limits[joint.get("name", "")] = velocity
    return limits


def prepared_urdf(root: ElementTree.Element, path: Path) -> str:
    """The URDF with every mesh's full path, without shapes MuJoCo cannot draw, and with links kept apart.

    Raises:
        ModelError: xacro macros are left in it, or a collision mesh is not there or of an unknown format.
    """
    if any("xacro" in element.tag for element in root.iter()):
        raise ModelError(f"{path} still holds xacro macros; expand it first: xacro {path.name} > arm.urdf")
    missing = [
        name
        for link in root.iter("link")
        for shape in [*link.findall("visual"), *link.findall("collision")]
        if (name := _resolve_mesh(link, shape, path.parent))
    ]
    if missing:
        raise ModelError(
            f"{path}: collision meshes that are not there, or not {', '.join(_MESHES)}: "
            f"{', '.join(dict.fromkeys(missing))}. package:// is searched in the folders above the file; "
            f"MuJoCo reads no Collada, so convert it"
        )
    compiler = _child(_child(root, "mujoco"), "compiler")
    for key in ("meshdir", "texturedir"):
        compiler.attrib.pop(key, None)  # the paths are full ones now
    compiler.attrib.update(_COMPILER)
    return ElementTree.tostring(root, encoding="unicode")


def _resolve_mesh(link: ElementTree.Element, shape: ElementTree.Element, folder: Path) -> str:
    """Give a shape's mesh its full path. Returns the name of a collision mesh that cannot be had."""
    mesh = shape.find("geometry/mesh")
    if mesh is None:
        return ""
    name = mesh.get("filename", "")
    found = _find_mesh(name, folder)
    if found is not None and found.suffix.lower() in _MESHES:
        mesh.set("filename", str(found))
    elif shape.tag == "visual":  # most are Collada, which MuJoCo does not read
        link.remove(shape)
    else:
        return name
    return ""


def _find_mesh(name: str, folder: Path) -> Path | None:
    """A mesh beside the URDF, or for package://PACKAGE/FILE in a folder PACKAGE at or above it."""
    folder = folder.resolve()
    if "://" not in name:
        candidates = [folder / name]
    else:
        scheme, rest = name.split("://", 1)
        package, _, inner = rest.partition("/")
        candidates = [Path("/") / rest] if scheme == "file" else []
        for above in (folder, *folder.parents):
            candidates += [above / package / inner, *([above / inner] if above.name == package else [])]
        candidates.append(folder / inner)
    return next((c.resolve() for c in candidates if c.is_file()), None)


def _child(parent: ElementTree.Element, tag: str) -> ElementTree.Element:
    found = parent.find(tag)
    return found if found is not None else ElementTree.SubElement(parent, tag)
