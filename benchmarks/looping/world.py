"""A robot and a camera beside the control loop, each in a process of its own as their drivers are: MuJoCo
steps the arm in real time at 100 Hz, and a picture is rendered 30 times a second.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Any

import mujoco
import numpy as np

from robopolicy.core.plant import Stamped
from robopolicy.core.specs import Specs
from robopolicy.evaluation.environments import make_env
from robopolicy.runtime.clock import monotonic_ns, sleep_until_ns
from robopolicy.runtime.inference.shared_memory import attach, create
from robopolicy.runtime.inference.slot import Slot

CAMERA_RATE = 30.0  # [Hz]
SIZE = (96, 96)


class Layout:
    """Three mailboxes in one segment: command, state, picture."""

    def __init__(self, env: Any) -> None:
        observation = [(n, s.dtype, s.shape) for n, s in env.specs.observation.items() if s.kind == "state"]
        dim, qpos = env.specs.action.dim, env.simulation.model.nq
        self.dtypes = (
            np.dtype([("position", "f8", (dim,))]),
            np.dtype([("time_ns", "i8"), ("measured", "f8", (dim,)), ("qpos", "f8", (qpos,)), *observation]),
            np.dtype([("time_ns", "i8"), ("picture", "u1", (*SIZE, 3))]),
        )
        self.size = sum(Slot.size(dtype) for dtype in self.dtypes)

    def slots(self, buffer: memoryview) -> list[Slot]:
        starts = np.cumsum([0, *(Slot.size(dtype) for dtype in self.dtypes[:-1])])
        return [Slot(buffer, int(start), dtype) for start, dtype in zip(starts, self.dtypes)]


def physics(segment_name: str, env_name: str, ready: Event, stop: Event) -> None:
    """Steps the arm to the newest command, in real time, and says what it senses."""
    env = make_env(env_name)
    env.reset(seed=0)
    layout, plant = Layout(env), env.plant(clock=monotonic_ns)
    segment = attach(segment_name, layout.size)
    commands, states, _ = layout.slots(segment.buf)
    position, state = plant.measured(), np.zeros((), dtype=states.dtype)
    start_ns, tick = monotonic_ns(), 0
    while not stop.is_set():
        for name, seen in plant.observe().items():
            state[name] = seen.value
        state["time_ns"], state["measured"] = monotonic_ns(), plant.measured()
        state["qpos"] = env.simulation.data.qpos
        states.write(state)
        ready.set()
        tick += 1
        sleep_until_ns(start_ns + round(tick * 1e9 / plant.control_rate))
        found = commands.read()
        position = position if found is None else found[1]["position"]
        plant.command(position)
    del commands, states
    segment.close()


def camera(segment_name: str, env_name: str, ready: Event, stop: Event) -> None:
    """Renders the scene as the newest state has it."""
    from robopolicy_sim.rendering import Renderer

    env = make_env(env_name)
    env.reset(seed=0)
    layout, simulation = Layout(env), env.simulation
    segment = attach(segment_name, layout.size)
    _, states, pictures = layout.slots(segment.buf)
    renderer = Renderer(simulation.model, SIZE, fast=True)
    record = np.zeros((), dtype=pictures.dtype)
    start_ns, frame = monotonic_ns(), 0
    while not stop.is_set():
        found = states.read()
        if found is not None:
            record["time_ns"] = monotonic_ns()
            simulation.data.qpos[:] = found[1]["qpos"]
            mujoco.mj_forward(simulation.model, simulation.data)
            record["picture"] = renderer.render(simulation.data, env.cameras[0])
            pictures.write(record)
            ready.set()
        frame += 1
        sleep_until_ns(start_ns + round(frame * 1e9 / CAMERA_RATE))
    renderer.close()
    del states, pictures
    segment.close()


class World:
    """Both processes, and the ``Plant`` that talks to them; a context manager.

    Args:
        specs: of the policy; its observations must be states of the task.
        control_rate: of the loop, not of the physics [Hz].
    """

    def __init__(self, env_name: str, specs: Specs, control_rate: float) -> None:
        env = make_env(env_name)
        env.reset(seed=0)
        layout = Layout(env)
        env.close()
        self.specs, self.control_rate = specs, control_rate
        self.pictures = 0
        self._segment = create(layout.size)
        self._commands, self._states, self._pictures = layout.slots(self._segment.buf)
        self._command = np.zeros((), dtype=self._commands.dtype)
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        self._children = []
        for work in (physics, camera):
            ready = context.Event()
            given = (self._segment.name, env_name, ready, self._stop)
            child = context.Process(target=work, args=given, daemon=True)
            child.start()
            self._children.append(child)
            if not ready.wait(60.0):
                self.close()
                raise RuntimeError(f"{work.__name__} did not start")
        self._state: Any = None
        self._seen = 0
        self._read()

    def observe(self) -> dict[str, Stamped]:
        """The newest state, and the newest picture beside it, which is read as an image policy would."""
        self._read()
        found = self._pictures.read(newer_than=self._seen)
        if found is not None:
            self._seen, self.pictures = found[0], self.pictures + 1
        time_ns = int(self._state["time_ns"])
        return {name: Stamped(self._state[name], time_ns) for name in self.specs.observation}

    def measured(self) -> np.ndarray:
        """(action_dim,) as the driver has it."""
        self._read()
        measured: np.ndarray = self._state["measured"]
        return measured

    def command(self, position: np.ndarray) -> None:
        """Hand (action_dim,) targets to the driver."""
        self._command["position"] = position
        self._commands.write(self._command)

    def close(self) -> None:
        self._stop.set()
        for child in self._children:
            child.join(10.0)
        self._segment.close()
        self._segment.unlink()

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        found = self._states.read()
        if found is not None:  # else it is being written: the one before will do
            self._state = found[1]
