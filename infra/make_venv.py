"""Make a virtual environment with pip in it, also where Debian keeps ensurepip in a package of its own.

Usage: python3.11 infra/make_venv.py FOLDER. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import venv
from pathlib import Path


def main(folder: Path) -> None:
    """Create ``folder`` unless it is there and whole; exits with one clear line where that cannot be done."""
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"Parley needs Python 3.11, not {sys.version.split()[0]}: make PYTHON=/path/to/python3.11")
    python = folder / "bin" / "python"
    if python.exists() and subprocess.run([python, "-m", "pip", "-V"], capture_output=True).returncode == 0:
        return
    print(f"Making {folder} (once; a few minutes on the first run)", flush=True)
    if importlib.util.find_spec("ensurepip") is not None:
        venv.create(folder, with_pip=True, clear=True)
    else:  # Debian without python3-venv; a pip outside can fill the environment
        venv.create(folder, with_pip=False, clear=True)
        outside = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "pip"]
        if subprocess.run(outside).returncode != 0:
            sys.exit(
                "There is no pip for the virtual environment: install python3-venv, or pip 22.3 or newer."
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
