"""The loop around a method's step function: steps, logging, evaluation, checkpoints, and how a run ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from ..checkpoints.evaluation import mean_iou
from ..data.batches import batches
from ..runtime.command import note
from ..runtime.interrupts import Interrupts
from ..runtime.meter import Meter
from ..runtime.output import Progress, say
from ..runtime.processes import rank_and_world, stop_processes
from ..settings import Settings
from .domains import say_absent_classes
from .folder import resuming
from .report import report, show_panel
from .run import AfterStep, Run, StepFunction, batches_of, one_step
from .watch import Watch


def train(settings: Settings, step_function: StepFunction, after_step: AfterStep | None = None) -> Run:
    """Runs a method to its end, or to an interruption that it can be resumed from; with --dry-run only tries it."""
    if settings.dry_run:
        from .dry_run import dry_run  # which is built from the same parts

        return dry_run(settings, step_function, after_step)
    with Interrupts() as stop:
        run = Run(settings)
        run.after_step = after_step
        with telling_how_to_go_on(run, stop):
            absent = say_absent_classes(run.source, run.validation)
            loop(run, step_function, stop)
            confusions = run.evaluate()
            if rank_and_world()[0] == 0:
                report(run, confusions, absent)
        stop_processes()
    return run


def loop(run: Run, step_function: StepFunction, stop: Interrupts) -> None:
    """The steps that are left, with what comes between them."""
    settings, data = run.settings, batches_of(run)
    watch = Watch(data, run.folder)
    rank, world = rank_and_world()
    meter = Meter(run.device, 2 * settings.batch_size * world)
    started, first_step = time.perf_counter(), run.step
    loader = batches(data, run.step, run.total, settings.workers, pin=run.device.type == "cuda")
    bar = Progress(run.total, run.folder.name, done=run.step, silent=rank > 0)
    with bar, closing(loader), stop.answering(later=True):
        evaluate_if_due(run, stop)  # a run can have been stopped in the middle of it
        began = time.perf_counter()
        for batch in loader:
            one_step(run, batch.to(run.device), step_function, watch, lambda: stop.asked)
            run.step += 1
            bar.update()
            meter.tick()
            stop.step_took(time.perf_counter() - began, several=world > 1)
            to_log = run.step % settings.log_every == 0
            to_save = run.step % settings.save_every == 0 or run.step == run.total or evaluation_due(run)
            alone = stop.asked and world == 1  # several processes agree on a request, a step later
            values, stopped = watch.look(now=to_log or to_save or alone)
            if to_log:
                cost = meter.values()
                figures = {key: f"{value:.3f}" for key, value in values.items()}
                bar.show(figures | {key: f"{value:.3g}" for key, value in cost.items()})
                run.log(**values)
                run.board.scalars(run.step, cost)
            stopped |= alone
            if to_save or stopped:
                stop.answered()
                run.save()  # before an evaluation, so that nothing is lost if that is interrupted
            if stopped and run.step < run.total:
                raise KeyboardInterrupt
            if evaluate_if_due(run, stop) or to_save:
                meter.restart()
            began = time.perf_counter()
    if run.step > first_step:
        seconds = (time.perf_counter() - started) / (run.step - first_step)
        run.log(seconds_per_step=seconds)


def evaluation_due(run: Run) -> bool:
    """Whether there is an evaluation at this step; that of the last step is not among them."""
    at = run.step % run.settings.eval_every == 0 or run.step == run.settings.pretrain_iterations
    return 0 < run.step < run.total and at and run.step not in run.evaluated


def evaluate_if_due(run: Run, stop: Interrupts) -> bool:
    """Whether it was due; says what came out."""
    if not evaluation_due(run):
        return False
    with stop.answering(later=False):
        confusions = run.evaluate()
        if run.board.writer is not None:  # it takes a second or two, and nobody sees it elsewhere
            show_panel(run)
    scores = ", ".join(f"{name} {mean_iou(confusion):.2f}" for name, confusion in confusions.items())
    if rank_and_world()[0] == 0 and scores:
        say(f"step {run.step}: mIoU {scores}")
    return True


@contextmanager
def telling_how_to_go_on(run: Run, stop: Interrupts) -> Iterator[None]:
    """Whatever ends a run early says what is saved and how to go on."""
    stop.farewell = lambda: f"asked to stop, but the step did not end in time; {what_is_safe(run)}"
    try:
        yield
    except KeyboardInterrupt:
        safe = f"go on with {resuming(run.folder)}" if run.saved == run.step else what_is_safe(run)
        raise SystemExit(f"interrupted at step {run.step} of {run.total}; {safe}") from None
    except Exception as error:
        note(error, what_is_safe(run))
        raise
    finally:
        if run.lock is not None:
            run.lock.close()


def what_is_safe(run: Run) -> str:
    """The last checkpoint and how to go on, if there is one."""
    if run.saved is None:
        return f"no checkpoint was saved before; {run.folder} can be deleted"
    return f"the checkpoint of step {run.saved} is safe in {run.folder}; go on with {resuming(run.folder)}"
