# SPDX-License-Identifier: Apache-2.0
"""Asks the front door all the time until a file is there; says what came. Runs in the node itself.

python3 load.py FILE CLIENTS
"""

import base64
import http.client
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

LONGEST_SECONDS = 240.0
PAUSE_SECONDS = 0.3  # an emulated node has other things to do
# One grey pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


def ask(seen: "Counter[str]", stop: Path, until: float) -> None:
    while not stop.exists() and time.monotonic() < until:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", 7860, timeout=60)
            connection.request("POST", "/predict", PNG, {"Content-Type": "image/png"})
            answer = connection.getresponse()
            answer.read()
            seen[str(answer.status)] += 1
            connection.close()
            time.sleep(PAUSE_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            seen[type(error).__name__] += 1


def main(file: str, clients: str) -> None:
    seen: Counter[str] = Counter()
    until = time.monotonic() + LONGEST_SECONDS
    threads = [
        threading.Thread(target=ask, args=(seen, Path(file), until)) for _ in range(int(clients))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
