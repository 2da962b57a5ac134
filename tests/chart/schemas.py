"""Every rendered object against the schema of its kind: Kubernetes' own, and the definitions of custom resources."""

import functools
import os
import pathlib

import jsonschema
import kubernetes_validate
import yaml
from rendered import KUBERNETES, Failed, objects, worker_jobs


class Loader(yaml.CSafeLoader):
    """YAML where a lone `=` is a text, as in YAML 1.2."""


Loader.add_constructor("tag:yaml.org,2002:value", Loader.construct_scalar)
DEFINITIONS = pathlib.Path(os.environ["TIDEMILL_DEFINITIONS"])


def closed(schema):
    """A definition's schema as the API server reads it: a field that it does not name is refused."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {key: {name: closed(one) for name, one in value.items()} if key == "properties" else closed(value) for key, value in schema.items()}
    if "properties" in made and "additionalProperties" not in made and not made.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


@functools.cache
def definitions():
    found = {}
    for file in DEFINITIONS.glob("*.yaml"):
        for definition in yaml.load_all(file.read_text(), Loader):
            if not definition or definition.get("kind") != "CustomResourceDefinition":
                continue
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = closed(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = jsonschema.Draft202012Validator(schema)
    return found


def validate(one, kubernetes):
    name = f"{one['kind']} {one['metadata'].get('name', '(unnamed)')}"
    custom = definitions().get((one["apiVersion"], one["kind"]))
    if custom:
        for error in custom.iter_errors(one):
            raise Failed(f"{name}: {error.json_path}: {error.message}")
        return
    try:
        kubernetes_validate.validate(one, kubernetes, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise Failed(f"{name} (Kubernetes {kubernetes}): {error.message}") from None


def every_object_is_valid(shape):
    checked = 0
    for kubernetes in KUBERNETES:
        for one in [*objects(shape, kubernetes), *worker_jobs(shape).values()]:
            validate(one, kubernetes)
            checked += 1
    return f"{checked} objects, Kubernetes {', '.join(KUBERNETES)}"
