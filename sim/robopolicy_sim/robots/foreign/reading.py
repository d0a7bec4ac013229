"""A user's model file as MuJoCo reads it: MJCF as it is, URDF with its links, meshes and speeds kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import mujoco

from robopolicy_sim.errors import ModelError
from robopolicy_sim.robots.foreign.options import RobotOptions, read_options
from robopolicy_sim.robots.foreign.urdf import prepared_urdf, speed_limits

_UNNAMED = "MuJoCo Model"  # MuJoCo's name for a model without one


@dataclass(frozen=True)
class ModelFile:
    """A user's model, and what is said about it.

    Args:
        path: of the file.
        spec: as read; every body and joint of it has a name.
        model: the same, compiled.
        velocities: joint -> speed limit [rad/s or m/s]; empty for MJCF, which has no place for one.
        options: of the YAML beside it.
        is_urdf: and not MJCF.
    """

    path: Path
    spec: mujoco.MjSpec
    model: mujoco.MjModel
    velocities: Mapping[str, float]
    options: RobotOptions
    is_urdf: bool

    @property
    def name(self) -> str:
        """The YAML's, else the model's, else the file's."""
        own = "" if self.spec.modelname == _UNNAMED else self.spec.modelname
        return self.options.name or own or self.path.stem

    @property
    def yaml(self) -> str:
        """Name of the YAML that may lie beside the model."""
        return self.path.with_suffix(".yaml").name

    def error(self, message: str) -> ModelError:
        """What is wrong with this file."""
        return ModelError(f"{self.path}: {message}")

    def joint_names(self, joints: tuple[int, ...]) -> list[str]:
        """Names of joints by their ids."""
        return [self.model.joint(j).name for j in joints]


def read_file(path: Path) -> ModelFile:
    """Read an MJCF (.xml) or URDF (.urdf) file and the YAML beside it.

    Raises:
        ModelError: no such file, another kind of file, broken XML, a mesh or texture that is not there, a
            YAML key that is none, or anything else MuJoCo refuses; names the file.
    """
    if not path.is_file():
        raise ModelError(f"no robot model {path}")
    options = read_options(path)
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not XML: {error}") from error
    if root.tag not in ("mujoco", "robot"):
        raise ModelError(
            f"{path} starts with <{root.tag}>; a model starts with <mujoco> (MJCF) or <robot> (URDF)"
        )
    is_urdf = root.tag == "robot"
    try:
        velocities = speed_limits(root) if is_urdf else {}
        spec = _urdf_spec(root, path) if is_urdf else _mjcf_spec(path)
        _name_everything(spec)
        return ModelFile(path, spec, spec.compile(), velocities, options, is_urdf)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


def _urdf_spec(root: ElementTree.Element, path: Path) -> mujoco.MjSpec:
    spec = mujoco.MjSpec.from_string(prepared_urdf(root, path))
    spec.compiler.fusestatic = False  # or links that are fixed to others, a tool among them, vanish
    return spec


def _mjcf_spec(path: Path) -> mujoco.MjSpec:
    spec = mujoco.MjSpec.from_file(str(path))
    wanted = [(spec.meshdir, mesh.file) for mesh in spec.meshes]
    wanted += [(spec.meshdir, field.file) for field in spec.hfields]
    wanted += [(spec.texturedir, name) for t in spec.textures for name in (t.file, *t.cubefiles)]
    folder = path.resolve().parent
    missing = [
        name
        for directory, name in wanted
        if name and not any((folder / d / name).is_file() for d in (directory, "."))
    ]
    if missing:
        raise ModelError(f"{path}: files that are not there: {', '.join(dict.fromkeys(missing))}")
    return spec


def _name_everything(spec: mujoco.MjSpec) -> None:
    """Names for bodies and joints that have none, so that they can be spoken of."""
    for kind, elements in (("body", spec.bodies[1:]), ("joint", spec.joints)):
        taken = {element.name for element in elements}
        for i, element in enumerate(elements):
            if not element.name:
                name = f"{kind}{i}"
                element.name = name if name not in taken else f"unnamed_{name}"
