"""`python -m dicomguard.scp --config FILE`: the receiver process."""

import argparse
import sys
from pathlib import Path

from dicomguard.scp import slim


def main() -> int:
    """Stay small, read the configuration, serve."""
    slim.prepare()
    # Only now: the imports below reach pydicom.
    from dicomguard import config
    from dicomguard.errors import DicomguardError
    from dicomguard.scp import process
    from dicomguard.scp.shared import Inherited

    parser = argparse.ArgumentParser(prog="python -m dicomguard.scp", description="Receive DICOM instances by C-STORE.")
    parser.add_argument("--config", type=Path, default=None, help="configuration file (dicomguard.toml)")
    parser.add_argument("--inherited", default=None, help="descriptors of the node that started it, as JSON")
    arguments = parser.parse_args()
    try:
        inherited = None if arguments.inherited is None else Inherited.of_text(arguments.inherited)
        return process.run(config.load(arguments.config), inherited)
    except DicomguardError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
