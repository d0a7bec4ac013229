"""Tables of instructions: one way to say each window's, drawn by a keyed generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import make_normalisers, make_policy_specs, make_specs

from robopolicy.core.errors import ConfigError
from robopolicy.core.language import CLEAN_INSTRUCTION, INSTRUCTION
from robopolicy.core.policy import keyed_rng
from robopolicy.datasets.loader import TensorBatch
from robopolicy.runtime.language.words import WordVectors
from robopolicy.training.distributed import Processes
from robopolicy.training.inputs import Inputs
from robopolicy.training.phrasing import InstructionTable, read_phrasings

ENCODER = WordVectors.built_in()
WAYS = {
    "lift the cube": ("pick up the block", "raise it"),
    "push": ("shove", "slide", "push"),
    "other": ("x",),
}
INDEX = np.array([0, 1, 1, 0, 1])


def test_without_phrasings_the_instruction_itself():
    table = InstructionTable(["lift the cube", "push"], ENCODER)
    expected = ENCODER.encode(["lift the cube", "push"])[INDEX]
    np.testing.assert_array_equal(table.rows(INDEX), expected)
    silent = InstructionTable(["lift the cube", "push"], ENCODER, noise=0.0)
    np.testing.assert_array_equal(silent.rows(INDEX, keyed_rng(0)), expected)
    assert table.dim == ENCODER.dim and table.rows(INDEX).dtype == np.float32


def test_phrasings_are_drawn_by_the_given_generator_alone():
    table = InstructionTable(["lift the cube", "push"], ENCODER, WAYS, noise=0.0)
    assert table.texts == [["lift the cube", "pick up the block", "raise it"], ["push", "shove", "slide"]]
    many = np.repeat([0, 1], 3_000)
    rows = table.rows(many, keyed_rng(3, 7))
    np.testing.assert_array_equal(rows, table.rows(many, keyed_rng(3, 7)))
    assert (rows != table.rows(many, keyed_rng(3, 8))).any()
    for task, ways in enumerate(table.texts):
        known = ENCODER.encode(ways)
        part = rows[many == task]
        counts = [(part == row).all(axis=1).sum() for row in known]
        assert sum(counts) == 3_000 and min(counts) > 900  # each a third, and nothing else
    np.testing.assert_array_equal(table.rows(INDEX), ENCODER.encode(["lift the cube", "push"])[INDEX])


def test_training_adds_noise_to_embeddings():
    table = InstructionTable(["push", ""], ENCODER, noise=0.5)
    index = np.repeat([0, 1], 500)
    rows = table.rows(index, keyed_rng(1))
    assert rows.dtype == np.float32
    added = rows - table.rows(index)
    assert abs(added[:500].std() - 0.5) < 0.01 and abs(added[:500].mean()) < 0.01
    assert not rows[500:].any()
    np.testing.assert_array_equal(rows, table.rows(index, keyed_rng(1)))
    with pytest.raises(ConfigError, match=r"noise .* got -1"):
        InstructionTable(["push"], ENCODER, noise=-1)


def test_a_missing_instruction_is_zeros_and_none_at_all_is_refused():
    table = InstructionTable(["", "push"], ENCODER, WAYS)
    assert not table.rows(np.array([0]), keyed_rng(0)).any()
    with pytest.raises(ConfigError, match="relabel --instruction"):
        InstructionTable(["", " "], ENCODER)


def test_a_misspelt_instruction_in_the_phrasings_is_found():
    with pytest.raises(ConfigError, match=r"no phrasings for \['lift the cub'\]; there are some for"):
        InstructionTable(["lift the cub"], ENCODER, WAYS)


def test_reading_phrasings(tmp_path: Path):
    path = tmp_path / "ways.yaml"
    path.write_text("lift the cube: [pick it up, raise it]\npush: []\n")
    assert read_phrasings(path) == {"lift the cube": ("pick it up", "raise it"), "push": ()}
    for text, told in (
        ("- a\n", "must map instructions"),
        ("", "must map instructions"),
        ("lift: pick\n", "'lift' must map to a list"),
        ("lift: [1]\n", "'lift' must map to a list"),
        ("lift: [' ']\n", "'lift' must map to a list"),
        ("off: [x]\n", "False must map to a list"),  # YAML's own idea of a boolean
        ("{", "cannot read"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=told):
            read_phrasings(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_phrasings(tmp_path / "none.yaml")


def test_the_shipped_phrasings_name_our_tasks():
    folder = Path(__file__).parents[2] / "data" / "phrasings"
    known = read_phrasings(folder / "training.yaml")
    from robopolicy_sim.tasks.lift import LiftEnv
    from robopolicy_sim.tasks.place import PlaceEnv
    from robopolicy_sim.tasks.push import PushEnv
    from robopolicy_sim.tasks.two_goal_reach import TwoGoalReachEnv

    for task in (LiftEnv, PlaceEnv, PushEnv):
        assert task.instruction in known
    assert all(TwoGoalReachEnv(goal=side).instruction in known for side in ("left", "right"))


def test_the_text_without_its_noise_is_given_too():
    table = InstructionTable(["lift the cube", "push"], ENCODER, WAYS)
    noisy, clean = table.noisy_and_clean(INDEX, keyed_rng(1))
    np.testing.assert_array_equal(noisy, table.rows(INDEX, keyed_rng(1)))
    silent = InstructionTable(["lift the cube", "push"], ENCODER, WAYS, noise=0.0)
    np.testing.assert_array_equal(clean, silent.rows(INDEX, keyed_rng(1)))
    assert (noisy != clean).all() and clean.dtype == np.float32


def test_texts_without_words_are_refused():
    with pytest.raises(ConfigError, match=r"finds no words in the instructions \['!!!'\]"):
        InstructionTable(["push"], ENCODER, {"push": ("shove", "!!!")})


def test_training_is_given_both_and_measurements_the_clean_text_twice():
    specs = make_specs()
    table = InstructionTable(["lift the cube", "push"], ENCODER)
    batch = TensorBatch({}, torch.zeros(5, 8, 3), torch.ones(5, 8), torch.from_numpy(INDEX))
    inputs = Inputs(specs, make_normalisers(make_policy_specs()), table, Processes(), seed=3)
    seen, again, measured = (inputs.place(batch, step).observation for step in (7, 7, None))
    clean = torch.from_numpy(table.rows(INDEX))
    assert torch.equal(seen[INSTRUCTION], again[INSTRUCTION]) and (seen[INSTRUCTION] != clean).all()
    for found in (seen[CLEAN_INSTRUCTION], measured[CLEAN_INSTRUCTION], measured[INSTRUCTION]):
        assert torch.equal(found, clean)
