"""The data sets of a sweep: the same content for all its trials, on every host that works on it.

``sweeps/<id>/data-<name>.json`` pins the fingerprint of a data set when the sweep begins. Where several hosts share
fersweep's home, the images are in ``data/`` there too, for hosts that have not prepared them.
"""

import contextlib
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.config.trial import SYNTHETIC, SharedConfig
from fer_sweep.data.dataset import DatasetInfo
from fer_sweep.errors import DataError, FersweepError, OtherData
from fer_sweep.files import cache_dir, home, sweep_folder, write_atomically, write_first
from fer_sweep.mounts import network_file_system
from fer_sweep.sweeps.entries import SweepEntry, pin_path, read_pin


class SweepData:
    """The data sets of one sweep."""

    def __init__(self, entry: SweepEntry, file: SweepFile, space: Space) -> None:
        self._entry = entry
        self.names = data_names(file, space)
        """Those that its trials may ask for."""
        self._names = [name for name in self.names if name != SYNTHETIC]

    def pin(self, note: Callable[[str], None]) -> None:
        """Pin and share the data sets of a new sweep that are prepared on this host, and note the others."""
        for name in self._names:
            try:
                self._provide(name, lambda text: None)
            except FersweepError as error:
                note(f"{error}: {error.hint}" if error.hint else str(error))

    def inherit(self, origin: SweepEntry) -> None:
        """Copy the pins of another sweep."""
        for pin in sweep_folder(origin.id).glob("data-*.json"):
            write_atomically(sweep_folder(self._entry.id) / pin.name, pin.read_bytes())

    def provide(self, say: Callable[[str], None]) -> Mapping[str, str]:
        """Copy data sets that are not prepared on this host from the shared home, and check the others.

        Args:
            say: Called with a line per copy.

        Returns:
            The fingerprint by name; the content of a name may change while an agent works.

        Raises:
            DataError: One is neither prepared here nor shared.
            OtherData: One differs from the pinned one.
            StorageError: It cannot be copied.
        """
        return {name: self._provide(name, say).fingerprint for name in self._names}

    def _provide(self, name: str, say: Callable[[str], None]) -> DatasetInfo:
        from fer_sweep.data.cache import find_dataset

        here = _prepared(name)
        info = read_pin(self._entry.id, name)
        if info is None:
            info = here or find_dataset(name)  # which raises, naming the known ones
            write_first(pin_path(self._entry.id, name), info.model_dump_json(indent=2))
            info = read_pin(self._entry.id, name) or info  # another host may have been first
        if here is None:
            _take(info, say)
        elif info.fingerprint != here.fingerprint:
            raise OtherData(
                f"data set {name} on this host ({socket.gethostname()}) differs from the one sweep {self._entry.id} "
                f"began with: {_content(here)} instead of {_content(info)}",
                hint=f"restore it: fersweep data prepare {info.source} --name {name} --replace; "
                "or create another sweep on this one: fersweep create",
            )
        elif self._is_for_several_hosts():
            share_data(name, say)
        return info

    def _is_for_several_hosts(self) -> bool:
        """Whether hosts work on this sweep that cannot read this host's cache."""
        several = self._entry.database.startswith("postgresql") or network_file_system(home()) is not None
        return several and network_file_system(cache_dir()) is None


def data_names(file: SweepFile, space: Space) -> list[str]:
    """The data sets that a sweep's trials may ask for; none where a space in code says so only when it runs."""
    if (given := space.parameters.get("data")) is not None:
        return [str(name) for name in given.possible or ()]
    return [] if file.has_own_space else [SharedConfig.model_fields["data"].default]


def check_prepared(file: SweepFile) -> None:
    """Raise ``DataError`` if a data set of a sweep file is not prepared on this host."""
    from fer_sweep.data.cache import find_dataset  # only here: the readers take long to import

    for name in data_names(file, Space.from_sweep(file)):
        if name != SYNTHETIC:
            find_dataset(name)


def prepared_fingerprint(name: str) -> str | None:
    """The fingerprint of a data set as it is prepared on this host; None if it is not, or is drawn."""
    with contextlib.suppress(FersweepError):
        info = None if name == SYNTHETIC else _prepared(name)
        return info.fingerprint if info else None
    return None


def pinning(name: str) -> list[str]:
    """The ids of the sweeps of this home that have pinned a data set of this name."""
    return sorted(
        pin.parent.name for pin in (home() / "sweeps").glob("*/data-*.json") if pin.name == f"data-{name}.json"
    )


def share_data(name: str, say: Callable[[str], None]) -> bool:
    """Copy a prepared data set into fersweep's home for hosts that share it; False if it is there already."""
    if name == SYNTHETIC:
        raise DataError(f"data set {name} cannot be shared", hint="every host generates it")
    from fer_sweep.data.cache import open_dataset
    from fer_sweep.data.store import share

    if not share(open_dataset(name), _shared()):
        return False
    say(f"data set {name} copied to {_shared()} for hosts that have not prepared it")
    return True


def _prepared(name: str) -> DatasetInfo | None:
    from fer_sweep.data.cache import find_dataset, is_prepared  # only here: the readers take long to import

    return find_dataset(name) if is_prepared(name) else None


def _take(info: DatasetInfo, say: Callable[[str], None]) -> None:
    from fer_sweep.data.store import copy_shared, is_shared

    host = socket.gethostname()
    if not is_shared(info, _shared()):
        raise DataError(
            f"data set {info.name}, {_content(info)}, is neither prepared on this host ({host}) nor in {_shared()}",
            hint=f"run fersweep data prepare {info.source} --name {info.name} here, or fersweep data share {info.name} "
            "on a host that has it and the same FERSWEEP_HOME",
        )
    say(f"data set {info.name} is not prepared on this host ({host}): copying {_content(info)} from {_shared()}")
    copy_shared(info, _shared())


def _shared() -> Path:
    return home() / "data"


def _content(info: DatasetInfo) -> str:
    return f"{info.total:,} images from {info.source} ({info.fingerprint[:12]})"
