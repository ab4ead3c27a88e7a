"""How a container is laid out, and whose it is."""

import json
import os
import socket

import pytest

from g4eval.bundled import bundled_dir
from g4eval.sandbox.container import Limits, container_options, owner_is_dead, owner_label
from g4eval.sandbox.image import SOURCES, image_tag

pytest.importorskip("docker")


def options(**changes):
    given = {"image": "i", "slot": 2, "core": 1, "runtime": None, "owner": "me"}
    return container_options(Limits(), **{**given, **changes})


def test_a_container_has_no_network_no_capability_and_one_small_folder_to_write() -> None:
    got = options()
    assert got["network_mode"] == "none"
    assert got["read_only"] is True
    assert got["cap_drop"] == ["ALL"]
    assert "no-new-privileges" in got["security_opt"]
    assert got["tmpfs"] == {"/tmp": "size=67108864,nr_inodes=1024,noexec,nosuid,nodev,mode=1777"}
    assert got["pids_limit"] == 64
    assert got["mem_limit"] == got["memswap_limit"] == 4 << 30
    assert got["cpuset_cpus"] == "1"
    assert got["user"] == "20002:20002"
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
