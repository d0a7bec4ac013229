"""Any sentence encoder in ONNX form, from a local folder: tokens in, mean-pooled hidden states out.

Such folders hold ``tokenizer.json`` and ``model.onnx`` (or ``onnx/model.onnx``), as exported sentence
transformers do. Pooling: mean over the tokens that are no padding (Reimers and Gurevych 2019, section 3).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robopolicy.core.errors import ConfigError, MissingDependencyError, RobopolicyError
from robopolicy.runtime.backends.onnx_file import read_signature
from robopolicy.runtime.backends.onnxruntime import OnnxRuntimeBackend
from robopolicy.runtime.language.files import digest_of

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
#: Longer instructions are cut [tokens].
MAX_TOKENS = 128
Float32 = NDArray[np.float32]


class SentenceModel:
    """A ``core.language.TextEncoder`` around an ONNX model; needs the extra "language".

    Args:
        files: ``model.onnx`` with its weights inside, and ``tokenizer.json``.
        name: what it is called.
    Raises:
        ConfigError: the files are no such encoder; MissingDependencyError: no ``tokenizers`` package.
    """

    def __init__(self, files: Mapping[str, bytes], name: str) -> None:
        self.name, self.files = name, dict(files)
        self.digest = digest_of(self.files)
        try:
            signature = read_signature(MODEL, files[MODEL])
            self._backend: Any = OnnxRuntimeBackend(files[MODEL], provider="cpu")
        except RobopolicyError as error:
            raise ConfigError(f"text encoder {name!r}: {error}") from error
        self._inputs = set(signature.inputs)
        if not {IDS, MASK} <= self._inputs <= {IDS, MASK, TYPES}:
            raise ConfigError(
                f"text encoder {name!r}: {MODEL} takes {sorted(self._inputs)}; {IDS!r} and {MASK!r}, and "
                f"perhaps {TYPES!r}, are what it may take"
            )
        self._output = next(iter(signature.outputs))
        self._tokenizer = _tokenizer(files[TOKENIZER], name)
        self.dim = int(self._pooled(["a"]).shape[-1])

    @classmethod
    def from_folder(cls, folder: Path) -> SentenceModel:
        """ConfigError says what the folder lacks."""
        model = next((p for p in (folder / MODEL, folder / "onnx" / MODEL) if p.is_file()), None)
        if model is None or not (folder / TOKENIZER).is_file():
            raise ConfigError(f"no text encoder in {folder}: it must hold {MODEL} and {TOKENIZER}")
        return cls({MODEL: model.read_bytes(), TOKENIZER: (folder / TOKENIZER).read_bytes()}, folder.name)

    def encode(self, texts: Sequence[str]) -> Float32:
        """See ``core.language.TextEncoder.encode``."""
        found = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):  # one at a time: padding would change the last bits
            if text.strip():
                pooled = self._pooled([text])[0]
                found[row] = pooled * (np.sqrt(self.dim) / max(float(np.linalg.norm(pooled)), 1e-12))
        return found

    def _pooled(self, texts: list[str]) -> Float32:
        encodings = self._tokenizer.encode_batch(texts)
        ids = np.array([e.ids for e in encodings], np.int64)
        mask = np.array([e.attention_mask for e in encodings], np.int64)
        feeds = {IDS: ids, MASK: mask, TYPES: np.zeros_like(ids)}
        try:
            hidden = self._backend.run({name: feeds[name] for name in self._inputs})[self._output]
        except Exception as error:  # the engine's own exceptions share no narrower base
            raise ConfigError(f"text encoder {self.name!r} cannot run: {error}") from error
        if hidden.ndim == 2:  # the model pools by itself
            return np.asarray(hidden, np.float32)
        if hidden.ndim != 3:
            raise ConfigError(f"text encoder {self.name!r} gives {hidden.shape}, not (texts, tokens, dim)")
        weight = mask[..., None].astype(np.float32)
        pooled: Float32 = (hidden * weight).sum(1) / np.maximum(weight.sum(1), 1e-9)
        return pooled.astype(np.float32)


def _tokenizer(data: bytes, name: str) -> Any:
    try:
        tokenizers = importlib.import_module("tokenizers")  # only where such an encoder is used
    except ImportError as error:
        raise MissingDependencyError(
            f"text encoder {name!r} needs the package tokenizers: pip install 'robopolicy[language]'"
        ) from error
    try:
        found = tokenizers.Tokenizer.from_str(data.decode())
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigError(f"text encoder {name!r}: {TOKENIZER} is damaged: {error}") from error
    found.no_padding()
    found.enable_truncation(MAX_TOKENS)
    return found
