"""``python -m tests.support.eager_mirror COMMAND ...``: fersweep whose mirrors copy without a rest."""

from functools import partialmethod

from fer_sweep.cli import main
from fer_sweep.mirror.copying import Mirror

if __name__ == "__main__":
    Mirror.__init__ = partialmethod(Mirror.__init__, every_s=0.001, rest_s=0.0)  # type: ignore[method-assign,assignment]
    main()
