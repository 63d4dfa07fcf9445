"""Try napari-cfsr from a fresh clone, in an environment of its own.

    python3 .ci/try.py demo    upscale a sample photo in napari
    python3 .ci/try.py test    run the tests

Linux, macOS and Windows. Nothing but Python's standard library is needed.
"""

import argparse
import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
MOST_JOBS = 4  # tests side by side: each loads networks and uses all cores itself
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# Debian and Ubuntu packages that a window needs, and the library that shows each is there
PACKAGES = {
    "libdbus-1-3": "libdbus-1.so.3",
    "libegl1": "libEGL.so.1",
    "libfontconfig1": "libfontconfig.so.1",
    "libgl1": "libGL.so.1",
    "libglib2.0-0": "libglib-2.0.so.0",
    "libglx-mesa0": "libGLX_mesa.so.0",  # brings libgl1-mesa-dri, the software renderer
    "libopengl0": "libOpenGL.so.0",
    "libxcb-cursor0": "libxcb-cursor.so.0",
    "libxcb-icccm4": "libxcb-icccm.so.4",
    "libxcb-image0": "libxcb-image.so.0",
    "libxcb-keysyms1": "libxcb-keysyms.so.1",
    "libxcb-randr0": "libxcb-randr.so.0",
    "libxcb-render-util0": "libxcb-render-util.so.0",
    "libxcb-shape0": "libxcb-shape.so.0",
    "libxcb-xinerama0": "libxcb-xinerama.so.0",
    "libxkbcommon-x11-0": "libxkbcommon-x11.so.0",
}

if sys.version_info < (3, 11):  # noqa: UP036 - here, before older ones stumble over what follows
    sys.exit("try.py: Python 3.11 or newer is needed, this is " + sys.version.split()[0])


def main() -> int:
    """Set up the environment and run the command in it; its exit status."""
    options = arguments()
    test = options.command == "test"
    window = test or not {"--no-window", "--help", "-h"} & set(options.rest)
    linux = sys.platform.startswith("linux")
    if linux:
        if window and not test and not (os.getenv("DISPLAY") or os.getenv("WAYLAND_DISPLAY")):
            stop(
                "there is no display to open a window on. Write files instead:\n"
                "    python3 .ci/try.py demo --no-window --output FOLDER"
            )
        system_packages(missing_packages(window, test))
    python = environment(options.venv)
    requirement = ["--editable", f"{ROOT}[test]"] if test else [f"{ROOT}[all]"]
    index = ["--extra-index-url", CPU_INDEX] if options.cpu and linux else []
    run(python, "-m", "pip", "install", *index, *requirement)
    if test:
        # Xvfb stands in for the display, also where Wayland is there
        platform = {"QT_QPA_PLATFORM": "xcb"} if linux else {}
        pytest = (python, "-m", "pytest")
        if options.rest:
            return call(*pytest, *options.rest, cwd=ROOT, env=platform)
        # two thirds of the time; what takes the time of something has no others beside
        jobs = min(os.cpu_count() or 1, MOST_JOBS)
        parts = ["-n", str(jobs), "-m", "not alone"], ["-m", "alone"]
        statuses = [call(*pytest, *part, cwd=ROOT, env=platform) for part in parts]
        return next(filter(None, statuses), 0)
    return call(python.with_stem("napari-cfsr"), "demo", *options.rest)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Make an environment in this clone, install napari-cfsr in it, and run it.",
        epilog="On Linux, PyPI's PyTorch brings gigabytes of CUDA. Without an NVIDIA GPU, --cpu "
        "avoids them; so does PIP_CONSTRAINT, naming a file that pins torch to a CPU build that "
        "pip can find. pip's other variables are honoured too.",
    )
    parser.add_argument(
        "--venv", type=Path, default=ROOT / ".venv", help="folder of the environment (.venv)"
    )
    parser.add_argument(
        "--cpu", action="store_true", help=f"on Linux, take PyTorch from {CPU_INDEX}"
    )
    parser.add_argument("command", choices=("demo", "test"))
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, help="arguments for 'napari-cfsr demo' or pytest"
    )
    options = parser.parse_args()
    if options.rest[:1] == ["--"]:
        del options.rest[0]
    return options


def missing_packages(window: bool, test: bool) -> list[str]:
    """Debian packages of which something is missing, whatever system this is."""
    missing = [package for package, library in PACKAGES.items() if window and not has(library)]
    if test and not shutil.which("Xvfb"):
        missing.append("xvfb")
    if importlib.util.find_spec("ensurepip") is None:  # Debian keeps it apart
        missing.append(f"python{sys.version_info.major}.{sys.version_info.minor}-venv")
    return missing


def has(library: str) -> bool:
    """Whether a shared library can be loaded."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def system_packages(packages: list[str]) -> None:
    """Install packages if that is allowed here, else say how."""
    if not packages:
        return
    if not shutil.which("apt-get"):
        print("try.py: missing, by the names they have in Debian:", *packages, file=sys.stderr)
        return
    if os.geteuid() != 0:
        stop("packages are missing. Install them, then try again:\n"
             f"    sudo apt-get install --yes {' '.join(packages)}")  # fmt: skip
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", env=quiet)
    run("apt-get", "install", "--yes", "--no-install-recommends", *packages, env=quiet)


def environment(folder: Path) -> Path:
    """The Python of the environment in a folder; the environment is made unless it works."""
    python = folder.resolve() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    check = "import pip, sys; sys.exit(sys.version_info < (3, 11))"
    if python.exists() and call(python, "-c", check, stderr=subprocess.DEVNULL) == 0:
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        stop(f"{folder} holds something else than an environment: choose another --venv")
    run(sys.executable, "-m", "venv", "--clear", folder)
    run(python, "-m", "pip", "install", "--upgrade", "pip")
    return python


def run(*command: object, env: dict[str, str] | None = None) -> None:
    """Run a command that has to succeed."""
    print("$", shlex.join(map(str, command)), flush=True)
    status = call(*command, env=env)
    if status:
        stop(f"the last command ended with status {status}", status)


def call(*command: object, env: dict[str, str] | None = None, **options: object) -> int:
    """Exit status of a command that sees no Python packages from outside its environment."""
    outside = ("PYTHONPATH", "PYTHONHOME")
    inside = {k: v for k, v in os.environ.items() if k not in outside} | {"PIP_USER": "0"}
    return subprocess.call([str(part) for part in command], env=inside | (env or {}), **options)


def stop(text: str, status: int = 2) -> NoReturn:
    """End here, and say why."""
    print(f"try.py: {text}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
