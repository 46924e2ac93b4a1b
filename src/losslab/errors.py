"""The exceptions that end a command in one sentence."""


class UserError(ValueError):
    """Bad input: what is wrong, where, and what to do, in one sentence. The command line exits with code 2."""


class Diverged(RuntimeError):
    """The objective or a gradient became NaN or infinite; the run ends with status `diverged`."""


class Interrupted(RuntimeError):
    """SIGINT or SIGTERM arrived; the run saved at an optimizer-step boundary and ends with status `interrupted`."""
