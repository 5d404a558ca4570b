"""Configuration files: what the command line does, as one checked record, which also drives Python."""

from cval_torch.config.choosing import Work, choose, open_work
from cval_torch.config.loading import load_config
from cval_torch.config.named import named_configs
from cval_torch.config.schema import Config

__all__ = ["Config", "Work", "choose", "load_config", "named_configs", "open_work"]
