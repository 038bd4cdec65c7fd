"""For all tests: no test waits for a clock, so none fails because the machine is busy."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest
from hypothesis import settings

settings.register_profile("parley", deadline=None)
settings.load_profile("parley")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure is told without the garbage collector.

    Pytest parses the source of each frame. Where the collector comes upon a task whose exception nobody
    took, asyncio logs a traceback, for which Python 3.11 parses source, too. Parsing within parsing ends the
    whole run with "AST constructor recursion depth mismatch" in place of the test's own fault.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
