"""optuna-dashboard on a sweep: a thread copies its trials into an in-memory storage of Optuna.

Our tables are not Optuna's, and the sweeps of a W&B server are not in them, so both kinds are copied. The dashboard is
read-only; fersweep's commands change a sweep.
"""

import ipaddress
import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from fer_sweep.config.sweep_file import Metric
from fer_sweep.errors import FersweepError, InputError
from fer_sweep.formatting import plain
from fer_sweep.records import TrialRecord, TrialState
from fer_sweep.reports.optuna_view import coordinates, distributions
from fer_sweep.reports.sources import Axis, Curve, axes_of
from fer_sweep.search.objective import finite_values, objective_value
from fer_sweep.search.scheduler import quietly
from fer_sweep.sweeps import Sweep

log = logging.getLogger(__name__)

_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}
"""All other states are RUNNING in Optuna."""


class Mirror:
    """A sweep as a study in memory."""

    def __init__(self, name: str, objectives: Sequence[Metric], axes: Sequence[Axis]) -> None:
        self._objectives = objectives
        self._axes = axes
        self._distributions: dict[str, BaseDistribution] = {}
        self.storage = optuna.storages.InMemoryStorage()
        with quietly(), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                storage=self.storage, study_name=name, directions=[metric.goal for metric in objectives]
            )
            study.set_metric_names([metric.name for metric in objectives])
        self._study = self.storage.get_study_id_from_name(name)
        self._trials: dict[str, int] = {}
        """Our id of every trial to its id in the storage."""
        self._ended: set[str] = set()

    def update(self, records: Sequence[TrialRecord], reports: Callable[[str], Curve]) -> None:
        """Update the study from all trials of the sweep.

        ``reports`` returns a trial's metrics by epoch; it is called for trials that are new or had not ended.
        """
        # A distribution must not change: the dashboard would show it as another parameter.
        self._distributions = {**distributions(self._axes, records), **self._distributions}
        for record in records:
            if record.trial_id in self._ended:
                continue
            now = self._frozen(record, reports(record.trial_id))
            trial = self._trials.get(record.trial_id)
            if trial is None:
                self._trials[record.trial_id] = self.storage.create_new_trial(self._study, template_trial=now)
            else:
                for step, value in now.intermediate_values.items():
                    self.storage.set_trial_intermediate_value(trial, step, value)
                for name, attribute in now.user_attrs.items():
                    self.storage.set_trial_user_attr(trial, name, attribute)
                if now.state.is_finished():
                    self.storage.set_trial_state_values(trial, now.state, now.values)
            if now.state.is_finished():
                self._ended.add(record.trial_id)

    def _frozen(self, record: TrialRecord, history: Curve) -> FrozenTrial:
        params = coordinates(record, self._distributions)
        others = {plain(str(k), 80): _attribute(v) for k, v in record.parameters.items() if k not in params}
        attributes: dict[str, Any] = {"trial": record.trial_id, **others}
        if (result := record.result) is not None:
            attributes |= {"train_val_gap": result.train_val_gap, "weights": result.parameters}
            attributes["verdict"] = str(result.verdict)
        if record.reason:
            attributes["note"] = plain(record.reason, 300)
        state, values = self._end(record, history)
        trial = optuna.trial.create_trial(
            state=state,
            values=values,
            params=params,
            distributions={name: self._distributions[name] for name in params},
            intermediate_values=self._steps(history),
            user_attrs=attributes,
        )
        if record.started_at is not None:
            trial.datetime_start = datetime.fromtimestamp(record.started_at)
        if record.ended_at is not None:
            trial.datetime_complete = datetime.fromtimestamp(record.ended_at)
        return trial

    def _steps(self, history: Curve) -> dict[int, float]:
        if len(self._objectives) > 1:
            return {}  # Optuna has no intermediate values for several objectives
        name = self._objectives[0].name
        # A curve should show each epoch, not the best so far.
        values = finite_values("val_acc" if name == "best_val_acc" else name, history)
        return dict(enumerate(values, start=1))

    def _end(self, record: TrialRecord, history: Curve) -> tuple[OptunaState, list[float] | None]:
        state = _STATES.get(record.state, OptunaState.RUNNING)
        is_valued = state is OptunaState.COMPLETE or (state is OptunaState.PRUNED and len(self._objectives) > 1)
        if not is_valued:
            return state, None
        worth = [objective_value(metric, history, record.result) for metric in self._objectives]
        known = [value for value in worth if value is not None]
        # A diverged trial has no value, which Optuna requires of a complete one.
        return (OptunaState.COMPLETE, known) if len(known) == len(worth) else (OptunaState.FAIL, None)


def _attribute(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float) else plain(str(value), 200)


def serve(
    sweep: Sweep,
    *,
    host: str = "127.0.0.1",
    port: int,
    every_s: float = 2.0,
    on_ready: Callable[[str], None],
) -> None:
    """Serve the dashboard of a sweep until interrupted.

    Args:
        sweep: The sweep.
        host: Address to listen on.
        port: 0 selects a free one.
        every_s: Seconds between two looks at the sweep; the dashboard polls no faster than every 2 s.
        on_ready: Called with the address once the server listens.

    Raises:
        InputError: optuna-dashboard is not installed, or the address cannot be listened on.
    """
    try:
        import optuna_dashboard  # only here: an optional part
    except ImportError as error:
        raise InputError(
            f"optuna-dashboard is not installed: {error}", hint="pip install 'fersweep[dashboard]'"
        ) from error
    title = plain(f"{sweep.entry.name or 'sweep'} ({sweep.id})", 100)
    records = sweep.trials()
    mirror = Mirror(title, sweep.file.objectives, axes_of(sweep.space, records))
    mirror.update(records, sweep.reports)
    app = _read_only(optuna_dashboard.wsgi(mirror.storage), only_here=is_loopback(host))
    try:
        server = make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="use --port 0 for a free port"
        ) from error
    stop = threading.Event()
    follower = threading.Thread(target=_follow, args=(sweep, mirror, every_s, stop), name="mirror", daemon=True)
    follower.start()
    try:
        shown = f"[{host}]" if ":" in host else host
        on_ready(f"http://{shown}:{server.server_port}/")
        server.serve_forever()
    finally:
        stop.set()
        server.server_close()
        follower.join(timeout=5.0)


def _follow(sweep: Sweep, mirror: Mirror, every_s: float, stop: threading.Event) -> None:
    while not stop.wait(every_s):
        try:
            mirror.update(sweep.trials(), sweep.reports)
        except FersweepError as error:
            log.warning("the dashboard is not up to date: %s", error)


def is_loopback(host: str) -> bool:
    """Whether an address is a loopback address.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("lab-pc")
    (True, True, False, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def _read_only(app: Any, *, only_here: bool) -> Any:
    """Refuse changes, which would seem to change the sweep; ``only_here`` refuses other hosts (DNS rebinding)."""

    def guarded(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        plain_text = [("Content-Type", "text/plain")]
        if only_here and not is_loopback(name):
            start_response("403 Forbidden", plain_text)
            return [b"use 127.0.0.1 or localhost\n"]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", plain_text)
            return [b"this dashboard is read-only; use fersweep's commands to change a sweep\n"]
        answer: Iterable[bytes] = app(environ, start_response)
        return answer

    return guarded
