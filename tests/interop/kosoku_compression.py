"""Runs kosoku, whose cases for compression (12.*, 13.*) are made to take a string as an answer too.

Version 0.1 may give these cases an answer as `str`, and they hash `bytes`.
"""

import functools

from kosoku import _caseindex, _cli

_caseindex.initialize_shims()

import case12_x_x  # noqa: E402, from a folder that the line above adds to the path


def to_bytes(message, binary):
    """Returns the payload, which kosoku may give as a string: binary by Latin-1, if it came uncompressed."""
    if isinstance(message, str):
        return message.encode("latin-1" if binary else "utf-8")
    return message


def taking_text(on_message):
    """Returns the handler of a case, which gets bytes."""

    @functools.wraps(on_message)
    def handler(self, message, binary):
        return on_message(self, to_bytes(message, binary), binary)

    return handler


for case in case12_x_x.Case12_X_X + case12_x_x.Case13_X_X:
    case.onMessage = taking_text(case.onMessage)

_cli.main()
