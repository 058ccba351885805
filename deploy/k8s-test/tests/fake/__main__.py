"""The fake kubectl as a program, over the cluster in the file FAKE_CLUSTER."""

import fcntl
import json
import os
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from answers import Refused, answer
from world import World


@contextmanager
def opened():
    """The cluster, a moment later; nothing else changes it meanwhile."""
    with open(os.environ["FAKE_CLUSTER"], "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        world = World(json.load(file))
        world.moment()
        try:
            yield world
        finally:
            file.seek(0)
            file.truncate()
            json.dump(world.state, file)


class Status(BaseHTTPRequestHandler):
    def do_GET(self):
        with opened() as world:
            body = json.dumps(world.status()).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main(arguments):
    try:
        with opened() as world:
            print(answer(world, arguments), end="")
    except Refused as reason:
        print(reason, file=sys.stderr)
        return 1
    if "port-forward" in arguments:
        server = HTTPServer(("127.0.0.1", 0), Status)
        print(f"Forwarding from 127.0.0.1:{server.server_port} -> 9095", flush=True)
        server.serve_forever()
    return 0


sys.exit(main(sys.argv[1:]))
