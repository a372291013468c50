"""A program that starts like a model server: /health on 127.0.0.1 after a while, with a child of its own. For tests.

    python pretended_vllm.py PORT SECONDS_TO_HEALTHY PIDS_FILE [crash]
"""

import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Health(BaseHTTPRequestHandler):
    """Healthy, and silent."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        """Says nothing."""


if __name__ == "__main__":
    port, seconds, pids = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    pids.write_text(f"{os.getpid()} {child.pid}")
    print("ValueError: the pretended model does not fit" if "crash" in sys.argv else "starting", flush=True)
    if "crash" in sys.argv:
        sys.exit(3)
    time.sleep(seconds)
    HTTPServer(("127.0.0.1", port), Health).serve_forever()
