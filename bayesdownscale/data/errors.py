"""The error a user reads when a file is not what was expected."""


class DataError(ValueError):
    """A file, or a value in it, is not what was expected.

    The message is one sentence: what was expected, what came and what to do about it, naming the file and
    the variable. The command line prints it and exits non-zero.
    """
