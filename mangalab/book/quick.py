"""Two libraries that this program starts with, without the parts of them that only cost time."""

import sys


def lighten() -> None:
    """Take C's parser for every `yaml.safe_load` (the same language, ten times faster), and leave out
    half a second of compiling grammars of internet addresses, which no check of ours needs.
    """
    import yaml

    yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema does without it
