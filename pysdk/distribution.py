"""The package's name on the index, and what it needs of others.

`pysdk` is its import name only: on the index that name belongs to another package.
"""

import importlib.util

from pysdk.errors import MissingDependencyError

DISTRIBUTION = "pysdk-diffusion"


def installed_version() -> str:
    """The version of this package."""
    from importlib.metadata import version  # not at the top: it takes as long to import as the rest of the command

    return version(DISTRIBUTION)


def install_extra(extra: str) -> str:
    """The command that installs this package with what an extra of pyproject.toml names."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def require(package: str, command: str) -> None:
    """MissingDependencyError with the command that installs it, unless the package can be imported."""
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(f"{package} is not installed; get it with `{command}`")
