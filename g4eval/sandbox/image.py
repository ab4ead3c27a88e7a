"""Name and build the judge's image.

Its tag is a hash of what goes into it, so that a judge and an image of another version never meet.
`build_image` needs a Docker daemon and a package index; where no registry can be reached it makes
the base from Debian packages with debootstrap.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from g4eval.bundled import bundled_dir
from g4eval.errors import SandboxError

REPOSITORY = "g4eval-python-judge"
_MODULES = (
    "channel.py",
    "child.py",
    "cleaning.py",
    "fair.py",
    "identity.py",
    "meter.py",
    "run.py",
    "server.py",
    "state.py",
    "streams.py",
    "turns.py",
    "values.py",
)
SOURCES = ("Dockerfile", "requirements.txt", *_MODULES)
_DEBIAN = "bookworm"  # its python3 is 3.11
_DEBIAN_BASE = f"g4eval-debian-{_DEBIAN}-python3"
_PLATFORMS = {
    "x86_64": ("manylinux2014_x86_64", "manylinux_2_17_x86_64"),
    "aarch64": ("manylinux2014_aarch64", "manylinux_2_17_aarch64"),
}


def image_tag() -> str:
    """Return the name of the image that this version's judge needs."""
    digest = hashlib.sha256()
    for name in SOURCES:
        content = (_folder() / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return f"{REPOSITORY}:{digest.hexdigest()[:12]}"


def image_exists(client: Any) -> bool:
    """Return whether the daemon has the image that this version's judge needs."""
    from docker.errors import ImageNotFound

    try:
        client.images.get(image_tag())
    except ImageNotFound:
        return False
    return True


def build_image(
    client: Any, *, base: str | None = None, say: Callable[[str], None] = lambda _: None
) -> str:
    """Build the image and return its tag.

    Args:
        client: a docker.DockerClient.
        base: an image whose python3 is 3.11; None: the official Python image named in the
            Dockerfile, or, where it can't be pulled, Debian's packages.
        say: told of each step.

    Raises SandboxError, with what the step that failed said.
    """
    from docker.errors import APIError, BuildError

    machine = str(client.info()["Architecture"])
    base = base or _pulled_base(client, say) or _debian_base(client, say)
    with tempfile.TemporaryDirectory(prefix="g4eval-judge-") as folder:
        context = Path(folder)
        for name in SOURCES:
            shutil.copy(_folder() / name, context / name)
        say("downloading the packages that submissions import")
        _install_packages(context / "site-packages", machine)
        say(f"building {image_tag()} on {base}")
        try:
            client.images.build(
                path=folder, tag=image_tag(), buildargs={"BASE": base}, rm=True, network_mode="none"
            )
        except (APIError, BuildError) as error:
            raise SandboxError(f"the judge's image can't be built: {error}") from error
    return image_tag()


def _folder() -> Path:
    return bundled_dir("sandboxes") / "python_judge"


def _pulled_base(client: Any, say: Callable[[str], None]) -> str | None:
    """Return the base named in the Dockerfile, pulled if need be; None if no registry answers."""
    from docker.errors import APIError, ImageNotFound

    lines = (_folder() / "Dockerfile").read_text().splitlines()
    name = next(line.removeprefix("ARG BASE=") for line in lines if line.startswith("ARG BASE="))
    try:
        client.images.get(name)
    except ImageNotFound:
        say(f"pulling {name}")
        try:
            client.images.pull(name)
        except APIError as error:
            say(f"it can't be pulled: {error.explanation or error}")
            return None
    return name


def _debian_base(client: Any, say: Callable[[str], None]) -> str:
    """Return a base made of Debian's packages, on this machine, as root."""
    from docker.errors import ImageNotFound

    try:
        client.images.get(_DEBIAN_BASE)
    except ImageNotFound:
        pass
    else:
        return _DEBIAN_BASE
    if shutil.which("debootstrap") is None:
        raise SandboxError(
            "no registry answers, and there is no debootstrap to make the base image with",
            hint="apt-get install debootstrap, or name a base that is here",
        )
    say(f"making a base image of Debian {_DEBIAN}'s packages")
    with tempfile.TemporaryDirectory(prefix="g4eval-debian-") as folder:
        root = Path(folder) / "root"
        _run(["debootstrap", "--variant=minbase", "--include=python3", _DEBIAN, str(root)])
        for name in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(root / name, ignore_errors=True)
        archive = Path(folder) / "root.tar"
        _run(["tar", "-C", str(root), "-cf", str(archive), "."])
        client.api.import_image_from_file(str(archive), repository=_DEBIAN_BASE, tag="latest")
    return _DEBIAN_BASE


def _install_packages(target: Path, machine: str) -> None:
    """Unpack the wheels of requirements.txt for the container's Python, checked by their hashes."""
    try:
        platforms = _PLATFORMS[machine]
    except KeyError:
        raise SandboxError(
            f"no wheels are known for {machine!r}", hint=f"known: {', '.join(_PLATFORMS)}"
        ) from None
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(target), "--only-binary=:all:", "--no-deps", "--require-hashes"]
    command += ["--python-version=3.11", "--implementation=cp"]
    command += [f"--platform={name}" for name in platforms]
    _run([*command, "-r", str(_folder() / "requirements.txt")])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own words
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise SandboxError(f"{Path(command[0]).name} failed: {' / '.join(said)}", where=command[-1])
