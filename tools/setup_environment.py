"""Create .venv from requirements.lock, or return at once when it is there already.

Called by make with whatever Python from 3.11 on the user has: standard library only. A stamp inside .venv says which
lock it was made from. Whatever stops the installation leaves no stamp, and the next call starts afresh from what pip
and uv have downloaded by then.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
OLDEST_TORCH = (2, 6)
# Prints the machine's torch version, or fails where there is none that works.
TORCH_VERSION = "import torch; torch.zeros(1); print(torch.__version__)"
REPORT = """import torch, transformers
import transformers.models.llama.modeling_llama, transformers.models.qwen2.modeling_qwen2, snakemake.cli
import datasets, matplotlib.pyplot, pandas, pyarrow, rich.console, scipy.special, seaborn
print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU only'}")"""


def main() -> None:
    torch_index = os.environ.get("TORCH_INDEX", "")
    if is_current(VENV, lock_digest(LOCK), torch_index):
        return
    refuse_crippled_python()
    refuse_foreign_environment(VENV)
    with LOCK.open() as lock:
        wait_for_another_setup(lock.fileno())
        if not is_current(VENV, lock_digest(LOCK), torch_index):
            build(torch_index)


def is_current(folder: Path, digest: str, torch_index: str) -> bool:
    """True if `folder` was completed from this lock, and from this index where one is named."""
    stamp = folder / "made-from.json"
    if not stamp.exists() or not (folder / "bin" / "python").exists():
        return False
    made_from = json.loads(stamp.read_text())
    return made_from["lock"] == digest and torch_index in ("", made_from["torch_index"])


def lock_digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def refuse_crippled_python() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(
            f"{sys.executable} comes without ensurepip, so it cannot make an environment. "
            "On Debian and Ubuntu install the package python3-venv; elsewhere name another: make PYTHON=python3.12 ..."
        )


def refuse_foreign_environment(folder: Path) -> None:
    """Only what this script has made is ever deleted."""
    if folder.exists() and not (folder / "unfinished").exists() and not (folder / "made-from.json").exists():
        sys.exit(f"{folder} was not made by this suite. Move it away or delete it, then call make again.")


def wait_for_another_setup(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Another make is setting up the environment; waiting for it.", flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def build(torch_index: str) -> None:
    start = time.monotonic()
    step(1, f"creating {VENV} with Python {sys.version.split()[0]}")
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    (VENV / "unfinished").touch()
    venv.create(VENV, with_pip=True, system_site_packages=True)

    torch = machine_torch()
    if torch:
        step(2, f"PyTorch {torch} of this machine is used")
        # Into .venv even where the machine has a uv too.
        pip("install", "--constraint", str(LOCK), "--ignore-installed", "--no-deps", "uv")
    else:
        hide_machine_packages()
        step(2, "installing PyTorch")
        if not torch_index and not shutil.which("nvidia-smi"):
            print(
                "No GPU seen. If this brings several GB of CUDA, stop it and call: make environment TORCH_INDEX=<url>"
            )
        index = ["--extra-index-url", torch_index] if torch_index else []
        # With its dependencies: which CUDA packages a build needs is for the build to say, not for the lock.
        pip("install", "--constraint", str(LOCK), *index, "uv", "torch")

    others = VENV / "requirements.txt"
    others.write_text("".join(f"{line}\n" for line in LOCK.read_text().splitlines() if not line.startswith("torch==")))
    step(3, "installing everything else")
    install_others(others)

    step(4, "first import")
    # Compiles what the suite imports, once: where the shell forbids writing bytecode, every process would do it again.
    writing = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([VENV / "bin" / "python", "-c", REPORT], env=writing, check=True)
    stamp = {"lock": lock_digest(LOCK), "torch_index": torch_index}
    (VENV / "made-from.json").write_text(json.dumps(stamp))
    (VENV / "unfinished").unlink()
    print(f"Environment ready after {time.monotonic() - start:.0f} s.", flush=True)


def machine_torch() -> str:
    """The version of the torch that the base interpreter brings, '' if there is none, or none new enough."""
    answer = subprocess.run([VENV / "bin" / "python", "-c", TORCH_VERSION], capture_output=True, text=True)
    version = answer.stdout.strip() if answer.returncode == 0 else "0.0"
    return version if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_TORCH else ""


def hide_machine_packages() -> None:
    config = VENV / "pyvenv.cfg"
    config.write_text(config.read_text().replace("system-site-packages = true", "system-site-packages = false"))


def install_others(requirements: Path) -> None:
    """The lock is complete, so nothing needs resolving. uv takes seconds where pip, the fallback, takes minutes."""
    index = configured_index()
    uv = [str(VENV / "bin" / "uv"), "pip", "install", "--python", str(VENV / "bin" / "python"), "--no-deps"]
    uv += ["--default-index", index] if index else []
    if subprocess.run([*uv, "--requirement", str(requirements)]).returncode:
        print("uv did not manage; pip takes over, which lasts about two minutes.", flush=True)
        pip("install", "--no-deps", "--requirement", str(requirements))


def configured_index() -> str:
    """The package index pip is configured to use instead of the public one, or ''. uv does not read pip's settings."""
    answer = subprocess.run([*PIP, "config", "get", "global.index-url"], capture_output=True, text=True)
    return os.environ.get("PIP_INDEX_URL") or answer.stdout.strip()


def pip(command: str, *arguments: str) -> None:
    # Not compiled here: the first import compiles what the suite uses, and most of the rest is never imported.
    subprocess.run([*PIP, command, "--no-input", "--no-compile", *arguments], check=True)


def step(number: int, what: str) -> None:
    print(f"[{number}/4] {what}", flush=True)


PIP = (str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")

if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on from what has been downloaded.")
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"The installation stopped: {error}. Call it again after a network fault. requirements.lock was made with "
            "Python 3.11; if a package has no build for yours, name another: make PYTHON=python3.11 ..."
        )
