"""A person's own folder of configuration files."""

from pathlib import Path

import yaml

from losslab.choices import conf_dir
from losslab.errors import UserError


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
