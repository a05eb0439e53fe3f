"""The data sets of a sweep: the same content for all its trials, on every host that works on it.

``sweeps/<id>/data-<name>.json`` pins the fingerprint of a data set when the sweep begins. Where several hosts share
fersweep's home, the images are in ``data/`` there too, for hosts that have not prepared them.
"""

import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_sweep.config.space import Space
from fer_sweep.config.sweep_file import SweepFile
from fer_sweep.config.trial import SYNTHETIC, SharedConfig
from fer_sweep.errors import DataError, FersweepError, InputError, OtherData
from fer_sweep.files import cache_dir, home, sweep_folder, write_atomically, write_first
from fer_sweep.mounts import network_file_system
from fer_sweep.records import FER2013
from fer_sweep.sweeps.entries import SweepEntry

if TYPE_CHECKING:
    from fer_sweep.data.dataset import DatasetInfo


class SweepData:
    """The data sets of one sweep."""

    def __init__(self, entry: SweepEntry, file: SweepFile, space: Space) -> None:
        self._entry = entry
        # A space in code is known only when it runs.
        self._names = () if file.has_own_space else [name for name in data_names(space) if name != SYNTHETIC]

    def pin(self, note: Callable[[str], None]) -> None:
        """Pin and share the data sets of a new sweep that are prepared on this host.

        Args:
            note: Called with problems; agents try again when they start.
        """
        for name in self._names:
            try:
                if (info := _prepared(name)) is not None:
                    self._share(_pinned(self._entry.id, name) or self._pin(info), lambda text: None)
            except FersweepError as error:
                note(str(error))

    def inherit(self, origin: SweepEntry) -> None:
        """Copy the pins of another sweep.

        Raises:
            StorageError: A pin cannot be written.
        """
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
        from fer_sweep.data.cache import find_dataset

        fingerprints = {}
        for name in self._names:
            here = _prepared(name)
            info = _pinned(self._entry.id, name) or (self._pin(here) if here else None)
            if info is None:
                info = find_dataset(name)  # raises, naming the known ones
            elif here is None:
                _take(info, say)
            elif info.fingerprint != here.fingerprint:
                raise OtherData(
                    f"data set {name} on this host ({_host()}) differs from the one sweep {self._entry.id} began with: "
                    f"{_content(here)} instead of {_content(info)}",
                    hint=f"restore it: fersweep data prepare {info.source} --name {name} --replace; "
                    "or create another sweep on this one: fersweep create",
                )
            else:
                self._share(info, say)
            fingerprints[name] = info.fingerprint
        return fingerprints

    def _pin(self, info: "DatasetInfo") -> "DatasetInfo":
        """Pin a data set; returns the pinned one, which another host may have pinned first."""
        write_first(_pin_path(self._entry.id, info.name), info.model_dump_json(indent=2))
        return _pinned(self._entry.id, info.name) or info

    def _share(self, info: "DatasetInfo", say: Callable[[str], None]) -> None:
        """Share a prepared data set with hosts that cannot read this host's cache."""
        several = self._entry.database.startswith("postgresql") or network_file_system(home()) is not None
        if several and network_file_system(cache_dir()) is None:
            share_data(info.name, say)


def data_names(space: Space) -> Sequence[str]:
    """The names of the data sets in a space."""
    given = space.parameters.get("data")
    if given is None:
        return (str(SharedConfig.model_fields["data"].default),)
    return tuple(str(value) for value in given.grid_values() or ())


def pinned_data(sweep_id: str, name: str) -> "DatasetInfo | None":
    """The data set that a sweep has pinned under a name; None if there is none, or it cannot be read."""
    with contextlib.suppress(InputError):
        return _pinned(sweep_id, name)
    return None


def image_size(name: str) -> tuple[int, int]:
    """Height and width of a data set's images; FER2013's if it is not prepared on this host."""
    spec = FER2013
    with contextlib.suppress(FersweepError):
        if name != SYNTHETIC and (info := _prepared(name)) is not None:
            spec = info.spec
    return spec.height, spec.width


def share_data(name: str, say: Callable[[str], None]) -> bool:
    """Copy a prepared data set into fersweep's home for hosts that share it; False if it is there already.

    Raises:
        DataError: It is not prepared here, or it is synthetic.
        StorageError: The home cannot be written.
    """
    if name == SYNTHETIC:
        raise DataError(f"data set {name} cannot be shared", hint="every host generates it")
    from fer_sweep.data.cache import open_dataset
    from fer_sweep.data.sharing import share

    if not share(open_dataset(name), _shared()):
        return False
    say(f"data set {name} copied to {_shared()} for hosts that have not prepared it")
    return True


def _prepared(name: str) -> "DatasetInfo | None":
    from fer_sweep.data.cache import find_dataset, is_prepared

    return find_dataset(name) if is_prepared(name) else None


def _take(info: "DatasetInfo", say: Callable[[str], None]) -> None:
    from fer_sweep.data.sharing import is_shared, take

    if not is_shared(info, _shared()):
        raise DataError(
            f"data set {info.name}, {_content(info)}, is neither prepared on this host ({_host()}) nor in {_shared()}",
            hint=f"run fersweep data prepare {info.source} --name {info.name} here, or fersweep data share {info.name} "
            "on a host that has it and the same FERSWEEP_HOME",
        )
    say(f"data set {info.name} is not prepared on this host ({_host()}): copying {_content(info)} from {_shared()}")
    take(info, _shared())


def _pinned(sweep_id: str, name: str) -> "DatasetInfo | None":
    from fer_sweep.data.dataset import DatasetInfo

    path = _pin_path(sweep_id, name)
    try:
        return DatasetInfo.read(path, name)
    except (OSError, ValueError) as error:  # pydantic raises ValueErrors
        raise DataError(
            f"cannot read {path} ({type(error).__name__}), which pins data set {name} of this sweep",
            hint="restore it; if you delete it, the sweep pins the data set of the next agent's host",
        ) from error


def _pin_path(sweep_id: str, name: str) -> Path:
    return sweep_folder(sweep_id) / f"data-{name}.json"


def _shared() -> Path:
    return home() / "data"


def _content(info: "DatasetInfo") -> str:
    return f"{info.total:,} images from {info.source} ({info.fingerprint[:12]})"


def _host() -> str:
    return socket.gethostname()
