"""Compare the results in the working tree with the committed ones, after a full `dvc repro`.

    python -m tests.committed_results

Exit status 1 if a committed number, of metrics/*.json or plots/comparison.csv, is not met
within one per cent, which every processor has to manage. Says whether the bytes are the
same too, which is promised for processors of the kind that made the committed ones.
"""

import csv
import io
import json
import math
import subprocess
import sys
from pathlib import Path

TOLERANCE = 0.01


def committed(path: str) -> bytes:
    return subprocess.run(["git", "show", f"HEAD:{path}"], check=True, capture_output=True).stdout


def numbers(path: str, content: bytes) -> dict[str, float]:
    """The numbers of a file by name, such as "mse" or "deep / shallow: ratio"; none if nothing is promised of it."""
    if path.endswith(".json"):
        return dict(json.loads(content))
    if path == "plots/comparison.csv":
        rows = csv.DictReader(io.StringIO(content.decode()))
        return {f"{row['pair']}: {key}": float(row[key]) for row in rows for key in row if key != "pair"}
    return {}


def main() -> None:
    names = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD", "dvc.lock", "metrics", "plots"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    contents = {name: Path(name).read_bytes() if Path(name).exists() else None for name in names}
    other = [name for name, content in contents.items() if content != committed(name)]
    failed = False
    for name in other:
        before, now = numbers(name, committed(name)), numbers(name, contents[name] or b"{}")
        for key in [*before, *(key for key in now if key not in before)]:
            expected, found = before.get(key, math.nan), now.get(key, math.nan)
            if not abs(found - expected) <= TOLERANCE * abs(expected):
                print(f"{name}: {key} is {found}, committed as {expected}")
                failed = True
    print(f"numbers: {'DIFFERENT' if failed else f'the committed ones within {TOLERANCE:.0%}'}")
    print(f"bytes: {'another processor, differing in ' + ', '.join(other) if other else 'the committed ones'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
