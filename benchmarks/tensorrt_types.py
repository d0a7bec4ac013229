"""Hold the TensorRT backend against the real packages' types, on a machine without a GPU.

python benchmarks/tensorrt_types.py [--json FILE] [--tensorrt VERSION] [--keep FOLDER]

TensorRT's Python bindings are a small wheel (its libraries take gigabytes). In a throw-away environment this
installs them and cuda-bindings, gives the bindings empty libraries to link to (it needs a C compiler and
binutils), lets mypy's stubgen write their types down, and runs mypy over the backend with those. Names of
CUDA functions are looked up in cuda-bindings, which says no types.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import tempfile
import venv
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).parents[1]
BACKEND = [
    "robopolicy/runtime/backends/tensorrt.py",
    "robopolicy/runtime/backends/tensorrt_engine.py",
    "robopolicy/runtime/backends/gpu.py",
]
_LOOK_UP = """
import importlib, sys
for name in sys.argv[2:]:
    value = importlib.import_module(sys.argv[1])
    for part in name.split("."):
        value = getattr(value, part, None)
    if value is None:
        print(name)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="no difference here")
    parser.add_argument("--tensorrt", default="", help="version of tensorrt-cu12-bindings; newest by default")
    parser.add_argument("--keep", type=Path, help="folder for the environment, instead of a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        python = install(folder, given.tensorrt)
        write_stubs(folder, python)
        errors = check_types(folder, python)
        missing = missing_names(folder, python)
        version = run(
            python, "-c", "import importlib.metadata as m; print(m.version('tensorrt-cu12-bindings'))"
        )
    found = {"tensorrt": version.strip(), "type_errors": errors, "missing_names": missing}
    Console().print(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    raise SystemExit(bool(errors or missing))


def install(folder: Path, version: str) -> Path:
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    pin = f"=={version}" if version else ""
    run(python, "-m", "pip", "install", "-q", "--no-deps", f"tensorrt-cu12-bindings{pin}")
    run(python, "-m", "pip", "install", "-q", "cuda-bindings", "numpy", "mypy")
    return python


def write_stubs(folder: Path, python: Path) -> None:
    """``stubs/tensorrt``: what the bindings say of themselves, imported over empty libraries."""
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    binary = next((site / "tensorrt_bindings").glob("tensorrt*.so"))
    listed = subprocess.run(["readelf", "-d", binary], check=True, capture_output=True, text=True).stdout
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", binary], check=True, capture_output=True, text=True
    )
    wanted = re.findall(
        r" ((?:create|get|init)\w*(?:INTERNAL|Version|Registry|Plugins))$", symbols.stdout, re.M
    )
    source = folder / "empty.c"
    source.write_text("".join(f"void* {name}(void) {{ return 0; }}\n" for name in wanted))
    for name in re.findall(r"\[(lib(?:nvinfer|nvonnx)[^]]*)\]", listed):
        command = ["cc", "-shared", "-fPIC", source, "-o", folder / name, f"-Wl,-soname,{name}"]
        subprocess.run(command, check=True)
    stubs = folder / "stubs"
    code = "from mypy.stubgen import main; main()"
    arguments = ["--inspect-mode", "-q", "-m", "tensorrt_bindings.tensorrt", "-o", str(stubs)]
    run(python, "-c", code, *arguments, environment={"LD_LIBRARY_PATH": str(folder)})
    written = stubs / "tensorrt_bindings" / "tensorrt.pyi"
    text = re.sub(r"(-> |: )bool\b", r"\1builtins.bool", written.read_text())  # it has a type of that name
    written.write_text(without_syntax_errors("import builtins\n" + text))
    (stubs / "tensorrt_bindings" / "__init__.pyi").touch()
    (stubs / "tensorrt").mkdir(exist_ok=True)
    (stubs / "tensorrt" / "__init__.pyi").write_text(
        "from tensorrt_bindings.tensorrt import *\n__version__: str\n"
    )


def without_syntax_errors(text: str) -> str:
    """Without the signatures that the bindings' docstrings get wrong."""
    lines = text.splitlines(keepends=True)
    while True:
        try:
            ast.parse("".join(lines))
            return "".join(lines)
        except SyntaxError as error:
            assert error.lineno is not None
            del lines[error.lineno - 1]


def check_types(folder: Path, python: Path) -> list[str]:
    """mypy's complaints about the backend itself."""
    command = [python, "-m", "mypy", "--config-file=", "--follow-imports=silent", "--ignore-missing-imports"]
    command += ["--python-executable", python, *BACKEND]
    done = subprocess.run(
        command, cwd=ROOT, env={"MYPYPATH": str(folder / "stubs")}, capture_output=True, text=True
    )
    return [line for line in done.stdout.splitlines() if line.startswith("robopolicy") and ": error:" in line]


def missing_names(folder: Path, python: Path) -> list[str]:
    """What the backend takes from either package by a name that the package lacks."""
    text = "".join((ROOT / file).read_text() for file in BACKEND)
    environment = {"LD_LIBRARY_PATH": str(folder)}
    missing = []
    for package, holder in (("cuda.bindings.runtime", "_cuda|cudart"), ("tensorrt_bindings", "module")):
        names = sorted(set(re.findall(rf"\b(?:{holder})\.(\w+(?:\.[A-Za-z]\w+)?)", text)))
        missing += run(python, "-c", _LOOK_UP, package, *names, environment=environment).split()
    return missing


def run(python: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(python), *arguments], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return done.stdout


if __name__ == "__main__":
    main()
