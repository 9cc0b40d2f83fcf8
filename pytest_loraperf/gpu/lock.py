"""One measurement at a time on a device, whichever process, session or user makes it."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pytest_loraperf.errors import LoraperfError

WAIT_SECONDS = 7200.0
"""How long to wait for others: several workers may queue, each for the builds and rounds of a gate."""
POLL_SECONDS = 0.1
SHARED = Path("/tmp")  # noqa: S108 - the one folder that all users and sessions of a host have
ANYONE = 0o666


class DeviceLock:
    """A lock of the whole host on one device, named by its UUID.

    It is a file that the operating system locks: it is free again when its holder ends, however that comes.
    Who waits holds a second one meanwhile, the queue's, through which each must come: a process that measures
    test after test lets in the one that waits in between.
    ``tell`` takes lines of progress, ``note`` a line for the summary. It is in ``/tmp`` whatever ``TMPDIR`` says,
    and not one of filelock's, since those refuse a file that another user has made.
    """

    def __init__(
        self,
        device: str,
        tell: Callable[[str], None],
        note: Callable[[str], None],
        folder: Path | None = None,
        wait: float = WAIT_SECONDS,
    ) -> None:
        self.path = shared_path(device, "lock", folder)
        self.wait = wait
        self._device, self._tell, self._note = device, tell, note
        self._file: int | None = None
        self._depth = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the device, waiting for whoever measures on it now; it may be held again within.

        Where there can be no lock, that is noted, and the measurement goes on without.

        Raises:
            LoraperfError: others have held it for ``wait`` seconds.
        """
        if not self._depth:
            self._file = self._acquire()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._file is not None:
                _give_back(self._file)
                self._file = None

    def _acquire(self) -> int | None:
        try:
            with ExitStack() as opened:
                files = [_opened(path, opened) for path in (self.path.with_suffix(".queue"), self.path)]
                deadline = time.monotonic() + self.wait
                if not all(self._wait_for(file, deadline) for file in files):
                    raise LoraperfError(
                        f"other processes have been measuring on {self._device} for {self.wait:.0f} s (they hold "
                        f"{self.path}); look whether one is stuck, and run this again"
                    )
                return os.dup(files[-1])  # the lock is of both, and stays until the last is closed
        except (OSError, ValueError, ImportError) as error:
            self._note(_unlocked(self.path, self._device, str(error)))
            return None

    def _wait_for(self, file: int, deadline: float) -> bool:
        import fcntl  # noqa: PLC0415 - Windows has none, and measures without a lock

        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    self._tell(f"waiting for another process that measures on {self._device}")
                told = True
                if time.monotonic() > deadline:
                    return False
                time.sleep(POLL_SECONDS)
            else:
                return True


def _give_back(file: int) -> None:
    import fcntl  # noqa: PLC0415 - it was locked, so it is there

    # Closing alone would not do where the work forked a process that lives on: it has the file open, too.
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _opened(path: Path, until: ExitStack) -> int:
    file = open_shared(path)
    until.callback(os.close, file)
    return file


def shared_path(device: str, kind: str, folder: Path | None = None) -> Path:
    """Return a path that all processes of the host have for one device, below ``folder`` where that is given."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", device)
    shared = SHARED if SHARED.is_dir() else Path(tempfile.gettempdir())
    return (folder or shared) / f"pytest-loraperf-{name}.{kind}"


def open_shared(path: Path) -> int:
    """Open the file for locking; one that is there is not to be created, which a shared folder may forbid."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, ANYONE)
        os.chmod(path, ANYONE)  # noqa: PTH101 - whatever the umask is, others on the host may be other users
        return file


def _unlocked(path: Path, device: str, why: str) -> str:
    return (
        f"warning: {path} cannot be locked ({why}): another process may measure on {device} at the same time; "
        "remove the file, or let all users write it"
    )
