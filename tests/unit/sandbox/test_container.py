"""How a container is laid out, and whose it is."""

import json
import os
import socket
from types import SimpleNamespace

import pytest

from g4eval.bundled import bundled_dir
from g4eval.sandbox.container import (
    LABEL,
    OWNER_LABEL,
    PLACES,
    Limits,
    container_options,
    owner_is_dead,
    owner_label,
)
from g4eval.sandbox.docker_pool import DockerSandbox, _is_passing
from g4eval.sandbox.image import SOURCES, image_tag

pytest.importorskip("docker")


def options(**changes):
    given = {"image": "i", "place": 2, "core": 1, "runtime": None, "owner": "me"}
    return container_options(Limits(), **{**given, **changes})


def test_a_container_has_no_network_four_capabilities_and_one_small_folder_to_write() -> None:
    got = options()
    assert got["network_mode"] == "none"
    assert got["read_only"] is True
    assert got["cap_drop"] == ["ALL"]
    assert got["cap_add"] == [
        "SETUID",
        "SETGID",
        "KILL",
        "SETPCAP",
    ]  # the server's; submissions have none
    assert "no-new-privileges" in got["security_opt"]
    assert got["tmpfs"] == {
        "/tmp": "size=67108864,nr_inodes=1024,noexec,nosuid,nodev,mode=1777",
        "/dev/mqueue": "ro,size=4k,nr_inodes=1,mode=555",
    }
    assert got["pids_limit"] == 64
    assert got["mem_limit"] == got["memswap_limit"] == 4 << 30
    assert got["cpuset_cpus"] == "1"
    assert got["user"] == "0:0"  # which the server leaves before it does anything
    assert got["command"] == ["20004"]
    assert got["ipc_mode"] == "none"
    assert got["init"] is False
    assert "volumes" not in got
    assert "environment" not in got


@pytest.mark.parametrize(
    "name",
    [
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "userfaultfd",
        "io_uring_setup",
        "bpf",
        "keyctl",
        "add_key",
        "mount",
        "unshare",
        "setns",
        "kcmp",
        "pidfd_getfd",
        "shmget",
        "msgget",
        "semget",
        "mq_open",
        "perf_event_open",
        "chroot",
        "mknod",
        "settimeofday",
        "clock_settime",
        "reboot",
        "init_module",
        "quotactl",
        "open_by_handle_at",
    ],
)
def test_the_seccomp_profile_allows_no_call_that_reaches_out(name: str) -> None:
    profile = json.loads((bundled_dir("sandboxes") / "python_judge" / "seccomp.json").read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = [
        rule
        for rule in profile["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and name in rule["names"]
    ]
    assert allowed == []


def test_sockets_are_local_and_processes_get_no_new_namespace() -> None:
    profile = json.loads((bundled_dir("sandboxes") / "python_judge" / "seccomp.json").read_text())
    rules = {name: rule for rule in profile["syscalls"] for name in rule["names"]}
    assert rules["socket"]["args"] == [
        {"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}
    ] or rules["socket"]["args"] == [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]
    assert rules["clone"]["args"][0]["value"] == 0x7E020000
    assert rules["clone3"]["errnoRet"] == 38


def test_no_two_places_share_a_user_and_all_fit_a_user_namespace() -> None:
    first, last = options(place=0)["command"], options(place=PLACES - 1)["command"]
    assert options(place=1)["command"] == [str(int(first[0]) + 2)]  # the server, and submissions
    assert int(last[0]) + 1 < 1 << 16


def test_every_file_of_the_server_goes_into_the_image() -> None:
    folder = bundled_dir("sandboxes") / "python_judge"
    modules = {path.name for path in folder.glob("*.py")} - {"selftest.py"}
    assert modules == {name for name in SOURCES if name.endswith(".py")}
    copied = (folder / "Dockerfile").read_text().replace("\\\n", " ")
    (line,) = [line for line in copied.splitlines() if line.startswith("COPY channel.py")]
    assert set(line.split()[1:-1]) == modules


def test_this_process_owns_its_containers() -> None:
    assert not owner_is_dead(owner_label())


def test_a_dead_owner_is_told_from_a_later_process_with_its_number() -> None:
    host, pid = socket.gethostname(), os.getpid()
    assert owner_is_dead(f"{host}:{pid}:1")  # the same number, another start time
    assert owner_is_dead(f"{host}:4194305:5")  # no such process
    assert not owner_is_dead(f"elsewhere:{pid}:1")  # not ours to judge
    assert not owner_is_dead("")


def test_the_image_is_named_by_what_goes_into_it(tmp_path, monkeypatch) -> None:
    before = image_tag()
    folder = tmp_path / "python_judge"
    folder.mkdir()
    for name in SOURCES:
        (folder / name).write_bytes((bundled_dir("sandboxes") / "python_judge" / name).read_bytes())
    monkeypatch.setattr("g4eval.sandbox.image.bundled_dir", lambda _: tmp_path)
    assert image_tag() == before
    (folder / "child.py").write_text("changed")
    assert image_tag() != before


def test_containers_that_are_going_just_now_stop_no_start() -> None:
    from docker.errors import ImageNotFound, NotFound

    gone, dead = f"{socket.gethostname()}:4194305:5", []

    def remove(container_id: str, *, force: bool) -> None:
        dead.append(container_id)
        if container_id == "going":
            raise NotFound("no such container")

    rows: list[dict[str, object]] = [
        {"Id": "going", "Labels": {LABEL: "1", OWNER_LABEL: gone}},
        {"Id": "mine", "Labels": {OWNER_LABEL: owner_label()}},
        {"Id": "nobody's", "Labels": None},
        {"Id": "left", "Labels": {OWNER_LABEL: gone}},
    ]

    def listed(*, all: bool, filters: dict[str, str]) -> list[dict[str, object]]:  # noqa: A002  Docker's
        assert all
        assert filters == {"label": LABEL}
        return rows

    sandbox = DockerSandbox()
    sandbox._client = SimpleNamespace(
        api=SimpleNamespace(containers=listed, remove_container=remove)
    )  # no container can be looked at
    sandbox._sweep()
    assert dead == ["going", "left"]
    assert _is_passing(NotFound("no such container"))
    assert not _is_passing(ImageNotFound("no such image"))
