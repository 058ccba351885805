"""The Kubernetes manifests: they build, follow the schemas, and have no dangling references."""

import kubernetes_validate
from tools import OVERLAYS, objects, pods

# Custom resources have no schema in Kubernetes itself.
FOREIGN = ("monitoring.coreos.com/v1",)


def overlays():
    return [f"overlays/{name}" for name in OVERLAYS]


def follow_the_schemas():
    """k8s: each overlay builds and follows the schemas of Kubernetes."""
    version = kubernetes_validate.latest_version()
    for path in overlays():
        for made in objects(path):
            if made["apiVersion"] in FOREIGN:
                continue
            try:
                kubernetes_validate.validate(made, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = "/".join(str(step) for step in error.path)
                yield f"{path}: {made['kind']} {made['metadata']['name']} {where}: {error.message}"


def runs_survive():
    """k8s: deleting an overlay keeps the volume of the runs."""
    for path in overlays():
        made = objects(path)
        if any(one["kind"] in ("Namespace", "PersistentVolumeClaim") for one in made):
            yield f"{path}: `kubectl delete -k` would delete the runs with it"
        for one in made:
            if one["kind"] == "StatefulSet" and one["spec"].get("volumeClaimTemplates"):
                policy = one["spec"].get("persistentVolumeClaimRetentionPolicy", {})
                if policy.get("whenDeleted", "Retain") != "Retain":
                    yield f"{path}: {one['metadata']['name']} does not retain its claims"


def changes_roll_out():
    """k8s: a change of a template replaces pods that are not ready."""
    for path in overlays():
        for one in objects(path):
            if one["kind"] == "StatefulSet" and one["spec"].get("podManagementPolicy") != "Parallel":
                yield f"{path}: {one['metadata']['name']} waits for its pods to become ready"


def components_build():
    """k8s: the ServiceMonitor builds and selects the coordinator."""
    (monitor,) = objects("components/service-monitor")
    selector = monitor["spec"]["selector"]["matchLabels"]
    services = [made for made in objects("overlays/cpu") if made["kind"] == "Service"]
    chosen = [made for made in services if selector.items() <= made["metadata"]["labels"].items()]
    if [made["metadata"]["name"] for made in chosen] != ["coordinator"]:
        yield f"the ServiceMonitor selects {len(chosen)} services, not the coordinator's"
    for endpoint in monitor["spec"]["endpoints"]:
        if all(endpoint["port"] != port["name"] for port in chosen[0]["spec"]["ports"]):
            yield f"the coordinator's service has no port {endpoint['port']}"


def references_resolve():
    """k8s: volumes, secrets, services and selectors refer to existing objects."""
    for path in overlays():
        made = objects(path)
        names = {(one["kind"], one["metadata"]["name"]) for one in made}
        labels = [template["metadata"]["labels"] for _, template in pods(path)]
        for one in made:
            spec, name = one.get("spec", {}), f"{one['kind']} {one['metadata']['name']}"
            if one["metadata"].get("namespace", "finetune") != "finetune":
                yield f"{path}: {name} is in another namespace"
            if one["kind"] == "StatefulSet":
                if ("Service", spec["serviceName"]) not in names:
                    yield f"{path}: {name} has no service {spec['serviceName']}"
                template = spec["template"]["spec"]
                volumes = {volume["name"]: volume for volume in template.get("volumes", [])}
                claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
                mounted = {
                    mount["name"]
                    for container in template["containers"]
                    for mount in container.get("volumeMounts", [])
                }
                if mounted != set(volumes) | claims:
                    yield f"{path}: {name} mounts {sorted(mounted)}, has {sorted(set(volumes) | claims)}"
                for volume in volumes.values():
                    secret = volume.get("secret", {}).get("secretName")
                    if secret and ("Secret", secret) not in names:
                        yield f"{path}: {name} has no secret {secret}"
            selector = spec.get("podSelector", spec.get("selector", {}))
            wanted = selector.get("matchLabels", selector)
            if not any(wanted.items() <= have.items() for have in labels):
                yield f"{path}: {name} selects no pod"


CHECKS = [
    follow_the_schemas,
    runs_survive,
    changes_roll_out,
    components_build,
    references_resolve,
]
