"""The place of the shipped configuration."""

from pathlib import Path

import yaml

import losslab
from losslab.errors import UserError


def conf_dir() -> Path:
    """The wheel's losslab/conf, or the checkout's conf/ beside src/ in an editable install."""
    package = Path(losslab.__file__).resolve().parent
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise UserError(f"losslab's configuration is missing beside {package}; install the package again")


def check_config_dir(folder: Path) -> None:
    """Refuse a person's folder that is missing, or whose files Hydra would silently pass over for shipped ones."""
    if not folder.is_dir():
        raise UserError(f"--config-dir {folder} is not a folder")
    for path in sorted(folder.rglob("*.yaml")):
        try:
            yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{path} is no yaml file: {' '.join(str(error).split())}") from None
        relative = path.relative_to(folder)
        if (conf_dir() / relative).exists():
            raise UserError(
                f"{path} has the name of a file that losslab ships ({relative}) and would not be read; rename it"
            )
