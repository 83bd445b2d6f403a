"""Real Lava behind frames: the only part of nmtool that imports Lava. Runs on Python 3.10 with NumPy and Lava alone.

``serve`` answers requests, ``network`` builds Lava Processes from a program, ``processes`` holds those that are ours.
"""

from __future__ import annotations


def main() -> None:
    """Entry point of ``nmtool-worker``."""
    from nmtool.backends.lava_worker.serve import serve

    serve()
