"""What the benches share: runs that end in one line of JSON, and the table of both sides."""

import datetime
import json
import os
import pathlib
import platform
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def run(command):
    """The last line that a command prints, as JSON."""
    out = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.splitlines()[-1])


def row(name, ours, peer, unit, higher_is_better=False):
    """A figure of both sides; the ratio is above 1 where ours is larger."""
    ratio = ours / peer if peer else None
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit, "higher_is_better": higher_is_better}


def processor():
    names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def show(bench, rows, conditions):
    """Prints the rows, and writes them to target/bench/<bench>.json."""
    print(f"{processor()}; {conditions}; {datetime.date.today()}")
    print(f"{'name':<54} {'ours':>12} {'peer':>12} {'ratio':>7}  unit")
    for figure in rows:
        peer, ratio = (f"{figure[key]:{form}}" if figure[key] is not None else "-" for key, form in (("peer", ",.4f"), ("ratio", ".3f")))
        print(f"{figure['name']:<54} {figure['ours']:>12,.4f} {peer:>12} {ratio:>7}  {figure['unit']}")
    path = TARGET / "bench" / f"{bench}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"written to {path}")
