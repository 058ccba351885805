"""The rules of the restricted Pod Security profile of Kubernetes, each with a pod that violates it.

The names are those of the Pod Security Standards; the restricted profile includes the baseline. Each
rule must reject its example, so that no rule passes because it checks nothing.
"""

from tools import OVERLAYS, pods

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def containers(spec):
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(kind) or []


def contexts(spec):
    """The security contexts of the pod and of each container."""
    yield spec.get("securityContext") or {}
    for container in containers(spec):
        yield container.get("securityContext") or {}


def of_all(spec, key, good):
    """Whether the value of each container is good; without one, that of the pod counts."""
    shared = (spec.get("securityContext") or {}).get(key)
    own = [(container.get("securityContext") or {}).get(key, shared) for container in containers(spec)]
    return all(good(value) for value in own)


def profile(value, allowed):
    return (value or {}).get("type") in allowed


def handlers(container):
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield container.get(probe) or {}
    yield from (container.get("lifecycle") or {}).values()


def hosts(container):
    for handler in handlers(container):
        for kind in ("httpGet", "tcpSocket"):
            yield (handler.get(kind) or {}).get("host")


def context(**values):
    """An example: a pod whose container has this security context."""
    return {"containers": [{"securityContext": values}]}


# The name, a function that says whether the spec of a pod follows the rule, and one that does not.
RULES = [
    ("HostProcess",
     lambda spec: not any((one.get("windowsOptions") or {}).get("hostProcess") for one in contexts(spec)),
     context(windowsOptions={"hostProcess": True})),
    ("Host Namespaces",
     lambda spec: not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
     {"containers": [], "hostIPC": True}),
    ("Privileged Containers",
     lambda spec: not any(one.get("privileged") for one in contexts(spec)),
     context(privileged=True)),
    ("HostPath Volumes",
     lambda spec: not any("hostPath" in volume for volume in spec.get("volumes") or []),
     {"containers": [], "volumes": [{"name": "a", "hostPath": {"path": "/"}}]}),
    ("Host Ports",
     lambda spec: not any(port.get("hostPort") for one in containers(spec) for port in one.get("ports") or []),
     {"containers": [{"ports": [{"hostPort": 80}]}]}),
    ("Host Probes / Lifecycle Hooks",
     lambda spec: not any(host for one in containers(spec) for host in hosts(one)),
     {"containers": [{"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]}),
    ("AppArmor",
     lambda spec: all("appArmorProfile" not in one or profile(one["appArmorProfile"], {"RuntimeDefault", "Localhost"})
                      for one in contexts(spec)),
     context(appArmorProfile={"type": "Unconfined"})),
    ("SELinux",
     lambda spec: all((options.get("type") or "") in SELINUX and not options.get("user") and not options.get("role")
                      for options in ((one.get("seLinuxOptions") or {}) for one in contexts(spec))),
     context(seLinuxOptions={"type": "spc_t"})),
    ("/proc Mount Type",
     lambda spec: all(one.get("procMount", "Default") == "Default" for one in contexts(spec)),
     context(procMount="Unmasked")),
    ("Sysctls",
     lambda spec: all(one["name"] in SYSCTLS for one in (spec.get("securityContext") or {}).get("sysctls") or []),
     {"containers": [], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
    ("Volume Types",
     lambda spec: all(set(volume) - {"name"} <= VOLUMES for volume in spec.get("volumes") or []),
     {"containers": [], "volumes": [{"name": "a", "nfs": {"server": "a", "path": "/"}}]}),
    ("Privilege Escalation",
     lambda spec: all((one.get("securityContext") or {}).get("allowPrivilegeEscalation") is False
                      for one in containers(spec)),
     context()),
    ("Running as Non-root",
     lambda spec: of_all(spec, "runAsNonRoot", lambda value: value is True),
     context()),
    ("Running as Non-root user",
     lambda spec: all(one.get("runAsUser") != 0 for one in contexts(spec)),
     context(runAsUser=0)),
    ("Seccomp",
     lambda spec: of_all(spec, "seccompProfile", lambda value: profile(value, {"RuntimeDefault", "Localhost"})),
     context()),
    ("Capabilities",
     lambda spec: all("ALL" in (held.get("drop") or []) and set(held.get("add") or []) <= {"NET_BIND_SERVICE"}
                      for held in (((one.get("securityContext") or {}).get("capabilities") or {})
                                   for one in containers(spec))),
     context(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]})),
]


def the_rules_reject_their_examples():
    """k8s: each rule of the restricted profile rejects its example."""
    return [f"{name} accepts its example" for name, keeps, example in RULES if keeps(example)]


def pods_follow_the_profile():
    """k8s: all pods follow the restricted profile, with a read-only root file system."""
    for overlay in OVERLAYS:
        for pod, template in pods(f"overlays/{overlay}"):
            spec = template["spec"]
            for name, keeps, _ in RULES:
                if not keeps(spec):
                    yield f"{overlay}: {pod} violates {name}"
            for container in containers(spec):
                if not container["securityContext"].get("readOnlyRootFilesystem"):
                    yield f"{overlay}: {pod} has a writable root file system"
            if spec.get("automountServiceAccountToken") is not False:
                yield f"{overlay}: {pod} mounts a token for the Kubernetes API"


CHECKS = [the_rules_reject_their_examples, pods_follow_the_profile]
