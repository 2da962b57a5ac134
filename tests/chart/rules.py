"""What every pod, Service and setting must keep to, in every shape."""

import json
import re
import tomllib

from rendered import CHART, ROOT, SERVICES, component, containers, expect, kind, pods, servers, settings, values, worker_jobs

USER = 65532
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def amount(quantity):
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity)).groups()
    return float(number) * UNITS[unit]


def pods_are_restricted(shape):
    """Pod Security Standard `restricted`, a read-only root, and a user of our own."""
    for name, _, spec in pods(shape):
        expect(not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "hostUsers"}, f"{name} shares the host")
        own = spec["securityContext"]
        expect(own["runAsNonRoot"] and own["runAsUser"] == own["runAsGroup"] == USER, f"{name} is not user {USER}")
        expect(own["seccompProfile"] == {"type": "RuntimeDefault"}, f"{name} has no seccomp profile")
        for volume in spec.get("volumes", []):
            expect(volume.keys() - {"name"} <= {"projected", "emptyDir"}, f"{name} mounts {volume}")
        for container in containers(spec):
            context = container["securityContext"]
            expect(context == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, f"{name}: {context}")
            expect(not any("hostPort" in port for port in container.get("ports", [])), f"{name} takes a port of the host")
    return f"{len(list(pods(shape)))} pods"


def only_launchers_have_a_token(shape):
    """One ServiceAccount a service; training and evaluation may manage Jobs, and nothing wider."""
    launchers = {"training", "evaluation"} if worker_jobs(shape) else set()
    for name, _, spec in pods(shape):
        expect(spec["automountServiceAccountToken"] == (name in launchers), f"{name}: automountServiceAccountToken is {spec['automountServiceAccountToken']}")
        if name in SERVICES:
            expect(spec["serviceAccountName"] == f"tidemill-{name}", f"{name} runs as {spec['serviceAccountName']}")
    expect(all(one["automountServiceAccountToken"] is False for one in kind(shape, "ServiceAccount")), "an account gives its token to any pod")
    rules = [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "list", "watch", "delete", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "delete", "patch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    expect(not kind(shape, "ClusterRole", "ClusterRoleBinding"), "a role for the whole cluster")
    expect({component(one["metadata"]["labels"]) for one in kind(shape, "Role")} == launchers, "roles for others than the launchers")
    for role in kind(shape, "Role"):
        expect(role["rules"] == rules, f"the role {role['metadata']['name']} grants {role['rules']}")


def probes_are_apart(shape):
    """Started and alive: it answers. Ready: it can serve. Neither waits for the other."""
    for name, _, spec in servers(shape):
        [container] = spec["containers"]
        paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")}
        expect(paths == {"startup": "/livez", "readiness": "/readyz", "liveness": "/livez"}, f"{name} is probed at {paths}")
        alive, ready = container["livenessProbe"], container["readinessProbe"]
        slowest = alive["periodSeconds"] * alive["failureThreshold"]
        expect(slowest > 4 * ready["periodSeconds"] * ready["failureThreshold"], f"{name} is killed about as soon as it is unready")


def pods_leave_in_time(shape):
    server = settings(shape)["server"]
    grace = server["drain_delay_seconds"] + server["shutdown_grace_seconds"] + 5
    for name, _, spec in servers(shape):
        expect(spec["terminationGracePeriodSeconds"] == grace, f"{name} gets {spec['terminationGracePeriodSeconds']} s, and needs {grace}")
    for one in kind(shape, "Deployment"):
        expect(one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, f"a roll-out takes {one['metadata']['name']} away")


def several_replicas_have_a_budget(shape):
    """A budget where there are several pods, none where there is one: a node could not be drained."""
    budgets = {component(one["spec"]["selector"]["matchLabels"]) for one in kind(shape, "PodDisruptionBudget")}
    several = set()
    for service in SERVICES if kind(shape, "Deployment") else []:
        own = values(shape)[service]
        if (own["autoscaling"]["min"] if own["autoscaling"]["enabled"] else own["replicas"]) > 1:
            several.add(service)
    expect(budgets == several, f"budgets for {sorted(budgets)}, several pods of {sorted(several)}")
    return f"{len(budgets)} budgets"


def storage_is_bounded(shape):
    """Every scratch folder has a size, and the pod's limit holds them all; what keeps state in memory gets what it asked for."""
    for name, _, spec in pods(shape):
        scratch = 0
        for volume in spec.get("volumes", []):
            if "emptyDir" in volume:
                scratch += amount(volume["emptyDir"]["sizeLimit"])
        for container in containers(spec):
            asked, limits = container["resources"]["requests"], container["resources"]["limits"]
            expect(scratch <= amount(limits["ephemeral-storage"]), f"{name}: its folders hold more than its limit")
            expect(amount(asked["memory"]) <= amount(limits["memory"]), f"{name} asks for more memory than its limit")
            if name in ("inference", "standalone") or name.endswith(" worker"):
                expect(asked["memory"] == limits["memory"], f"{name}: memory asked for and limit differ")


def secrets_are_files_by_reference(shape):
    """The chart makes no Secret; each path of a secret in the settings is mounted; workers get the artifacts' credentials alone."""
    expect(not kind(shape, "Secret"), "the chart makes a Secret")
    named = set(re.findall(r"/etc/tidemill/(secrets/[^?&\"]+)", json.dumps(settings(shape))))
    for name, _, spec in [*servers(shape), *(pod for pod in pods(shape) if pod[0].endswith(" worker"))]:
        sources = [source for volume in spec["volumes"] if volume["name"] == "config" for source in volume["projected"]["sources"]]
        mounted = {item["path"] for source in sources if "secret" in source for item in source["secret"]["items"]}
        if name.endswith(" worker"):
            expect(all(path.startswith("secrets/s3/") for path in mounted), f"{name} gets {sorted(mounted)}")
        else:
            sources = {path for path in mounted if path.startswith("sources/")}
            expect(bool(sources) == (name in ("ingestion", "standalone") and bool(values(shape)["sources"])), f"{name} gets {sorted(sources)}")
            expect(named <= mounted, f"{name} lacks {sorted(named - mounted)}")
        for variable in spec["containers"][0].get("env", []):
            secret = re.search("KEY|PASSWORD|SECRET|TOKEN", variable["name"])
            expect(not secret or "secretKeyRef" in variable.get("valueFrom", {}), f"{name}: {variable['name']} is spelled out")
    return f"{len(named)} files"


def every_setting_exists(shape):
    """A key that the chart renders is one that the code documents."""
    known = {}
    for file in [*ROOT.glob("libs/*/src/default.toml"), *ROOT.glob("services/*/src/default.toml")]:
        for section, keys in tomllib.loads(file.read_text()).items():
            known.setdefault(section, set()).update(keys)
    unknown = [f"{section}.{key}" for section, keys in settings(shape).items() for key in keys if key not in known.get(section, ())]
    expect(not unknown, f"no service has the settings {', '.join(unknown)}")
    return f"{sum(map(len, settings(shape).values()))} keys"


def addresses_lead_somewhere(shape):
    """Each selector finds pods, each scaler its Deployment, each address its Service, each port of a URL an opening in the policy."""
    labels = [pod[1] for pod in pods(shape)]
    for one in kind(shape, "Service", "PodDisruptionBudget"):
        selector = one["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        expect(any(selector.items() <= own.items() for own in labels), f"{one['kind']} {one['metadata']['name']} selects no pod")
    deployments = {one["metadata"]["name"] for one in kind(shape, "Deployment")}
    for one in kind(shape, "ScaledObject", "HorizontalPodAutoscaler"):
        expect(one["spec"]["scaleTargetRef"]["name"] in deployments, f"{one['metadata']['name']} scales nothing")
    services = {one["metadata"]["name"] for one in kind(shape, "Service")}
    for address in settings(shape).get("services", {}).values():
        host = re.fullmatch(r"https?://([^:]+):7460", address) if "://" in address else None
        expect(not host or host[1] in services, f"nothing is called {address}")
    platform, policy = settings(shape)["platform"], values(shape)["networkPolicy"]
    for part, url in {"kafka": "eventlog_url", "redis": "cache_url", "postgres": "resources_url", "s3": "artifacts_url"}.items():
        authority = re.sub(r"\?.*", "", platform[url]) + " " + "".join(re.findall(r"endpoint=([^&]*)", platform[url]))
        for port in re.findall(r":(\d+)", authority):
            expect(int(port) in policy[part]["ports"], f"networkPolicy.{part} does not open port {port} of platform.{url}")
    for port in re.findall(r":(\d+)", settings(shape)["telemetry"]["otlp_endpoint"]):
        expect(int(port) in policy["otlp"]["ports"], f"networkPolicy.otlp does not open port {port} of telemetry.otlp_endpoint")


def scalers_follow_the_topics(shape):
    """A scaler's topic is one that its consumer group reads."""
    table = (ROOT / "libs/proto/src/topics.rs").read_text()
    read = {topic: consumers for topic, consumers in re.findall(r'= "(tidemill\.[a-z.]+)", "[^"]+", "[a-z]+" => \[([^\]]*)\]', table)}
    prefix = "".join(re.findall(r"topic_prefix=([^&]*)", settings(shape)["platform"]["eventlog_url"]))
    scaled = 0
    for one in kind(shape, "ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            expect(all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA takes strings alone")
            if trigger["type"] == "kafka":
                topic, group = trigger["metadata"]["topic"], trigger["metadata"]["consumerGroup"]
                expect(topic.startswith(prefix) and group.startswith(prefix), f"{topic} or {group} lacks the prefix {prefix}")
                expect(f'"{group.removeprefix(prefix)}"' in read[topic.removeprefix(prefix)], f"{group} does not read {topic}")
                scaled += 1
    return f"{scaled} by lag, {len(kind(shape, 'ScaledObject')) - scaled} by query, {len(kind(shape, 'HorizontalPodAutoscaler'))} HPAs"


def gpus_go_to_inference_and_workers(shape):
    """A pod with a GPU has the CUDA image, a pool and a toleration for its taint; no other pod has any of these."""
    count = 0
    for name, _, spec in pods(shape):
        [container, *_] = spec["containers"]
        gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        expect(not gpu or name == "inference" or name.endswith(" worker"), f"{name} has a GPU")
        expect(gpu == container["image"].endswith("-cuda"), f"{name} runs {container['image']}")
        expect(gpu == any(one.get("key") == "nvidia.com/gpu" for one in spec.get("tolerations", [])), f"{name} and the GPU's taint")
        expect(not gpu or spec.get("nodeSelector"), f"{name} has a GPU and no pool")
        count += gpu
    priorities = {one["metadata"]["name"].rsplit("-", 1)[1]: one["value"] for one in kind(shape, "PriorityClass")}
    if priorities:
        expect(priorities["inference"] > priorities["training"] > priorities["evaluation"], f"priorities are {priorities}")
    return f"{count} pods with GPUs"


def workers_survive_preemption(shape):
    """A worker's Job counts no preemption, is never two pods of one rank, and runs a rank for each index."""
    for service, job in worker_jobs(shape).items():
        spec = job["spec"]
        [rule] = spec["podFailurePolicy"]["rules"]
        expect(rule == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}, f"{service}: {rule}")
        expect(spec["template"]["spec"]["restartPolicy"] == "Never" and spec["backoffLimit"] == 0, f"{service}: the Job restarts by itself")
        expect(spec["completionMode"] == "Indexed" and spec["podReplacementPolicy"] == "Failed", f"{service}: two pods of one rank")
        for container in containers(spec["template"]["spec"]):
            amounts = [one for kind in container["resources"].values() for one in kind.values()]
            expect(all(isinstance(one, str) for one in amounts), f"{service}: the launcher reads quantities as texts")
        [service_of_ranks] = [one for one in kind(shape, "Service") if one["metadata"]["name"] == spec["template"]["spec"]["subdomain"]]
        names = service_of_ranks["spec"]
        expect(names["clusterIP"] == "None" and names["publishNotReadyAddresses"], f"{service}: ranks have no names of their own before they are ready")
        expect(names["selector"].items() <= spec["template"]["metadata"]["labels"].items(), f"{service}: ranks are not found by their Service")
        env = {one["name"]: one.get("value") for one in spec["template"]["spec"]["containers"][0]["env"]}
        expect(env["MASTER_PORT"] == str(values(shape)["workers"]["ranksPort"]), f"{service}: ranks meet at port {env['MASTER_PORT']}")
        queue = job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name", "")
        expect(queue == values(shape)["workers"]["queue"], f"{service} waits in {queue!r}")


def the_chart_has_the_version_of_the_code(shape):
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    for one in kind(shape, "Deployment", "StatefulSet"):
        expect(one["metadata"]["labels"]["app.kubernetes.io/version"] == version, f"Chart.yaml is not of version {version}")


def templates_stay_small(shape):
    for file in (CHART / "templates").rglob("*.yaml"):
        expect(len(file.read_text().splitlines()) < 60, f"{file.name} is long")
    expect(len((CHART / "values.yaml").read_text().splitlines()) < 200, "values.yaml has 200 lines or more")


def routes_name_services(shape):
    """A route's gRPC service is one of proto/."""
    for one in kind(shape, "GRPCRoute"):
        for rule in one["spec"]["rules"]:
            package, _, service = rule["matches"][0]["method"]["service"].rpartition(".")
            file = ROOT / "proto" / package.replace(".", "/") / f"{package.split('.')[1]}_service.proto"
            expect(f"service {service} {{" in file.read_text(), f"{file.name} has no {service}")


RULES = [
    pods_are_restricted, only_launchers_have_a_token, probes_are_apart, pods_leave_in_time, several_replicas_have_a_budget, storage_is_bounded,
    secrets_are_files_by_reference, every_setting_exists, addresses_lead_somewhere, scalers_follow_the_topics, gpus_go_to_inference_and_workers,
    workers_survive_preemption, routes_name_services, the_chart_has_the_version_of_the_code,
    templates_stay_small,
]  # fmt: skip
