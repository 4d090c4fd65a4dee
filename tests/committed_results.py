"""Compare the results in the working tree with the committed ones, after a full `dvc repro`.

    python -m tests.committed_results

Exit status 1 if a committed metric is not met within one per cent, which every processor
has to manage. Says whether the bytes are the same too, which is promised for processors
of the kind that made the committed ones.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TOLERANCE = 0.01


def committed(path: str) -> bytes:
    return subprocess.run(["git", "show", f"HEAD:{path}"], check=True, capture_output=True).stdout


def flat(metrics: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers by name, those a level deeper as DVC writes them: {"a": {"b": 1}} is {"a.b": 1}."""
    numbers: dict[str, float] = {}
    for key, value in metrics.items():
        numbers |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return numbers


def main() -> None:
    names = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD", "dvc.lock", "metrics", "plots"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    other = [name for name in names if Path(name).read_bytes() != committed(name)]
    failed = False
    for name in names:
        if name.startswith("metrics/"):
            before, now = flat(json.loads(committed(name))), flat(json.loads(Path(name).read_bytes()))
            for key in before.keys() | now.keys():
                if key not in before or key not in now or abs(now[key] - before[key]) > TOLERANCE * abs(before[key]):
                    print(f"{name}: {key} is {now.get(key)}, committed as {before.get(key)}")
                    failed = True
    print(f"metrics: {'DIFFERENT' if failed else f'the committed ones within {TOLERANCE:.0%}'}")
    print(f"bytes: {'another processor, differing in ' + ', '.join(other) if other else 'the committed ones'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
