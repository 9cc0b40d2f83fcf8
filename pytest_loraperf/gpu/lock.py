"""One measurement at a time on a device, whichever process, session or user makes it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_loraperf.errors import LoraperfError

WAIT_SECONDS = 1800.0
"""How long to wait for other measurements: longer than any that is not stuck."""


class DeviceLock:
    """A lock of the whole host on one device, named by its UUID.

    It is a file in the folder for temporary files that the operating system locks: it is free again when its
    holder ends, however that comes. ``tell`` takes lines of progress, ``note`` a line for the summary.
    """

    def __init__(
        self,
        device: str,
        tell: Callable[[str], None],
        note: Callable[[str], None],
        folder: Path | None = None,
        wait: float = WAIT_SECONDS,
    ) -> None:
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", device)
        self.path = (folder or Path(tempfile.gettempdir())) / f"pytest-loraperf-{name}.lock"
        self.wait = wait
        self._device, self._tell, self._note = device, tell, note
        # Others on the host may be other users.
        self._lock = FileLock(self.path, mode=0o666)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the device, waiting for whoever measures on it now; it may be held again within.

        Where there can be no lock, that is noted, and the measurement goes on without.

        Raises:
            LoraperfError: another process has held it for ``wait`` seconds.
        """
        locked = self._acquire()
        try:
            yield
        finally:
            if locked:
                self._lock.release()

    def _acquire(self) -> bool:
        try:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                self._tell(f"waiting for another process that measures on {self._device}")
                self._lock.acquire(timeout=self.wait)
        except Timeout as error:
            raise LoraperfError(
                f"another process has been measuring on {self._device} for {self.wait:.0f} s "
                f"(it holds {self.path}); look whether it is stuck, and run this again"
            ) from error
        except (OSError, NotImplementedError) as error:
            self._note(
                f"warning: {self.path} cannot be locked ({error}): another process may measure on {self._device} "
                "at the same time; remove the file, or set TMPDIR to a folder that can be written"
            )
            return False
        return True
