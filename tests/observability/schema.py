"""Whether the dashboards follow Grafana's schema: reading them into the types of its foundation SDK
and writing them again must not lose anything."""

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

# Keys of an annotation that belong to the Prometheus plugin and not to the schema of dashboards.
OPEN = {"step", "titleFormat"}


def check(folder):
    register_default_plugins()
    for path in sorted(folder.glob("*.json")):
        given = json.loads(path.read_text())
        known = json.loads(json.dumps(Dashboard.from_json(json.loads(path.read_text())), cls=JSONEncoder))
        lost = list(differences(given, known, path.name))
        assert not lost, f"not in Grafana's schema: {lost}"


def differences(given, known, place):
    if isinstance(given, dict):
        for key, value in given.items():
            if key in OPEN and "/annotations/" in place:
                continue
            if not isinstance(known, dict) or key not in known:
                yield f"{place}/{key}"
            else:
                yield from differences(value, known[key], f"{place}/{key}")
    elif isinstance(given, list):
        if len(given) != len(known):
            yield place
        for at, (one, other) in enumerate(zip(given, known)):
            yield from differences(one, other, f"{place}/{at}")
    elif given != known:
        yield place
