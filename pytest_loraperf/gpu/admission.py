"""Which tests may be on a GPU at once, by what they declare to need, whichever process of the host runs them.

Each test has an entry while it runs or waits: a file that its process holds locked, so that the operating system
lets go of it when the process dies, however that comes. A process asks for admission before a test touches the
GPU, and holds no other lock then: admission comes first, the lock on measuring (``gpu/lock``) second, never the
other way round. So whoever measures has been admitted, ends some time, and nobody waits in a circle.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_loraperf.errors import LoraperfError
from pytest_loraperf.gpu.lock import POLL_SECONDS, WAIT_SECONDS, open_shared, shared_path
from pytest_loraperf.units import format_size

STICKY = 0o1777
"""Every user of the host may add entries, and remove their own."""


@dataclass(frozen=True)
class Entry:
    """A test that runs on a GPU or waits for it: what it needs in bytes, and its place in the order of asking."""

    ticket: int
    need: int
    running: bool = False


def admits(mine: Entry, others: Collection[Entry], total: int) -> bool:
    """Whether a test may start beside the others: first come, first served.

    Nobody overtakes one that waits, so a large test gets its turn; one that is alone starts, whatever it needs.
    """
    if any(not other.running and other.ticket < mine.ticket for other in others):
        return False
    held = sum(other.need for other in others if other.running)
    return not any(other.running for other in others) or held + mine.need <= total


class Admission:
    """The queue of one GPU of ``total`` bytes, as this process sees it; it has one test there at a time.

    ``tell`` takes lines of progress, ``note`` a line for the summary.
    """

    def __init__(
        self,
        device: str,
        total: int,
        tell: Callable[[str], None],
        note: Callable[[str], None],
        folder: Path | None = None,
        wait: float = WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.total = total
        self.folder = shared_path(device, "room", folder)
        self._device, self._tell, self._note = device, tell, note
        self._wait, self._clock, self._sleep = wait, clock, sleep
        self._held: _Held | None = None

    def enter(self, need: int, kept: int = 0, give_back: Callable[[], None] = lambda: None) -> float:
        """Wait until a test that needs so many bytes may start; return the seconds that took.

        ``kept`` is what this process keeps on the device of earlier tests. Where there is no room for both,
        ``give_back`` is called, which takes it off, before the wait begins. The entry of its last test goes.

        Raises:
            LoraperfError: others left no room for ``wait`` seconds.
        """
        try:
            return self._enter(need, kept, give_back)
        except (OSError, ImportError) as error:
            self._note(
                f"warning: {self.folder} cannot be used ({error}): the tests of several workers may not fit on "
                f"{self._device} together; remove it, or let all users write it"
            )
            return 0.0

    def leave(self) -> None:
        """Let the next one in."""
        if self._held is not None:
            held, self._held = self._held, None
            held.let_go()

    def _enter(self, need: int, kept: int, give_back: Callable[[], None]) -> float:
        with self._alone():
            others = self._others()
            tickets = (entry.ticket for entry in (*others, *([self._held.entry] if self._held else [])))
            mine = Entry(1 + max(tickets, default=0), need + kept)
            start = admits(mine, others, self.total)
            new = _Held(self.folder, replace(mine, running=start, need=mine.need if start else need))
        try:
            if not start:
                # What this process has of the test before counts as running until it is given back.
                give_back()
            self.leave()
        except BaseException:
            new.let_go()
            raise
        self._held = new
        return 0.0 if start else self._wait_with(new)

    def _wait_with(self, held: _Held) -> float:
        begin, told = self._clock(), False
        while True:
            with self._alone():
                if admits(held.entry, self._others(), self.total):
                    held.write(replace(held.entry, running=True))
                    return self._clock() - begin
            if self._clock() - begin > self._wait:
                self.leave()
                raise LoraperfError(
                    f"a test that needs {format_size(held.entry.need)} has found no room on {self._device} for "
                    f"{self._wait:.0f} s beside those of other processes (in {self.folder}); look whether one is "
                    "stuck, and run this again"
                )
            if not told:
                self._tell(f"waiting for {format_size(held.entry.need)} of room on {self._device}")
            told = True
            self._sleep(POLL_SECONDS)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the queue for the moment in which it is read and changed."""
        import fcntl  # noqa: PLC0415 - Windows has none, and admits all

        with suppress(FileExistsError):
            self.folder.mkdir()
            self.folder.chmod(STICKY)
        file = open_shared(self.folder / "lock")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def _others(self) -> list[Entry]:
        mine = self._held.path if self._held else None
        found = (_read(path, self.total) for path in sorted(self.folder.glob("*.entry")) if path != mine)
        return [entry for entry in found if entry is not None]


class _Held:
    """The file of an entry, locked by this process."""

    def __init__(self, folder: Path, entry: Entry) -> None:
        import fcntl  # noqa: PLC0415 - Windows has none

        self.path = folder / f"{entry.ticket}-{os.getpid()}.entry"
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.write(entry)

    def write(self, entry: Entry) -> None:
        self.entry = entry
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{entry.need} {int(entry.running)}\n".encode(), 0)

    def let_go(self) -> None:
        import fcntl  # noqa: PLC0415 - Windows has none

        # A process that the test forked has the file open too, so that closing it would not be enough.
        fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)
        with suppress(OSError):
            self.path.unlink()


def _read(path: Path, total: int) -> Entry | None:
    """Read another's entry; None where its process is dead. One that cannot be read has the whole device."""
    import fcntl  # noqa: PLC0415 - Windows has none

    ticket = int(path.name.partition("-")[0]) if path.name.partition("-")[0].isdecimal() else 0
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        return Entry(ticket, total, running=True)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        words = os.pread(file, 100, 0).split()
        if len(words) == 2 and all(word.isdigit() for word in words):  # noqa: PLR2004 - need and running
            return Entry(ticket, int(words[0]), running=words[1] == b"1")
        return Entry(ticket, total, running=True)
    else:
        with suppress(OSError):
            path.unlink()
        return None
    finally:
        os.close(file)
