"""TensorBoard's curves, in one file of the run that grows like its log.

TensorBoard's own writer has a thread, and a file of another name in each process. Here the records
are appended by the run itself, so that the file is cut back and checked where the run goes on.
"""

import io
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hypercl.ranges import as_argument
from hypercl.rundir.growing import GrowingFile

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

NAME = "summary/events.out.tfevents.run"  # TensorBoard reads what has "tfevents" in its name


class Curves:
    """Numbers by step, and what compares runs.

    Args:
        file: Where they are appended; may hold some.
    """

    def __init__(self, file: GrowingFile) -> None:
        self._file = file

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """A point of each curve, by tag.

        Raises:
            OSError: The file cannot be written.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary  # slow to import

        if not scalars:
            return
        # One event: one a number costs twenty times as long.
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._append([Summary(value=values)], step)

    def add_settings(
        self, settings: Mapping[str, Any], known: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """What TensorBoard's HParams tab shows of a finished run.

        Args:
            settings: Of this run, as JSON has them; ``known``: those of any run, for the columns.
            metrics: Tags and values of numbers that have been added as scalars.

        Raises:
            OSError: The file cannot be written.
        """
        from torch.utils.tensorboard.summary import hparams

        of_any, _, _ = hparams(_plain(known), dict(metrics))
        _, start, end = hparams(_plain(settings), dict(metrics))
        self._append([of_any, start, end], step=0)

    def _append(self, summaries: "Sequence[Summary]", step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        now, records = time.time(), io.BytesIO()
        events = [Event(wall_time=now, step=step, summary=summary) for summary in summaries]
        if self._file.length == 0:
            events.insert(0, Event(wall_time=now, file_version="brain.Event:2"))
        for event in events:
            RecordWriter(records).write(event.SerializeToString())
        self._file.append(records.getvalue())


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, and text for anything else."""
    return {
        name: value if type(value) in (int, float) else as_argument(value)
        for name, value in settings.items()
        if value is not None
    }
