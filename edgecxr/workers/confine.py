"""Rights that a process gives up before it decodes strangers' files.

Afterwards the kernel refuses it networks, other programs and processes, signals to others, and all changes of files; it
can still read. What it may write to is what it holds already: its connection. A filter of system calls (seccomp) does
that in containers and for root, too. Landlock refuses changes of files, programs, TCP and signals a second time,
whatever the call, and also on machines without a filter here. The numbers are those of Linux' asm/unistd_64.h and
asm-generic/unistd.h, the layouts those of linux/filter.h, seccomp.h and landlock.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable

_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine -> its number in linux/audit.h, and its column in the tables of system calls."""

_REFUSED = {
    # networks, and what hands over files
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    # programs and processes
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "unshare": (272, 97),
    "setns": (308, 268), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "process_mrelease": (448, 448), "setpriority": (141, 140), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # changes of files
    "creat": (85, None), "openat2": (437, 437), "truncate": (76, 45), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "link": (86, None),
    "linkat": (265, 37), "unlink": (87, None), "unlinkat": (263, 35), "symlink": (88, None), "symlinkat": (266, 36),
    "mknod": (133, None), "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None),
    "utimes": (235, None), "utimensat": (280, 88), "futimesat": (261, None), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "flock": (73, 32), "open_by_handle_at": (304, 265),
    # memory and queues that other processes share, and ways round this filter
    "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "mq_unlink": (241, 181), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "io_uring_setup": (425, 425), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
}  # fmt: skip

_OPEN, _OPENAT = (2, None), (257, 56)
_CLONE, _CLONE3 = (56, 220), (435, 435)
_KILL, _TGKILL, _PRLIMIT = (62, 129), (234, 131), (302, 261)
_IOCTL = (16, 29)

_NEWEST = 451
"""The last system call that the tables above were made with; later ones are refused as unknown."""

_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_THREAD = 0x10000  # CLONE_THREAD
# Typing on a terminal (TIOCSTI, TIOCLINUX), and flags of files (FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR).
_CONTROLS = (0x5412, 0x541C, 0x40086602, 0x401C5820)

_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_AT_NUMBER, _AT_MACHINE, _AT_ARGUMENTS = 0, 4, 16

_READ_FILES = 0b1100  # LANDLOCK_ACCESS_FS_READ_FILE and READ_DIR
_BOTH = 0b11  # rights of TCP: bind and connect; scopes: abstract sockets and signals
_READ_EVERYTHING = 1 << 2  # CAP_DAC_READ_SEARCH: root may read films that belong to others


_CREATE_RULESET, _RESTRICT_SELF = 444, 446
"""System calls of Landlock, which have these numbers on every machine."""

in_force: tuple[str, ...] = ()
"""What confines this process."""


def confine() -> tuple[str, ...]:
    """Give up all rights but to read, compute and answer.

    It must have one thread. Nothing is raised where the kernel cannot do this.

    Returns:
        What is in force: "seccomp", "Landlock", both or neither.
    """
    global in_force
    no_new_privileges = 38  # of linux/prctl.h
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None, use_errno=True)
        _drop_capabilities(library)
        if not library.prctl(no_new_privileges, *map(ctypes.c_ulong, (1, 0, 0, 0))):
            ways = {"Landlock": _restrict, "seccomp": _set_filter}
            in_force = tuple(name for name, way in ways.items() if way(library))
    return in_force


def _set_filter(library: ctypes.CDLL) -> bool:
    """Set the filter of system calls; return whether it is in force."""
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    program = _filter(*machine, os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))
    whole = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer)))
    set_seccomp, by_filter = 22, 2  # of linux/prctl.h and linux/seccomp.h
    at = ctypes.c_void_p(ctypes.addressof(whole))
    return not library.prctl(set_seccomp, ctypes.c_ulong(by_filter), at, ctypes.c_ulong(0), ctypes.c_ulong(0))


def landlock_version() -> int:
    """Return the version of the kernel's Landlock, 0 without one."""
    asks_for_version = 1
    try:
        return max(0, _called(ctypes.CDLL(None, use_errno=True), _CREATE_RULESET, 0, 0, asks_for_version))
    except (OSError, AttributeError):
        return 0


def _restrict(library: ctypes.CDLL) -> bool:
    """Restrict this process by Landlock; return whether that is in force."""
    version = landlock_version()
    if not version:
        return False
    # All that this version knows of files but to read them and to list folders, without a rule that allows any.
    known_rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    rights = (1 << known_rights) - 1 & ~_READ_FILES
    fields = [rights, _BOTH if version >= 4 else 0, _BOTH if version >= 6 else 0]  # files, TCP, sockets and signals
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = ctypes.create_string_buffer(struct.pack("@3Q", *fields), 24)
    rules = _called(library, _CREATE_RULESET, ctypes.addressof(attributes), size, 0)
    if rules < 0:
        return False
    try:
        return not _called(library, _RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _called(library: ctypes.CDLL, number: int, *arguments: int) -> int:
    library.syscall.restype = ctypes.c_long
    return int(library.syscall(*map(ctypes.c_long, (number, *arguments))))


def still_possible() -> list[str]:
    """Return what is possible beyond reading and computing, after trying it."""
    names = []
    for name, attempt in _ATTEMPTS.items():
        try:
            attempt()
            names.append(name)
        except OSError:
            continue
    return names


def _start_a_process() -> None:
    if not os.fork():
        os._exit(0)


_ATTEMPTS: dict[str, Callable[[], object]] = {
    "network": lambda: socket.socket().close(),
    "files": lambda: os.close(os.open(os.devnull, os.O_WRONLY)),
    "processes": _start_a_process,
    "signals": lambda: os.kill(os.getppid(), 0),
}


def _drop_capabilities(library: ctypes.CDLL) -> None:
    """Keep none of root's capabilities but to read; other users have none."""
    version, this_process = 0x20080522, 0
    header = ctypes.create_string_buffer(struct.pack("Ii", version, this_process))
    data = ctypes.create_string_buffer(24)
    if not library.capget(header, data):
        effective, permitted, _, *_ = struct.unpack("6I", data.raw)
        kept = (effective & _READ_EVERYTHING, permitted & _READ_EVERYTHING)
        library.capset(header, ctypes.create_string_buffer(struct.pack("6I", *kept, 0, 0, 0, 0)))


def _filter(machine: int, column: int, pid: int) -> bytes:
    """Return the filter as the kernel runs it: steps of 8 bytes."""
    refuse, unknown = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    def end(result: int) -> bytes:
        return step(_RETURN, result)

    def when(call: tuple[int | None, int | None], then: bytes) -> bytes:
        number = call[column]
        return b"" if number is None else step(_EQUAL, number, 0, len(then) // 8) + then

    def argument(index: int, code: int, values: Iterable[int], yes: int, no: int) -> bytes:
        """Compare an argument's lower half with values, and end."""
        tests = list(values)
        jumps = b"".join(step(code, value, len(tests) - at) for at, value in enumerate(tests))
        return step(_LOAD, _AT_ARGUMENTS + 8 * index) + jumps + end(no) + end(yes)

    return b"".join((
        step(_LOAD, _AT_MACHINE),
        step(_EQUAL, machine, 1),
        end(_KILL_PROCESS),  # calls of a 32-bit program have other numbers
        step(_LOAD, _AT_NUMBER),
        step(_ABOVE, _NEWEST, 0, 1),
        end(unknown),
        when(_CLONE3, end(unknown)),  # its flags are out of sight; the C library then takes `clone`
        when(_CLONE, argument(0, _ANY_BIT, [_THREAD], _ALLOW, refuse)),
        when(_OPEN, argument(1, _ANY_BIT, [_CHANGES], refuse, _ALLOW)),
        when(_OPENAT, argument(2, _ANY_BIT, [_CHANGES], refuse, _ALLOW)),
        when(_KILL, argument(0, _EQUAL, [pid], _ALLOW, refuse)),
        when(_TGKILL, argument(0, _EQUAL, [pid], _ALLOW, refuse)),
        when(_PRLIMIT, argument(0, _EQUAL, [0, pid], _ALLOW, refuse)),
        when(_IOCTL, argument(1, _EQUAL, _CONTROLS, refuse, _ALLOW)),
        *(when(call, end(refuse)) for call in _REFUSED.values()),
        end(_ALLOW),
    ))  # fmt: skip
