"""Do what the forkserver does before it forks, then train a configuration (JSON) in a folder; print what that took."""

import importlib
import json
import sys
from pathlib import Path

import fer_sweep.training.preload  # noqa: F401 comes first: what it sets counts for libraries imported after it
from fer_sweep.config.trial import parse_trial_json
from fer_sweep.training.loop import train

if __name__ == "__main__":
    config = parse_trial_json(sys.argv[1])
    importlib.import_module(f"fer_sweep.models.{config.model}")
    preloaded = set(sys.modules)
    threads = len(list(Path("/proc/self/task").iterdir()))
    cuda = sys.modules["torch"].cuda.is_initialized()
    train(config, Path(sys.argv[2]))
    imported = sorted(set(sys.modules) - preloaded)
    print(json.dumps({"preloaded": sorted(preloaded), "threads": threads, "cuda": cuda, "imported": imported}))
