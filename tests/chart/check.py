"""Runs every check over every shape of the chart, prints a table, and fails if one does not hold."""

import os
import subprocess
import sys

import fresh
import graph
import rules
import schemas
from rendered import KUBERNETES, ROOT, SHAPES, Failed, files, helm


def lint(shape):
    for kubernetes in KUBERNETES:
        helm("lint", "--strict", "--quiet", ".", "--kube-version", f"{kubernetes}.0", *files(shape))


def a_wrong_value_is_refused():
    """values.schema.json is closed: a key that is misspelt, at any depth, stops the render."""
    wrong = [
        "replica=1",
        "image.tga=1",
        "config.plattform.x=1",
        "training.replicas=two",
        "workers.training.gpus=1",
        "networkPolicy.kafka.port=1",
        "tmpSize=lots",
    ]
    for value in wrong:
        try:
            helm("template", "tidemill", ".", "--kube-version", f"{KUBERNETES[0]}.0", "--set", value)
        except Failed:
            continue
        raise Failed(f"--set {value} is accepted")
    return f"{len(wrong)} mistakes"


def the_dockerfile_is_clean():
    done = subprocess.run([os.environ["TIDEMILL_HADOLINT"], str(ROOT / "images" / "Dockerfile")], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(done.stdout + done.stderr)


def main():
    if "--update" in sys.argv[1:]:
        fresh.update()
    each = [lint, schemas.every_object_is_valid, graph.the_policies_allow_the_graph_and_nothing_else, *rules.RULES]
    checks = [(shape, check) for shape in SHAPES for check in each]
    checks += [("", check) for check in (a_wrong_value_is_refused, fresh.made_files_are_fresh, the_dockerfile_is_clean)]
    passed = failed = 0
    print(f"{'values':<12} {'check':<52} result")
    for shape, check in checks:
        try:
            result = (check(shape) if shape else check()) or ""
            passed += 1
            verdict = f"ok  {result}"
        except Failed as failure:
            failed += 1
            verdict = f"FAILED  {failure}"
        print(f"{shape or '-':<12} {check.__name__.replace('_', ' '):<52} {verdict}", flush=True)
    print(f"\nchart: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
