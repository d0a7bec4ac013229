"""A text encoder by name, by folder, or from the files that a policy carries along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robopolicy.core.errors import ConfigError, UnknownNameError
from robopolicy.core.language import TextEncoder
from robopolicy.runtime.language import words
from robopolicy.runtime.language.words import WordVectors

#: Built-in encoders.
KNOWN = ("words",)


def load_text_encoder(name: str) -> TextEncoder:
    """A built-in encoder ("words"), or the sentence encoder in a local folder.

    Raises:
        UnknownNameError: neither; ConfigError: the folder holds no encoder, or a damaged one;
        MissingDependencyError: it needs the package tokenizers.
    """
    if name in KNOWN:
        return WordVectors.built_in()
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UnknownNameError(
            "text encoder", name, [*KNOWN, "or a folder with model.onnx and tokenizer.json"]
        )
    from robopolicy.runtime.language.sentence import SentenceModel

    return SentenceModel.from_folder(folder)


def from_files(files: Mapping[str, bytes], name: str) -> TextEncoder:
    """An encoder from its ``files``; ConfigError when they are none."""
    if set(files) == {words.FILE}:
        return WordVectors(files[words.FILE], name)
    from robopolicy.runtime.language.sentence import MODEL, TOKENIZER, SentenceModel

    if set(files) == {MODEL, TOKENIZER}:
        return SentenceModel(files, name)
    raise ConfigError(
        f"text encoder {name!r} has the files {sorted(files)}; there are {[[words.FILE], [MODEL, TOKENIZER]]}"
    )
