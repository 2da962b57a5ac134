"""Dashboards and rules speak only of metrics that exist; the operators' guide says what to do at every alert, and every alert has a test
that it fires and one that it does not."""

import glob
import json
import re
import sys

import yaml

NAME = re.compile(r"\b(?:tidemill_|gen_ai_server_|process_|tidemill:|vllm:)[a-z0-9_:]+")
SUFFIX = re.compile(r"_(bucket|sum|count)$")

mistakes = []
page = open("docs/metrics.md").read()
kinds = dict(re.findall(r"^\| `([^`]+)` \| (\w+) \|", page, re.M))
rules = [rule for group in yaml.safe_load(open("helm/tidemill/files/rules.yaml"))["groups"] for rule in group["rules"]]
recorded = {rule["record"] for rule in rules if "record" in rule}


def check(where, expression):
    for name in NAME.findall(expression):
        family = SUFFIX.sub("", name)
        if name in recorded or kinds.get(name) in ("counter", "gauge") or kinds.get(family) == "histogram":
            continue
        mistakes.append(f"{where}: {name} is neither in docs/metrics.md nor recorded")


for rule in rules:
    check(rule.get("alert", rule.get("record")), rule["expr"])
panels = 0
for path in sorted(glob.glob("helm/tidemill/files/dashboards/*.json")):
    for panel in json.load(open(path))["panels"]:
        panels += panel["type"] != "row"
        for target in panel.get("targets", []):
            check(f"{path}: {panel['title']}", target["expr"])

fires, stays_quiet = set(), set()
for path in sorted(glob.glob("tests/alerts/*.yaml")):
    for test in yaml.safe_load(open(path))["tests"]:
        for case in test["alert_rule_test"]:
            (fires if case["exp_alerts"] else stays_quiet).add(case["alertname"])
headings = set(re.findall(r"^### (\w+)$", open("docs/operations.md").read(), re.M))
alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
for name, rule in alerts.items():
    if rule["annotations"].get("runbook") != f"docs/operations.md#{name.lower()}":
        mistakes.append(f"{name}: its runbook should be docs/operations.md#{name.lower()}")
    if name not in headings:
        mistakes.append(f"{name}: docs/operations.md does not say what to do")
    if name not in fires or name not in stays_quiet:
        mistakes.append(f"{name}: tests/alerts needs a case in which it fires and one in which it does not")
for name in (fires | stays_quiet) - set(alerts):
    mistakes.append(f"{name}: tests/alerts tests it, and there is no such alert")

print("\n".join(mistakes) or f"{len(alerts)} alerts, {len(recorded)} recorded series, {panels} panels: all of metrics that exist")
sys.exit(bool(mistakes))
