"""What is committed and made from something else: k8s/ from the chart, the README's table from values.yaml."""

import re

import yaml
from rendered import CHART, ROOT, SHAPES, Failed, text, values

# k8s/<file>.yaml is this shape.
K8S = {"tidemill": "default", "laptop": "laptop", "production": "production", "gpu": "gpu"}
HEADER = """\
# Rendered from helm/tidemill{files} for namespace tidemill by `tests/chart/run --update`; never edited.
#   kubectl apply --server-side -f k8s/namespace.yaml && kubectl apply --server-side -n tidemill -f k8s/{name}.yaml
"""
START, END = "<!-- values: made by tests/chart/run --update -->", "<!-- end of values -->"


def k8s(name):
    shape = K8S[name]
    files = "".join(f" -f {file}" for file in SHAPES[shape])
    body = "\n".join(line.rstrip() for line in text(shape, tests=False).splitlines()) + "\n"
    # Helm renders an empty document where a template gives nothing.
    body = re.sub(r"---\n# Source: \S+\n(?=---\n|\Z)", "", body)
    return HEADER.format(files=files, name=name) + body


def table():
    """One row for each value that a `# --` comment explains."""
    rows, path, comment = [], [], None
    for line in (CHART / "values.yaml").read_text().splitlines():
        explained = re.match(r"\s*# -- (.*)", line)
        key = re.match(r"( *)([A-Za-z0-9_]+):(.*)", line)
        if explained:
            comment = explained[1]
        elif key:
            path = [*path[: len(key[1]) // 2], key[2]]
            if comment:
                value = values("default")
                for step in path:
                    value = value.get(step) if value else None
                shown = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).removesuffix("...\n").strip()
                shown = "(see values.yaml)" if len(shown) > 90 else f"`{shown}`"
                rows.append(f"| `{'.'.join(path)}` | {shown} | {comment} |".replace("||", "|"))
            comment = None
    return "\n".join(["| value | default | |", "| --- | --- | --- |", *rows])


def readme():
    page = (CHART / "README.md").read_text()
    before, rest = page.split(START)
    return f"{before}{START}\n{table()}\n{END}{rest.split(END)[1]}"


def made():
    """Every made file with the text it should have."""
    return {ROOT / "k8s" / f"{name}.yaml": k8s(name) for name in K8S} | {CHART / "README.md": readme()}


def update():
    for file, should in made().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(should)


def made_files_are_fresh():
    stale = [str(file.relative_to(ROOT)) for file, should in made().items() if not file.exists() or file.read_text() != should]
    if stale:
        raise Failed(f"{', '.join(stale)}: stale; run tests/chart/run --update")
    return f"{len(made())} files"
