"""MuJoCo alone on the same model with the same commands: the bound for stepping an environment."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import mujoco
import numpy as np
from mujoco import rollout

from robopolicy.evaluation.environments import make_env


def sway_commands(env: Any, ticks: int, seed: int = 0) -> Any:
    """(ticks, num_joints + 1) smooth commands about home [rad], gripper open [m]."""
    rng = np.random.default_rng(seed)
    start = env.simulation.last_command
    phases = rng.uniform(size=len(start) - 1)
    angle = 2 * np.pi * (np.arange(ticks)[:, None] / 160 + phases)
    commands = np.repeat(start[None], ticks, axis=0)
    commands[:, :-1] += 0.05 * (np.sin(angle) - np.sin(angle[:1]))
    return commands


def step_raw(task: str, ticks: int) -> float:
    """Physics steps per second of a bare ``mj_step`` loop, commands set once a control tick."""
    env = make_env(task)
    env.reset(seed=0)
    simulation = env.simulation
    model, data, substeps = simulation.model, simulation.data, simulation.substeps
    actuators = np.array([model.actuator(n).id for n in (*env.robot.joint_names, env.robot.gripper.name)])
    commands = sway_commands(env, ticks)
    start = time.perf_counter()
    for command in commands:
        data.ctrl[actuators] = command
        mujoco.mj_step(model, data, substeps)
    return ticks * substeps / (time.perf_counter() - start)


def step_env(task: str, ticks: int) -> float:
    """Physics steps per second of ``env.step``: checks, commands, success, rewards and observations."""
    env = make_env(task)
    env.reset(seed=0)
    per_step = env.ticks_per_step
    actions = sway_commands(env, ticks)[per_step - 1 :: per_step].astype(np.float32)
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return len(actions) * per_step * env.simulation.substeps / (time.perf_counter() - start)


def step_rollout(task: str, ticks: int, threads: int) -> float:
    """Physics steps per second of ``mujoco.rollout``: one trajectory a thread, all in C."""
    env = make_env(task)
    env.reset(seed=0)
    simulation = env.simulation
    model, substeps = simulation.model, simulation.substeps
    actuators = np.array([model.actuator(n).id for n in (*env.robot.joint_names, env.robot.gripper.name)])
    control = np.zeros((threads, ticks * substeps, model.nu))
    control[:, :, actuators] = np.repeat(sway_commands(env, ticks), substeps, axis=0)
    full = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)
    state = np.empty(mujoco.mj_stateSize(model, full))
    mujoco.mj_getState(model, simulation.data, state, full)
    datas = [mujoco.MjData(model) for _ in range(threads)]
    with rollout.Rollout(nthread=threads if threads > 1 else 0) as pool:
        start = time.perf_counter()
        pool.rollout([model] * threads, datas, np.tile(state, (threads, 1)), control)
        return threads * ticks * substeps / (time.perf_counter() - start)


def _measure(function: Any, task: str, ticks: int, barrier: Any, results: Any) -> None:
    function(task, 20)
    barrier.wait()
    results.put(function(task, ticks))


def in_processes(function: Any, task: str, ticks: int, processes: int) -> float:
    """The sum over as many processes as run at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=_measure, args=(function, task, ticks, barrier, results))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    total = sum(results.get() for _ in workers)
    for worker in workers:
        worker.join()
    return float(total)
