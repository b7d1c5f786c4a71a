"""When a run is saved: in time, at the end of epochs, and when it is asked to stop."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Generator
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

_LOG = logging.getLogger(__name__)
_SHORT = 60.0  # seconds: an epoch that ends sooner after the last checkpoint has little to lose
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(KeyboardInterrupt):
    """Training was asked to stop, and its last step is saved.

    Attributes:
        signal: what asked: SIGINT (Ctrl-C) or SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


class SavingCallback(TrainerCallback):
    """Asks for checkpoints by the clock, and for the last one before a stop.

    Args:
        minutes: the longest time between checkpoints; 0 for none by the clock, and none at the end of epochs.
        trainer: its processes decide together.
    """

    def __init__(self, minutes: float, trainer: Any) -> None:
        self._seconds, self._trainer = 60 * minutes, trainer
        self._last = time.monotonic()
        self.signal = 0

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """A handler of signals: the first one stops after the step, the second one at once."""
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        _LOG.warning("%s: training stops after this step, with a checkpoint. Ctrl-C again stops it at once.", name)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        due, self.signal = self._together(bool(self._seconds) and self._since() >= self._seconds, self.signal)
        if due or self.signal:
            control.should_save = True
        if self.signal:
            control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        due, _ = self._together(bool(self._seconds) and self._since() >= min(_SHORT, self._seconds), 0)
        if due and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._last = time.monotonic()

    def _since(self) -> float:
        return time.monotonic() - self._last

    def _together(self, due: bool, number: int) -> tuple[bool, int]:
        """What any of the processes says."""
        if self._trainer.args.world_size == 1:
            return due, number
        said = torch.tensor([[int(due), number]], device=self._trainer.args.device)
        most = self._trainer.accelerator.gather(said).amax(0).tolist()
        return bool(most[0]), int(most[1])


@contextlib.contextmanager
def stopping_with_a_checkpoint(saving: SavingCallback) -> Generator[None]:
    """While training: Ctrl-C and SIGTERM end it after a step that is saved.

    Raises:
        StoppedError: at the end, if a signal came.
    """
    if threading.current_thread() is not threading.main_thread():  # only it may be told of signals
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in ours:
        signal.signal(number, saving.ask)
    try:
        yield
    finally:
        for number, old in ours.items():
            signal.signal(number, old)
    if saving.signal:
        raise StoppedError(saving.signal)
