"""Checks the files in deploy/ without a cluster and without Docker.

`make deploy-check` runs it and installs requirements.txt. Each check yields one sentence for each
problem. A check whose tool is missing is reported as skipped.
"""

import sys

import agreement
import compose
import images
import manifests
import release
import restricted
import typed
from tools import Skipped

CHECKS = [
    *images.CHECKS,
    *compose.CHECKS,
    *manifests.CHECKS,
    *restricted.CHECKS,
    *agreement.CHECKS,
    *typed.CHECKS,
    *release.CHECKS,
]


def main():
    passed = failed = skipped = 0
    for check in CHECKS:
        name = " ".join(check.__doc__.split()).rstrip(".")
        try:
            # Without duplicates: profiles and overlays have much in common.
            wrong = list(dict.fromkeys(check()))
        except Skipped as reason:
            skipped += 1
            print(f"skipped  {name}: {reason}")
            continue
        passed, failed = (passed, failed + 1) if wrong else (passed + 1, failed)
        print(f"{'FAILED ' if wrong else 'ok     '}  {name}")
        for sentence in wrong:
            print(f"           {sentence}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
