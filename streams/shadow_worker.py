"""The shadow worker: a shadow agent run until it is stopped."""

from __future__ import annotations

import threading

from schemas.errors import LumynError
from streams.observe import Observer
from streams.shadow import ShadowAgent


class ShadowWorker:
    """One at a time for a partition: a second one fences the first, which then ends with `Fenced`."""

    def __init__(self, agent: ShadowAgent, observer: Observer, *, poll_s: float = 0.1) -> None:
        self._agent = agent
        self._observer = observer
        self._poll_s = poll_s
        self._stopping = threading.Event()
        observer.ready("shadow", False)

    def run(self) -> None:
        """Evaluate candidates until stopped; trouble is told and tried again. Raises `Fenced`."""
        wait = 0.1
        try:
            while not self._stopping.is_set():
                try:
                    read = self._agent.step()
                    self._observer.ready("shadow", True)
                    wait = 0.1
                    if not read:
                        self._stopping.wait(self._poll_s)
                except LumynError as error:
                    self._agent.close()
                    self._observer.ready("shadow", False)
                    if error.code == "fenced":
                        raise
                    self._observer.trouble("shadow_halted", error)
                    self._stopping.wait(wait)
                    wait = min(5.0, wait * 2)
        finally:
            self._agent.close()

    def stop(self) -> None:
        """End the run, from any thread."""
        self._stopping.set()
