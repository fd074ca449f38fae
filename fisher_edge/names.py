"""Names of gateways, assets and channels: the one rule of what they may be, since they become levels of MQTT topics."""

from typing import NamedTuple

from fisher_edge.errors import BadInputError

__all__ = ["MAX_NAME", "ChannelKey", "check_name", "check_root"]

MAX_NAME = 200
FORBIDDEN_IN_TOPIC = "+#/$"


class ChannelKey(NamedTuple):
    """Asset and channel: what one sensor is called everywhere."""

    asset: str
    channel: str

    def __str__(self) -> str:
        return f"{self.asset}/{self.channel}"

    def check(self) -> None:
        """Raise BadInputError unless both names can be levels of an MQTT topic."""
        check_name("asset", self.asset)
        check_name("channel", self.channel)


def check_name(kind: str, name: str) -> str:
    """Return the name of a gateway, an asset or a channel if it can be one level of an MQTT topic.

    Raises BadInputError otherwise; `kind` says in its text what is named.
    """
    if len(name) > MAX_NAME:
        raise BadInputError(f"{kind} name of {len(name)} characters is longer than {MAX_NAME}; shorten it")
    bad = sorted({character for character in name if character in FORBIDDEN_IN_TOPIC or not character.isprintable()})
    if bad or not name.strip():
        what = f"contains {' '.join(map(repr, bad))}" if bad else "is empty"
        raise BadInputError(
            f"{kind} name {name!r} {what}; it becomes one level of an MQTT topic: use letters, digits, - and _"
        )
    return name


def check_root(root: str) -> str:
    """Return the root of the topics, which may have several levels; raises BadInputError as `check_name` does."""
    for level in root.split("/"):
        check_name("root", level)
    return root
