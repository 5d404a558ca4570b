"""Configuration files: what the command line does, as one checked record, which also drives Python."""

from typing import TYPE_CHECKING

from cval_torch.lazy import lazy_names

if TYPE_CHECKING:
    from cval_torch.config.choosing import Work, choose, open_work
    from cval_torch.config.loading import load_config
    from cval_torch.config.named import named_configs
    from cval_torch.config.schema import Config
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "cval_torch.config.choosing": ["Work", "choose", "open_work"],
            "cval_torch.config.loading": ["load_config"],
            "cval_torch.config.named": ["named_configs"],
            "cval_torch.config.schema": ["Config"],
        },
    )

__all__ = ["Config", "Work", "choose", "load_config", "named_configs", "open_work"]
