"""A configuration as YAML with a comment on every field."""

import dataclasses
import textwrap
from typing import Any

from popmargin.config.described import fields_of
from popmargin.yaml_file import dump_yaml

_WIDTH = 110


def commented_yaml(config: Any, indent: str = "") -> str:
    """All fields with descriptions, defaults and bounds; `from_dict` of it gives the same configuration.

    Args:
        config: a configuration, or a section of one.
        indent: what stands before every line.
    """
    lines: list[str] = []
    for setting in fields_of(type(config)):
        value = getattr(config, setting.name)
        comment = textwrap.fill(setting.sentence, _WIDTH, break_on_hyphens=False)
        comment = textwrap.indent(comment, f"{indent}# ")
        if dataclasses.is_dataclass(value):
            lines += ["", comment, f"{indent}{setting.name}:", commented_yaml(value, f"{indent}  ")]
        else:
            lines += [comment, textwrap.indent(dump_yaml({setting.name: value}), indent).rstrip("\n")]
    return "\n".join(lines) + ("" if indent else "\n")
