"""The dashboard's structure: what Grafana expects of a dashboard that is provisioned."""

import itertools
import json
import re

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.service.observability.tools import DEPLOY, dashboard, panels

# Grafana knows them; its library of types does not.
UNTYPED = {".annotations.list.titleFormat"}


def test_grafanas_own_types_hold_all_of_it() -> None:
    plugins.register_default_plugins()
    written = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard())))
    assert set(_lost(dashboard(), written)) <= UNTYPED


def _lost(before: object, after: object, where: str = "") -> list[str]:
    """Return the paths of what does not come back."""
    if isinstance(before, dict) and isinstance(after, dict):
        kept = [key for key, value in before.items() if value is not None]
        return [path for key in kept for path in _lost(before[key], after.get(key), f"{where}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [path for one, other in zip(before, after, strict=True) for path in _lost(one, other, where)]
    return [] if before == after else [where]


def test_panels_have_their_own_ids_and_places() -> None:
    found = panels()
    for key in ("id", "title"):
        assert len({panel[key] for panel in found}) == len(found)
    for panel in found:
        place = panel["gridPos"]
        assert place["w"] > 0, panel["title"]
        assert place["h"] > 0, panel["title"]
        assert 0 <= place["x"] <= 24 - place["w"], panel["title"]
    for one, other in itertools.combinations(found, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (one["title"], other["title"])


def test_every_panel_says_what_it_shows_and_where_from() -> None:
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for source in (panel, *panel["targets"]):
            assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_variables_are_declared_and_used() -> None:
    whole = dashboard()
    declared = {variable["name"]: variable for variable in whole["templating"]["list"]}
    text = json.dumps([whole["panels"], whole["annotations"]])
    used = set(re.findall(r"\$\{?([a-zA-Z]\w*)", text))
    assert used == set(declared)
    assert (declared["datasource"]["type"], declared["datasource"]["query"]) == ("datasource", "prometheus")


def test_provisioning_names_the_data_source_and_the_folder() -> None:
    whole = dashboard()
    assert whole["schemaVersion"] >= 36
    assert whole["uid"] == "neurofv"
    assert "id" not in whole  # Grafana's own, of one installation
    source = (DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    (variable,) = (found for found in whole["templating"]["list"] if found["type"] == "datasource")
    assert f"uid: {variable['current']['value']}\n" in source
    assert "type: prometheus\n" in source
    provider = (DEPLOY / "grafana" / "provisioning" / "dashboards" / "neurofv.yml").read_text()
    assert "path: /var/lib/grafana/dashboards\n" in provider
