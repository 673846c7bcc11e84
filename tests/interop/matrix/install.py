"""What the peers need, installed into a folder of its own at run time. What cannot be had is `Unavailable`."""

import functools
import os
import shutil
import sys
import tomllib
from pathlib import Path

from processes import Unavailable, run

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent.parent
PINNED = tomllib.loads((HERE / "versions.toml").read_text())

# Seconds that an installation, and a build, may take.
INSTALL = 300
BUILD = 1800


def tool(name):
    """Returns the path of a program that the machine has to have."""
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"{name} is not installed")
    return path


class Cache:
    """The folder, with one below it for each installation, which is made once."""

    def __init__(self, path, cargo):
        self.path = path.resolve()
        self.cargo = cargo

    def folder(self, *names):
        path = self.path.joinpath(*names)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _installed(self, folder, what, install):
        """Calls `install` unless the folder has exactly that already."""
        done = folder / ".installed"
        if not done.exists() or done.read_text() != what:
            done.unlink(missing_ok=True)
            install()
            done.write_text(what)
        return folder

    @functools.cache
    def npm(self, name, *packages):
        """Returns a folder with packages of npm, and the programs of `clients` and `servers`."""
        folder = self.folder("npm", name)
        specs = [str(one) if isinstance(one, Path) else f"{one}@{PINNED['npm'][one]}" for one in packages]

        def install():
            (folder / "package.json").write_text('{"private": true, "type": "module"}')
            options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
            run([tool("npm"), "install", *options, *specs], INSTALL, cwd=folder)

        self._installed(folder, " ".join(specs), install)
        for program in [*HERE.glob("clients/*.mjs"), *HERE.glob("servers/*.mjs")]:
            # Node.js looks for packages from where the file is.
            shutil.copy(program, folder)
        return folder

    @functools.cache
    def python(self, name, *packages):
        """Returns the Python of an environment with packages of PyPI."""
        folder = self.folder("python", name)
        specs = [f"{one}=={PINNED['pypi'][one]}" for one in packages]

        def install():
            run([sys.executable, "-m", "venv", "--clear", folder], INSTALL)
            run([folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *specs], INSTALL)

        return self._installed(folder, " ".join(specs), install) / "bin/python"

    @functools.cache
    def debian(self, name, *packages):
        """Returns a folder with Debian's packages unpacked, for which nobody has to be root."""
        folder = self.folder("debian", name)

        def install():
            for package in packages:
                run([tool("apt-get"), "download", package], INSTALL, cwd=folder)
            for package in folder.glob("*.deb"):
                run([tool("dpkg-deb"), "--extract", package, folder], INSTALL)
                package.unlink()

        return self._installed(folder, " ".join(packages), install)

    def build(self, *arguments, target=None, cwd=PROJECT):
        """Builds with cargo."""
        environment = os.environ | ({"CARGO_TARGET_DIR": str(target)} if target else {})
        run([self.cargo, "build", "--locked", *arguments], BUILD, cwd=cwd, env=environment)

    @functools.cache
    def rust(self, peer, feature):
        """Returns a program of the package `rust`."""
        target = self.folder("rust")
        self.build("--features", feature, "--bin", peer, target=target, cwd=HERE / "rust")
        return target / "debug" / peer
