"""A server with the part of Grafana's HTTP API that the test asks: health, dashboards from files,
and queries, which go to a real Prometheus. Its page of a dashboard has the titles of the panels
only. It tests the test, where there is no Grafana."""

import http.server
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from html import escape


class Fake:
    """A server on a free port; `dashboards` from uid to content, `token` if it admits no others."""

    def __init__(self, prometheus, dashboards, token=None):
        self.prometheus, self.dashboards, self.token = prometheus, dashboards, token
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                fake.answer(self, None)

            def do_POST(self):
                fake.answer(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler, body):
        path = urllib.parse.urlparse(handler.path).path
        if path == "/api/health":
            return reply(handler, 200, {"database": "ok", "version": "fake"})
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            return reply(handler, 401, {"message": "Unauthorized"})
        if path.startswith("/api/dashboards/uid/"):
            content = self.dashboards.get(path.rsplit("/", 1)[1])
            return reply(handler, 200, {"dashboard": content, "meta": {}}) if content else \
                reply(handler, 404, {"message": "Dashboard not found"})
        if path == "/api/ds/query":
            return self.query(handler, body)
        if path.startswith("/d/"):
            return self.page(handler, path.split("/")[2], urllib.parse.urlparse(handler.path).query)
        return reply(handler, 404, {"message": "Not found"})

    def query(self, handler, body):
        times = [int(body[name]) / 1000 for name in ("from", "to")]
        results = {query["refId"]: self.result(query, *times) for query in body["queries"]}
        status = max(result["status"] for result in results.values())
        reply(handler, 200 if status == 200 else 400, {"results": results})

    def result(self, query, began, ended):
        if query["instant"]:
            path, parameters = "query", {"query": query["expr"], "time": ended}
        else:
            step = query["intervalMs"] / 1000
            path, parameters = "query_range", {"query": query["expr"], "start": began, "end": ended, "step": step}
        try:
            with urllib.request.urlopen(f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:
                found = json.loads(answer.read())["data"]["result"]
        except urllib.error.HTTPError as error:
            return {"status": 400, "error": json.loads(error.read())["error"]}
        except OSError as error:
            return {"status": 502, "error": str(error)}
        frame = table if query["format"] == "table" else one_series
        return {"status": 200, "frames": [frame(found)] if query["format"] == "table" else [frame(one) for one in found]}

    def page(self, handler, uid, query):
        """As Grafana does, this asks for the titles after the page is there."""
        given = urllib.parse.parse_qs(query)
        titles = [each["title"].replace("$phase", given.get("var-phase", [""])[0])
                  for each in self.dashboards[uid]["panels"] if each["type"] != "row"]
        text = "".join(f"<h2>{escape(title)}</h2>" for title in titles)
        html = f"<!doctype html><title>{uid}</title><script>setTimeout(() => document.body.innerHTML = {json.dumps(text)}, 300)</script>"
        reply(handler, 200, html, "text/html")


def one_series(found):
    points = found.get("values") or [found["value"]]
    fields = [{"name": "Time", "type": "time"}, {"name": "Value", "type": "number", "labels": found["metric"]}]
    return {"schema": {"fields": fields},
            "data": {"values": [[int(when * 1000) for when, _ in points], [float(value) for _, value in points]]}}


def table(found):
    """All series in one frame, with a column for each label."""
    labels = sorted({name for one in found for name in one["metric"]})
    fields = [{"name": "Time"}, *({"name": name} for name in labels), {"name": "Value"}]
    columns = [[int(one["value"][0] * 1000) for one in found],
               *([one["metric"].get(name) for one in found] for name in labels),
               [float(one["value"][1]) for one in found]]
    return {"schema": {"fields": fields}, "data": {"values": columns}}


def reply(handler, status, content, kind="application/json"):
    # Not a number is null in Grafana's answers.
    text = content if isinstance(content, str) else json.dumps(content).replace("NaN", "null").replace("Infinity", "null")
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.end_headers()
    handler.wfile.write(text.encode())
