"""Who runs what: the server and the submissions are different users, and only one has any power.

The container starts as root with four capabilities. The server gives up all that could ever be
regained (SETPCAP) and keeps three as a user of its own: to become another user for each child
(SETUID, SETGID) and to end what children leave (KILL). A child has none, so that signals,
scheduling, priority, limits, memory and files of the server are out of its reach.

The names of `os` used here are bound at import: the official guard (child.py) takes some away.
Standard library only.
"""

import ctypes
import os

_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAPBSET_DROP = 4, 8, 24
_CAP_KILL, _CAP_SETGID, _CAP_SETUID = 5, 6, 7
_KEPT = 1 << _CAP_KILL | 1 << _CAP_SETGID | 1 << _CAP_SETUID
_CAPABILITY_VERSION = 0x20080522
_setgroups, _setresgid, _setresuid = os.setgroups, os.setresgid, os.setresuid
_libc = ctypes.CDLL(None, use_errno=True)
_prctl, _capset = _libc.prctl, _libc.capset
_header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
_none = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; and their upper halves


def become_server(user: int) -> None:
    """Leave root for `user`, with the three capabilities."""
    capability = 0
    while _prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:  # until there is no such capability
        capability += 1
    _call(_prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    _become(user)
    _call(_capset(_header, (ctypes.c_uint32 * 6)(_KEPT, _KEPT)))
    set_dumpable(0)


def become_submission(user: int) -> None:
    """Leave the server's user for `user`, with no capability, for good."""
    _become(user)
    _call(_capset(_header, _none))
    set_dumpable(1)
    adjust = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(adjust, b"1000")  # out of memory, the kernel takes a submission and not the server
    os.close(adjust)


def set_dumpable(value: int) -> bool:
    """Open or shut this process's memory and descriptors to others of its user."""
    return bool(_prctl(_PR_SET_DUMPABLE, value, 0, 0, 0) == 0)


def _become(user: int) -> None:
    _setgroups([])
    _setresgid(user, user, user)
    _setresuid(user, user, user)


def _call(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "a capability can't be set")
