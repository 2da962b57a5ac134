"""What the chart renders: the shapes it is used in, their values and their objects."""

import copy
import functools
import os
import pathlib
import subprocess
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "tidemill"
HELM = os.environ["TIDEMILL_HELM"]
SERVICES = ["ingestion", "preprocessing", "training", "evaluation", "registry", "inference", "pipeline", "gateway"]

# Each supported shape: values files, the later ones win.
SHAPES = {
    "default": [],
    "laptop": ["values-laptop.yaml"],
    "production": ["values-production.yaml"],
    "gpu": ["values-production.yaml", "values-gpu.yaml"],
    "plain": ["ci/plain-values.yaml"],
    "everything": ["values-production.yaml", "values-gpu.yaml", "ci/everything-values.yaml"],
}
# The oldest version that the chart takes is older than these; they span what is in use.
KUBERNETES = ["1.33", "1.35", "1.37"]


class Failed(Exception):
    """A check does not hold."""


def helm(*arguments):
    done = subprocess.run([HELM, *arguments], cwd=CHART, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed((done.stdout + done.stderr).strip())
    return done.stdout


def files(shape):
    return [argument for name in SHAPES[shape] for argument in ("-f", name)]


@functools.cache
def text(shape, kubernetes=KUBERNETES[0], tests=True):
    tests = [] if tests else ["--skip-tests"]
    return helm("template", "tidemill", ".", "--namespace", "tidemill", "--kube-version", f"{kubernetes}.0", *tests, *files(shape))


@functools.cache
def objects(shape, kubernetes=KUBERNETES[0]):
    return [one for one in yaml.safe_load_all(text(shape, kubernetes)) if one]


def kind(shape, *kinds):
    return [one for one in objects(shape) if one["kind"] in kinds]


@functools.cache
def values(shape):
    """The values as Helm merges them: maps key by key, anything else replaced, null removes."""

    def merge(under, over):
        for key, value in over.items():
            if value is None:
                under.pop(key, None)
            elif isinstance(value, dict) and isinstance(under.get(key), dict):
                merge(under[key], value)
            else:
                under[key] = value

    merged = {}
    for name in ["values.yaml", *SHAPES[shape]]:
        merge(merged, copy.deepcopy(yaml.safe_load((CHART / name).read_text())))
    return merged


def settings(shape):
    """The settings file that pods get."""
    [config] = [one for one in kind(shape, "ConfigMap") if "tidemill.toml" in one["data"]]
    return tomllib.loads(config["data"]["tidemill.toml"])


def worker_jobs(shape):
    """The Jobs that services start, by service."""
    for one in kind(shape, "ConfigMap"):
        if one["metadata"]["name"].endswith("-worker-jobs"):
            return {name.removesuffix(".yaml"): yaml.safe_load(job) for name, job in one["data"].items()}
    return {}


def component(labels):
    return labels.get("app.kubernetes.io/component")


def pods(shape):
    """Every pod that comes of a shape: (component, labels, spec)."""
    for one in kind(shape, "Deployment", "StatefulSet"):
        template = one["spec"]["template"]
        yield component(template["metadata"]["labels"]), template["metadata"]["labels"], template["spec"]
    for one in kind(shape, "Pod"):
        yield component(one["metadata"]["labels"]), one["metadata"]["labels"], one["spec"]
    for service, job in worker_jobs(shape).items():
        template = job["spec"]["template"]
        yield f"{service} worker", template["metadata"]["labels"], template["spec"]


def servers(shape):
    """The pods of services, or of the one that holds them all."""
    return [pod for pod in pods(shape) if pod[0] in SERVICES or pod[0] == "standalone"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def expect(holds, message):
    if not holds:
        raise Failed(message)
