"""The edges that NetworkPolicies allow are those of the code: who calls whom, who opens the stores, who starts workers."""

import re

from rendered import ROOT, SERVICES, component, expect, kind, pods, settings, values

GRPC, HTTP, METRICS = 7460, 7461, 9464
STORES = ["kafka", "redis", "postgres", "s3"]


def calls():
    """CALLS of the architecture test, as pairs."""
    text = (ROOT / "tests" / "architecture.rs").read_text()
    [table] = re.findall(r'const CALLS: &str = "\\\n(.*?)";', text, re.DOTALL)
    rows = (line.split(" -> ") for line in table.splitlines())
    return {(caller, callee) for caller, callees in rows for callee in callees.split(", ")}


def opens_the_stores():
    """Services whose main connects the platform, and so all of its parts."""
    return {service for service in SERVICES if "tidemill_platform::process::main" in main(service)}


def starts_workers():
    return {service for service in SERVICES if "worker_main" in main(service)}


def main(service):
    return (ROOT / "services" / service / "src" / "main.rs").read_text()


def expected(shape):
    """Every edge that should be there, as (from, to, port)."""
    if values(shape)["standalone"]["enabled"]:
        edges = {("test", "standalone", GRPC), ("clients", "standalone", HTTP), ("prometheus", "standalone", METRICS)}
        talkers, extra = {"standalone"}, set()
    else:
        edges = {(caller, callee, GRPC) for caller, callee in calls()}
        edges |= {(service, store, None) for service in opens_the_stores() for store in STORES}
        edges |= {(service, "kubeApi", None) for service in starts_workers()}
        edges |= {("prometheus", service, METRICS) for service in SERVICES}
        edges |= {("test", service, GRPC) for service in SERVICES}
        edges |= {("clients", "gateway", HTTP), ("worker", "worker", None), ("worker", "s3", None)}
        talkers, extra = {*SERVICES, "worker"}, {"ingestion"} if "extraEgress" in values(shape)["ingestion"] else set()
        if values(shape)["networkPolicy"]["clients"]["from"]:
            edges |= {("clients", service, GRPC) for service in SERVICES}
    if not kind(shape, "Pod"):
        edges = {edge for edge in edges if edge[0] != "test"}
    else:
        talkers = talkers | {"test"}
    edges |= {(one, "dns", None) for one in talkers} | {(one, "elsewhere", None) for one in extra}
    if settings(shape)["telemetry"]["otlp_endpoint"]:
        edges |= {(one, "otlp", None) for one in talkers - {"test"}}
    return edges


def selected(selector, names):
    """The components that a selector of pods means."""
    wanted = component(selector["matchLabels"])
    return {wanted} if wanted else set(names)


def outside(rule, policy):
    """What of the values a rule without pods stands for: the ports tell."""
    ports = sorted({one["port"] for one in rule["ports"]})
    for name in ["dns", *STORES, "otlp", "kubeApi"]:
        if sorted(policy[name]["ports"]) == ports and rule.get("to", []) == policy[name]["to"]:
            return name
    return "elsewhere"


def rendered(shape):
    """The edges that the policies allow: those inside need both ends' leave."""
    policy = values(shape)["networkPolicy"]
    names = {"worker" if name.endswith(" worker") else name for name, _, _ in pods(shape)}
    leaves, enters, edges = set(), set(), set()
    for one in kind(shape, "NetworkPolicy"):
        spec = one["spec"]
        expect(spec["policyTypes"] == ["Ingress", "Egress"], f"{one['metadata']['name']} denies one direction only")
        for here in selected(spec["podSelector"], names):
            for rule in spec.get("egress", []):
                inside = [peer["podSelector"] for peer in rule.get("to", []) if "podSelector" in peer and "namespaceSelector" not in peer]
                port = rule["ports"][0]["port"] if "ports" in rule else None
                leaves |= {(here, there, port) for selector in inside for there in selected(selector, names - {"test", "worker"} if here == "test" else names)}
                if not inside:
                    edges.add((here, outside(rule, policy), None))
            for rule in spec.get("ingress", []):
                port = rule["ports"][0]["port"] if "ports" in rule else None
                inside = [peer["podSelector"] for peer in rule.get("from", []) if "podSelector" in peer and "namespaceSelector" not in peer]
                enters |= {(there, here, port) for selector in inside for there in selected(selector, names)}
                if len(inside) < len(rule.get("from", [])) or not rule.get("from"):
                    edges.add(("prometheus" if port == METRICS else "clients", here, port))
    # A rule for a test pod that this shape does not render opens nothing.
    enters = {edge for edge in enters if edge[0] in names}
    expect(leaves == enters, f"one end alone allows {sorted(leaves ^ enters, key=str)}")
    return edges | leaves


def the_policies_allow_the_graph_and_nothing_else(shape):
    have, want = rendered(shape), expected(shape)
    expect(have >= want, f"the policies deny {sorted(want - have, key=str)}")
    expect(have <= want, f"the policies allow {sorted(have - want, key=str)}")
    denies = [one for one in kind(shape, "NetworkPolicy") if component(one["spec"]["podSelector"]["matchLabels"]) is None]
    expect(len(denies) == 1 and not denies[0]["spec"].keys() & {"ingress", "egress"}, "there is no policy that denies everything")
    return f"{len(have)} edges, {len(calls())} of them calls" if not values(shape)["standalone"]["enabled"] else f"{len(have)} edges"
