"""Keeps the exporters' chatter off the screen; real errors still travel as exceptions."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

from compressor.console import settings


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence prints, warnings and loggers inside the block, except with `--debug`."""
    if settings.debug:
        yield
        return
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
