"""The data sets of a sweep: the same content for all its trials, on every host that works on it.

``sweeps/<id>/data-<name>.json`` pins what a name meant when the sweep began. Where several hosts share fersweep's home,
the content lies in ``data/`` there too, for hosts that have not prepared it.
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
from fer_sweep.sweeps.entries import SweepEntry

if TYPE_CHECKING:
    from fer_sweep.data.dataset import DatasetInfo


class SweepData:
    """The data sets of one sweep."""

    def __init__(self, entry: SweepEntry, file: SweepFile, space: Space) -> None:
        self._entry = entry
        # A space in code names its data as it runs.
        self._names = () if file.has_own_space else [name for name in data_names(space) if name != SYNTHETIC]

    def pin(self, note: Callable[[str], None]) -> None:
        """Pin and share the data sets of a new sweep, as far as they are prepared on this host.

        Args:
            note: Gets what could not be done; agents do it when they begin.
        """
        for name in self._names:
            try:
                if (info := _prepared(name)) is not None:
                    self._share(_pinned(self._entry.id, name) or self._pin(info), lambda text: None)
            except FersweepError as error:
                note(str(error))

    def inherit(self, origin: SweepEntry) -> None:
        """Train this sweep on exactly the data of another one.

        Raises:
            StorageError: A pin cannot be written.
        """
        for pin in sweep_folder(origin.id).glob("data-*.json"):
            write_atomically(sweep_folder(self._entry.id) / pin.name, pin.read_bytes())

    def provide(self, say: Callable[[str], None]) -> Mapping[str, str]:
        """See that this host has the data sets, copied from the shared home where they are not prepared here.

        Args:
            say: Gets a line on what is copied.

        Returns:
            The fingerprint of each, by name: a name may be given to other content while an agent works.

        Raises:
            DataError: One is not prepared here and not shared.
            OtherData: One is another here than the sweep began with.
            StorageError: It cannot be copied.
        """
        from fer_sweep.data.cache import find_dataset

        fingerprints = {}
        for name in self._names:
            here = _prepared(name)
            info = _pinned(self._entry.id, name) or (self._pin(here) if here else None)
            if info is None:
                info = find_dataset(name)  # says what is there, and how to prepare it
            elif here is None:
                _take(info, say)
            elif info.fingerprint != here.fingerprint:
                raise OtherData(
                    f"data set {name} on this host ({_host()}) is not what sweep {self._entry.id} began with: "
                    f"{_content(here)} in place of {_content(info)}",
                    hint=f"put that back: fersweep data prepare {info.source} --name {name} --replace; "
                    "or begin another sweep on what is here: fersweep create",
                )
            else:
                self._share(info, say)
            fingerprints[name] = info.fingerprint
        return fingerprints

    def _pin(self, info: "DatasetInfo") -> "DatasetInfo":
        """Pin what a name means; gives what it means, should another host have been first."""
        write_first(_pin_path(self._entry.id, info.name), info.model_dump_json(indent=2))
        return _pinned(self._entry.id, info.name) or info

    def _share(self, info: "DatasetInfo", say: Callable[[str], None]) -> None:
        """Share a prepared data set with hosts that do not see this host's cache."""
        several = self._entry.database.startswith("postgresql") or network_file_system(home()) is not None
        if several and network_file_system(cache_dir()) is None:
            share_data(info.name, say)


def data_names(space: Space) -> Sequence[str]:
    """The data sets a space can ask for."""
    given = space.parameters.get("data")
    if given is None:
        return (str(SharedConfig.model_fields["data"].default),)
    return tuple(str(value) for value in given.grid_values() or ())


def pinned_data(sweep_id: str, name: str) -> "DatasetInfo | None":
    """What a data set's name means to a sweep; None if it is not pinned, or the pin cannot be read."""
    with contextlib.suppress(InputError):
        return _pinned(sweep_id, name)
    return None


def share_data(name: str, say: Callable[[str], None]) -> bool:
    """Put a data set that is prepared here into fersweep's home, for hosts that share it; false if it is there.

    Raises:
        DataError: It is not prepared here, or is drawn by every host for itself.
        StorageError: The home cannot be written.
    """
    if name == SYNTHETIC:
        raise DataError(f"data set {name} is drawn by every host for itself", hint="there is nothing to share")
    from fer_sweep.data.cache import open_dataset
    from fer_sweep.data.sharing import share

    if not share(open_dataset(name), _shared()):
        return False
    say(f"data set {name} copied to {_shared()}, where hosts that have not prepared it take it from")
    return True


def _prepared(name: str) -> "DatasetInfo | None":
    from fer_sweep.data.cache import find_dataset, is_prepared

    return find_dataset(name) if is_prepared(name) else None


def _take(info: "DatasetInfo", say: Callable[[str], None]) -> None:
    from fer_sweep.data.sharing import is_shared, take

    if not is_shared(info, _shared()):
        raise DataError(
            f"data set {info.name}, {_content(info)}, is neither prepared on this host ({_host()}) nor in {_shared()}",
            hint=f"here: fersweep data prepare {info.source} --name {info.name}; or share it from a host that has it, "
            f"with the same FERSWEEP_HOME: fersweep data share {info.name}",
        )
    say(f"data set {info.name} is not prepared on this host ({_host()}): copying {_content(info)} from {_shared()}")
    take(info, _shared())


def _pinned(sweep_id: str, name: str) -> "DatasetInfo | None":
    from fer_sweep.data.dataset import DatasetInfo

    path = _pin_path(sweep_id, name)
    try:
        return DatasetInfo.read(path, name)
    except (OSError, ValueError) as error:  # pydantic's are ValueErrors too
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}); it says which content of {name} this sweep is trained on",
            hint="restore it; without it, the sweep takes what the next agent's host has",
        ) from error


def _pin_path(sweep_id: str, name: str) -> Path:
    return sweep_folder(sweep_id) / f"data-{name}.json"


def _shared() -> Path:
    return home() / "data"


def _content(info: "DatasetInfo") -> str:
    return f"{info.total:,} images from {info.source} ({info.fingerprint[:12]})"


def _host() -> str:
    return socket.gethostname()
