"""The configuration file: defaults, and one line with file, table and key for every mistake."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fisher_edge.cli import main
from fisher_edge.config import (
    AlarmConfig,
    ChannelConfig,
    Config,
    GatewayConfig,
    ModelConfig,
    MqttConfig,
    RecordingSourceConfig,
    load_config,
)
from fisher_edge.errors import UsageError

CHANNEL = """
[[channel]]
asset = "pump-1"
name = "vib-de"
source = { type = "recording", files = ["healthy.flac"] }
"""
DESIGN = """
[gateway]
name = "line-3"
state_dir = "/var/lib/fisher-edge"

[model]
bundle = "default"
provider = "auto"
window_s = 10.24
hop_s = 2.0

[mqtt]
url = "mqtt://localhost:1883"
root = "fisher-edge"

[[channel]]
asset = "pump-1"
name = "vib-de"
unit = "g"
source = { type = "recording", files = ["healthy.flac", "faulty.flac"], speed = 1.0, loop = true }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a configuration that is not written yet."""
    return tmp_path / "gateway.toml"


def loaded(file: Path, text: str) -> Config:
    """Write a configuration and load it."""
    file.write_text(text)
    return load_config(file)


def recording(config: Config) -> RecordingSourceConfig:
    """Return the source of the first channel, which is a recording."""
    source = config.channel[0].source
    assert isinstance(source, RecordingSourceConfig)
    return source


def mistake(file: Path, text: str) -> str:
    """Return what is said about a wrong configuration, checked to be one line that begins with the file."""
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(file)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(str(file))
    return said.removeprefix(str(file)).lstrip(": ")


def test_smallest_form_of_the_design_loads(file: Path) -> None:
    """The documented example is valid and means what it says."""
    config = loaded(file, DESIGN)
    assert (config.gateway.name, config.gateway.state_dir) == ("line-3", Path("/var/lib/fisher-edge"))
    assert (config.model.bundle, config.model.window_s, config.model.hop_s) == ("default", 10.24, 2.0)
    assert (config.mqtt.url, config.mqtt.root) == ("mqtt://localhost:1883", "fisher-edge")
    (channel,) = config.channel
    assert (channel.asset, channel.name, channel.unit) == ("pump-1", "vib-de", "g")
    assert recording(config).files == (file.parent / "healthy.flac", file.parent / "faulty.flac")
    assert (recording(config).speed, recording(config).loop) == (1.0, True)


def test_one_channel_is_enough(file: Path) -> None:
    """Everything but the channels has a default, and the values are frozen."""
    config = loaded(file, CHANNEL)
    assert (config.gateway.name, config.mqtt.url, config.model.window_s) == ("gateway", "embedded", 10.24)
    assert config.model.hop_s is None
    assert (config.alarm.warning_per_day, config.alarm.alarm_per_day) == (1.0, 0.1)
    source = recording(config)
    assert (config.channel[0].scale, source.speed, source.loop) == (1.0, 1.0, False)
    with pytest.raises(ValueError, match="frozen"):
        config.gateway.name = "other"


def test_relative_paths_count_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, state, bundle and secrets are found wherever the daemon is started."""
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path)
    config = loaded(
        Path("etc/gateway.toml"),
        '[gateway]\nstate_dir = "state"\n[model]\nbundle = "tiny"\n'
        '[mqtt]\npassword_file = "secret"\nca_file = "/ca.pem"\n' + CHANNEL,
    )
    etc = tmp_path / "etc"
    assert config.gateway.state_dir == etc / "state"
    assert config.model.bundle == str(etc / "tiny")
    assert (config.mqtt.password_file, config.mqtt.ca_file) == (etc / "secret", Path("/ca.pem"))
    assert recording(config).files == (etc / "healthy.flac",)


@pytest.mark.parametrize(
    ("text", "table", "key", "near"),
    [
        ("[gatewy]\nname = 'a'\n" + CHANNEL, "the file", "gatewy", "gateway"),
        ("[gateway]\nstate_dri = 'a'\n" + CHANNEL, "[gateway]", "state_dri", "state_dir"),
        ("[model]\nwindow = 1\n" + CHANNEL, "[model]", "window", "window_s"),
        ("[mqtt]\nurI = 'x'\n" + CHANNEL, "[mqtt]", "urI", "url"),
        ("[alarm]\nneded = 1\n" + CHANNEL, "[alarm]", "neded", "needed"),
        (CHANNEL + "assset = 'x'\n", "[[channel]] 1", "assset", "asset"),
        (CHANNEL.replace("type =", "spede = 1, type ="), "[[channel]] 1, source", "spede", "speed"),
        (CHANNEL + CHANNEL.replace("pump-1", "pump-2") + "nmae = 'x'\n", "[[channel]] 2", "nmae", "name"),
    ],
)
def test_unknown_key_names_its_table_and_the_nearest_known(
    file: Path, text: str, table: str, key: str, near: str
) -> None:
    """A typing error is answered with what was probably meant, in every table."""
    assert mistake(file, text) == f"unknown key {key!r} in {table}; did you mean {near!r}?"


def test_password_in_a_table_written_as_a_list_is_not_shown(file: Path) -> None:
    """A table of the wrong form is named without its content, which may be secret."""
    said = mistake(file, '[[mqtt]]\nurl = "mqtt://u:secret@h"\n' + CHANNEL)
    assert said == "[mqtt] is one table, not list; write its keys in it"


def test_misspelt_key_is_named_before_the_one_that_is_missing(file: Path) -> None:
    """Who writes `fils` for `files` is told so, not that `files` is missing."""
    said = mistake(file, CHANNEL.replace("files", "fils"))
    assert said == "unknown key 'fils' in [[channel]] 1, source; did you mean 'files'? (and 1 more)"


def test_unknown_key_like_no_other_lists_the_known_ones(file: Path) -> None:
    """Without a near name all names of the table are listed."""
    said = mistake(file, "[alarm]\nxyzzy = 1\n" + CHANNEL)
    assert said == "unknown key 'xyzzy' in [alarm]; known keys: alarm_per_day, hold, needed, of, warning_per_day"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[gateway]\nname = 3\n" + CHANNEL, "[gateway], name = 3: "),
        ("gateway = 3\n" + CHANNEL, "[gateway] is one table, not int; write its keys in it"),
        ("[model]\nwindow_s = 0\n" + CHANNEL, "[model], window_s = 0: "),
        ("[model]\nwindow_s = inf\n" + CHANNEL, "[model], window_s = inf: "),
        ("[model]\nhop_s = nan\n" + CHANNEL, "[model], hop_s = nan: "),
        ("[model]\nprovider = 'gpu'\n" + CHANNEL, "[model], provider = 'gpu': "),
        ("[mqtt]\nembedded_port = 70000\n" + CHANNEL, "[mqtt], embedded_port = 70000: "),
        ("[alarm]\nneeded = 0\n" + CHANNEL, "[alarm], needed = 0: "),
        ("[alarm]\nalarm_per_day = 0\n" + CHANNEL, "[alarm], alarm_per_day = 0: "),
        ("[mqtt]\noutbox_mb = 0.5\n" + CHANNEL, "[mqtt], outbox_mb = 0.5: "),
        (CHANNEL + "scale = inf\n", "[[channel]] 1, scale = inf: "),
        (CHANNEL + "scale = -1\n", "[[channel]] 1, scale = -1: "),
        (CHANNEL.replace('["healthy.flac"]', "[]"), "[[channel]] 1, source, files = []: "),
        (CHANNEL.replace('"healthy.flac"', '"a", 2'), "[[channel]] 1, source, files 2 = 2: "),
        (CHANNEL.replace('"recording"', '"alsa"'), "[[channel]] 1, source, type = 'alsa': "),
        (CHANNEL.replace("type =", "speed = -1, type ="), "[[channel]] 1, source, speed = -1: "),
        (CHANNEL.replace("type =", "rate_hz = 0, type ="), "[[channel]] 1, source, rate_hz = 0: "),
        (CHANNEL.replace('asset = "pump-1"', ""), "[[channel]] 1, asset is missing; add it"),
        (CHANNEL.replace('"pump-1"', f"[{'1, ' * 500}]"), "[[channel]] 1, asset = [1, 1, "),
        ("", "[channel] is missing; add it"),
        ("channel = []\n", "channels are written as tables under [[channel]]"),
        (CHANNEL.replace("[[channel]]", "[channel]"), "channels are written as tables under [[channel]]"),
        ("[alarm]\nneeded = 4\nof = 3\n" + CHANNEL, "[alarm] needed = 4 of = 3; needed cannot exceed of"),
        (CHANNEL + CHANNEL, "channel pump-1/vib-de is there twice; rename one"),
    ],
)
def test_wrong_value_names_its_place(file: Path, text: str, where: str) -> None:
    """Types, ranges, missing and doubled entries are refused with their place and value, shortened."""
    said = mistake(file, text)
    assert said.startswith(where)
    assert len(said) < 250


def test_several_mistakes_are_counted(file: Path) -> None:
    """The first is explained, the others are announced."""
    assert mistake(file, "[model]\nwindow_s = 0\nhop_s = 0\n" + CHANNEL).endswith("(and 1 more)")


@pytest.mark.parametrize("bad", ["a/b", "a+", "#", "$SYS", "", "  ", "a\\u0007", "a\\u2028b", "a\\n"])
@pytest.mark.parametrize("key", ["[gateway], name", "[[channel]] 1, asset", "[[channel]] 1, name"])
def test_name_that_cannot_be_a_topic_level_is_refused(file: Path, key: str, bad: str) -> None:
    """Gateway, asset and channel are each one level of an MQTT topic."""
    texts = {
        "[gateway], name": f'[gateway]\nname = "{bad}"\n{CHANNEL}',
        "[[channel]] 1, asset": CHANNEL.replace('"pump-1"', f'"{bad}"'),
        "[[channel]] 1, name": CHANNEL.replace('"vib-de"', f'"{bad}"'),
    }
    assert mistake(file, texts[key]).startswith(f"{key} = ")


def test_root_may_have_levels_but_no_wildcards(file: Path) -> None:
    """The root is a topic of its own; empty levels and wildcards are refused."""
    assert loaded(file, "[mqtt]\nroot = 'plant/hall-2'\n" + CHANNEL).mqtt.root == "plant/hall-2"
    for bad in ("a/#", "+/b", "a//b", "/a", "a/", "$share"):
        assert mistake(file, f"[mqtt]\nroot = '{bad}'\n" + CHANNEL).startswith(f"[mqtt], root = {bad!r}")


def test_names_of_any_language_are_welcome(file: Path) -> None:
    """Letters beyond ASCII and spaces inside a name are fine."""
    assert loaded(file, CHANNEL.replace("pump-1", "Pumpe für Öl")).channel[0].asset == "Pumpe für Öl"


@pytest.mark.parametrize(
    "content",
    [b"[gateway\n", b"a = ", b"\xff\xfe", b"a = 1\na = 2\n", b"x = " + b"9" * 5000, b"x = " + b"[" * 50_000],
)
def test_file_that_is_no_toml_is_refused(file: Path, content: bytes) -> None:
    """Bad syntax, bad UTF-8, endless numbers and endless nesting are one line each."""
    file.write_bytes(content)
    with pytest.raises(UsageError, match="is not valid TOML: ") as caught:
        load_config(file)
    assert "\n" not in str(caught.value)


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder and a gigantic one are named with what the system says."""
    with pytest.raises(UsageError, match=r"nowhere\.toml: No such file or directory; check the path"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        load_config(tmp_path)
    (tmp_path / "big.toml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(UsageError, match="more than a configuration can have"):
        load_config(tmp_path / "big.toml")


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Run a command that prints JSON and succeeds."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert not left.value.code
    return json.loads(capsys.readouterr().out)


def test_check_shows_the_whole_configuration_without_secrets(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Defaults are filled in; a password in the URL, even one with an @, is not shown."""
    loaded(file, "[mqtt]\nurl = 'mqtts://me:pa%2Fss@w@plant:8883'\n" + CHANNEL)
    shown = output(capsys, "config", "check", str(file), "--json")
    assert shown["mqtt"]["url"] == "mqtts://me:***@plant:8883"
    assert shown["model"]["window_s"] == 10.24
    assert "pa%2Fss" not in json.dumps(shown)
    assert "pa%2Fss" not in repr(load_config(file))
    assert load_config(file).mqtt.url == "mqtts://me:pa%2Fss@w@plant:8883"


def test_check_refuses_what_run_would_refuse(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broker URL that cannot be used is found by the check, not at the first start."""
    loaded(file, "[mqtt]\nurl = 'http://plant'\n" + CHANNEL)
    with pytest.raises(SystemExit) as left:
        main(["config", "check", str(file)])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: broker URL has the scheme 'http'")


def test_schema_describes_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON schema for editors has every table and key and forbids others."""
    schema = output(capsys, "config", "schema")
    models: list[type[BaseModel]] = [GatewayConfig, ModelConfig, MqttConfig, AlarmConfig, ChannelConfig]
    for model in models:
        table = schema["$defs"][model.__name__]
        assert set(table["properties"]) == set(model.model_fields)
        assert table["additionalProperties"] is False
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["required"] == ["channel"]
