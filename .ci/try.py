"""Try napari-cfsr from a fresh clone, in an environment of its own.

    python3 .ci/try.py demo       upscale a sample photo in napari
    python3 .ci/try.py test       run the tests
    python3 .ci/try.py install X  only make the environment and install X

Linux, macOS and Windows. Nothing but Python's standard library is needed.
"""

import argparse
import ast
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
UV_NAMES = {  # of what pip's configuration says
    "cert": "SSL_CERT_FILE",
    "constraint": "UV_CONSTRAINT",
    "extra-index-url": "UV_EXTRA_INDEX_URL",
    "find-links": "UV_FIND_LINKS",
    "index-url": "UV_INDEX_URL",
    "no-index": "UV_NO_INDEX",
}
# Debian and Ubuntu packages that a window needs, each with a library that it provides
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
    windowless = {"--no-window", "--help", "-h"} & set(options.rest)
    window = test or (options.command == "demo" and not windowless)
    linux = sys.platform.startswith("linux")
    if linux:
        if window and not test and not (os.getenv("DISPLAY") or os.getenv("WAYLAND_DISPLAY")):
            stop(
                "there is no display to open a window on. Write files instead:\n"
                "    python3 .ci/try.py demo --no-window --output FOLDER"
            )
        system_packages(missing_packages(window, test))
    python = environment(options.venv)
    index = ["--extra-index-url", CPU_INDEX] if options.cpu and linux else []
    if options.command == "install":
        install(python, *index, *options.rest)
        return 0
    install(python, *index, *(["--editable", f"{ROOT}[test]"] if test else [f"{ROOT}[all]"]))
    if test:
        return run_tests(python, options.rest)
    return call(python.with_stem("napari-cfsr"), "demo", *options.rest)


def run_tests(python: Path, arguments: list[str]) -> int:
    """Run the tests that the arguments name, or all but those at full length; the exit status."""
    # Xvfb provides the display, even under Wayland
    platform = {"QT_QPA_PLATFORM": "xcb"} if sys.platform.startswith("linux") else {}
    jobs = str(min(os.cpu_count() or 1, MOST_JOBS))
    # side by side, neighbours in one process as they share fixtures; then those that read a clock
    parts = ["-n", jobs, "--dist", "worksteal", "-m", "not alone"], ["-m", "alone"]
    statuses = [
        call(python, "-m", "pytest", *part, cwd=ROOT, env=platform)
        for part in ([arguments] if arguments else parts)
    ]
    return next(filter(None, statuses), 0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Make an environment in this clone, install napari-cfsr in it, and run it.",
        epilog="On Linux, PyPI's PyTorch brings gigabytes of CUDA. Without an NVIDIA GPU, --cpu "
        "avoids them; so does PIP_CONSTRAINT, naming a file that pins torch to a CPU build that "
        "pip can find. Packages are installed by uv, with the indexes and constraints of pip's "
        "configuration, and by pip where uv can't.",
    )
    parser.add_argument(
        "--venv", type=Path, default=ROOT / ".venv", help="folder of the environment (.venv)"
    )
    parser.add_argument(
        "--cpu", action="store_true", help=f"on Linux, take PyTorch from {CPU_INDEX}"
    )
    parser.add_argument("command", choices=("demo", "test", "install"))
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, help="arguments of napari-cfsr demo, pytest, pip install"
    )
    options = parser.parse_args()
    if options.rest[:1] == ["--"]:
        del options.rest[0]
    return options


def missing_packages(window: bool, test: bool) -> list[str]:
    """The Debian packages whose libraries or programs are missing, on any system."""
    missing = [package for package, library in PACKAGES.items() if window and not has(library)]
    if test and not shutil.which("Xvfb"):
        missing.append("xvfb")
    if importlib.util.find_spec("ensurepip") is None:  # a package of its own in Debian
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
        stop(f"{folder} is not an environment and not empty: choose another --venv")
    run(sys.executable, "-m", "venv", "--clear", folder)
    run(python, "-m", "pip", "install", "--upgrade", "pip")
    return python


def install(python: Path, *wanted: str) -> None:
    """Install into an environment by uv, and by pip where that fails."""
    if call(python, "-m", "pip", "install", "--quiet", "uv") == 0:
        uv = (python, "-m", "uv", "pip", "install", "--python", python, *wanted)
        print("$", shlex.join(map(str, uv)), flush=True)
        if call(*uv, env=uv_settings(python)) == 0:
            return
    run(python, "-m", "pip", "install", *wanted)


def uv_settings(python: Path) -> dict[str, str]:
    """pip's configuration as environment variables of uv, which does not read it."""
    listed = subprocess.run(
        [python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    settings = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # the best of all indexes, as pip does
    for section in ("global", "install", ":env:"):  # a later one overrides
        for line in listed.stdout.splitlines():
            key, _, value = line.partition("=")
            begin, _, name = key.rpartition(".")
            if begin == section and name in UV_NAMES:
                words = ast.literal_eval(value).split()
                settings[UV_NAMES[name]] = ("," if name == "find-links" else " ").join(words)
    return {name: value for name, value in settings.items() if name not in os.environ}


def run(*command: object, env: dict[str, str] | None = None) -> None:
    """Run a command that has to succeed."""
    print("$", shlex.join(map(str, command)), flush=True)
    status = call(*command, env=env)
    if status:
        stop(f"the last command ended with status {status}", status)


def call(*command: object, env: dict[str, str] | None = None, **options: object) -> int:
    """Exit status of a command that sees no Python packages outside its environment.

    It may write bytecode: the tests start hundreds of processes.
    """
    outside = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
    inside = {k: v for k, v in os.environ.items() if k not in outside} | {"PIP_USER": "0"}
    return subprocess.call([str(part) for part in command], env=inside | (env or {}), **options)


def stop(text: str, status: int = 2) -> NoReturn:
    """Exit and say why."""
    print(f"try.py: {text}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
