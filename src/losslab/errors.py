"""The exceptions that end a command in one sentence, and the sentences for those that are nobody's mistake."""

from __future__ import annotations

import errno

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class UserError(ValueError):
    """Bad input: what is wrong, where, and what to do, in one sentence. The command line exits with code 2."""


class Fault(Exception):
    """A component that breaks a promise: what is wrong with it, in one sentence with the likely cause."""


class Doubt(Fault):
    """A fault that may be meant: `losslab train` notes it and goes on."""


class Held(UserError):
    """Another process holds the run."""


class Diverged(RuntimeError):
    """The objective or a gradient became NaN or infinite; the run ends with status `diverged`."""


class Interrupted(RuntimeError):
    """SIGINT or SIGTERM arrived; the run saved at an optimizer-step boundary and ends with status `interrupted`."""


def error_sentence(error: BaseException) -> str:
    """One sentence that says what happened and what to do, for a failure of the machine; else the exception's own
    words."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        place = f" at {error.filename}" if error.filename else ""
        return f"the disk is full{place} ({error.strerror}): free some space (losslab clean), then run this again"
    if isinstance(error, OSError) and error.errno is not None:
        place = f" at {error.filename}" if error.filename else ""
        return f"a file could not be read or written{place}: {error.strerror}"
    if isinstance(error, MemoryError) or any(sign in words.lower() for sign in _OUT_OF_MEMORY):
        return (
            "out of memory: lower trainer.micro_batch_size (the gradients stay the same), data.val_batch_size or "
            f"model.context ({type(error).__name__})"
        )
    return f"{type(error).__name__}: {words}"
