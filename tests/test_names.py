"""Names of assets and channels: what they may be, since they become levels of MQTT topics."""

import pytest

from fisher_edge.errors import BadInputError
from fisher_edge.names import MAX_NAME, ChannelKey, check_name, check_root

BAD = ["a/b", "+", "a#", "$SYS", "", " ", "a\n", "a\x00", "a\u2028"]


@pytest.mark.parametrize("name", BAD)
def test_name_that_is_no_topic_level_is_refused(name: str) -> None:
    """Wildcards, separators, invisible characters and emptiness are named with what to use instead."""
    with pytest.raises(BadInputError, match="use letters, digits, - and _") as caught:
        check_name("asset", name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Pumpe für Öl 2", "a", "x" * MAX_NAME, "..", "%2f"])
def test_name_of_any_language_is_a_topic_level(name: str) -> None:
    """Letters beyond ASCII, inner spaces and any length up to the limit pass, unchanged."""
    assert check_name("asset", name) == name


def test_long_name_is_refused_without_being_repeated() -> None:
    """The text says how long the name is and how long it may be."""
    with pytest.raises(BadInputError, match="channel name of 201 characters is longer than 200") as caught:
        check_name("channel", "x" * (MAX_NAME + 1))
    assert len(str(caught.value)) < 100


def test_key_checks_both_names() -> None:
    """Asset and channel are each named in the error."""
    ChannelKey("pump-1", "vib-de").check()
    for key, kind in ((ChannelKey("a/b", "c"), "asset"), (ChannelKey("a", "b#"), "channel")):
        with pytest.raises(BadInputError, match=rf"^{kind} name"):
            key.check()
    assert str(ChannelKey("pump-1", "vib-de")) == "pump-1/vib-de"


def test_root_may_have_several_levels() -> None:
    """Each level of the root is checked like a name."""
    assert check_root("plant/hall-2") == "plant/hall-2"
    for root in ("plant//hall", "/plant", "plant/+"):
        with pytest.raises(BadInputError, match=r"^root name"):
            check_root(root)
