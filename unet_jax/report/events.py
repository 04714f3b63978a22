"""Writes numbers as TensorBoard events, each line at once."""

import time
from collections.abc import Mapping
from pathlib import Path


class EventFile:
    """One file of events, written by the caller's thread.

    ``tensorboardX.SummaryWriter`` hands events to a thread by a queue. Its ``flush``
    does not wait for them: a short run leaves an empty file, and a killed one loses its
    last two minutes.
    """

    def __init__(self, workdir: Path, *, first_step: int | None = None) -> None:
        """Create a file in a workdir.

        Args:
            workdir: folder of the run.
            first_step: step from which TensorBoard forgets what earlier files have;
                None keeps all.
        """
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._new_event = event_pb2.Event
        # Default names hold whole seconds: another writer could overwrite this file.
        self._file = EventsWriter(str(workdir / "events"), f".{time.time_ns()}")
        if first_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(first_step, session_log=start)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers by tag, and have them on the disk on return."""
        from tensorboardX.proto import summary_pb2
        from tensorboardX.summary import scalar

        found = [scalar(tag, value).value[0] for tag, value in values.items()]
        self._write(step, summary=summary_pb2.Summary(value=found))

    def close(self) -> None:
        """Close the file; nothing can be written afterwards."""
        self._file.close()

    def _write(self, step: int, **content: object) -> None:
        """Write one event."""
        event = self._new_event(wall_time=time.time(), step=step, **content)
        self._file.write_event(event)
        self._file.flush()
