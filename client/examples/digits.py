"""Call the reference models: start `tritium serve`, then run this with the server's URL."""

from __future__ import annotations

import sys

import numpy as np

from tritium.client import Client, TritiumError


def main(url: str) -> int:
    blank = np.zeros((28, 28), dtype=np.float32)
    try:
        with Client(url, timeout_s=10) as client:
            # One row without a batch axis comes back without one.
            print(client.model("digits_cnn")(blank.reshape(1, 28, 28)))
            # Several outputs come back by name.
            svm = client.model("digits_svm")(blank.reshape(784))
            print(svm.label, svm["probabilities"])
    except TritiumError as exc:
        print(exc, file=sys.stderr)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or ["http://127.0.0.1:8000"]))
