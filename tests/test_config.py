"""The configuration file: defaults, and one line with file, table and key for every mistake."""

import json
import os
import runpy
import socket
from pathlib import Path

import pytest
from source_types import install_source

from fisher_edge.config import AlarmConfig, Config, load_config
from fisher_edge.config.schema import TABLES
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
    assert channel.source.type == "recording"
    assert channel.source.options == {"files": ["healthy.flac", "faulty.flac"], "speed": 1.0, "loop": True}


def test_one_channel_is_enough(file: Path) -> None:
    """Everything but the channels has a default, and the values are frozen."""
    config = loaded(file, CHANNEL)
    assert (config.mqtt.url, config.mqtt.root, config.model.window_s) == ("embedded", "fisher-edge", 10.24)
    assert config.model.hop_s is None
    assert (config.alarm.warning_per_day, config.alarm.alarm_per_day) == (1.0, 0.1)
    assert (config.history.mb, config.history.days, config.audio.enrollment_mb) == (256, 90, 256)
    (channel,) = config.channel
    assert (channel.scale, channel.no_data_s, channel.window_s, channel.hop_s) == (1.0, None, None, None)
    assert channel.source.options == {"files": ["healthy.flac"]}
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
    assert config.base_dir == etc
    assert loaded(Path("etc/gateway.toml"), CHANNEL).gateway.state_dir == etc / "state"


@pytest.mark.parametrize(
    ("text", "table", "key", "near"),
    [
        ("[gatewy]\nname = 'a'\n" + CHANNEL, "the file", "gatewy", "gateway"),
        ("[gateway]\nstate_dri = 'a'\n" + CHANNEL, "[gateway]", "state_dri", "state_dir"),
        ("[model]\nwindow = 1\n" + CHANNEL, "[model]", "window", "window_s"),
        ("[mqtt]\nurI = 'x'\n" + CHANNEL, "[mqtt]", "urI", "url"),
        ("[alarm]\nhold_m = 1\n" + CHANNEL, "[alarm]", "hold_m", "hold_s"),
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
    assert said == "[mqtt] must be one table with its keys, not a list"


def test_misspelt_key_is_named_before_the_one_that_is_missing(file: Path) -> None:
    """The error about `fils` suggests `files` before it says that `files` is missing."""
    said = mistake(file, CHANNEL.replace("files", "fils"))
    assert said == (
        "unknown key 'fils' in [[channel]] 1, source; did you mean 'files'?; "
        "[[channel]] 1, source, files is missing; add it"
    )


def test_unknown_key_like_no_other_lists_the_known_ones(file: Path) -> None:
    """Without a near name all names of the table are listed."""
    said = mistake(file, "[alarm]\nxyzzy = 1\n" + CHANNEL)
    assert said == "unknown key 'xyzzy' in [alarm]; known keys: alarm_per_day, delay_s, hold_s, latch, warning_per_day"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[gateway]\nname = 3\n" + CHANNEL, "[gateway], name = 3: "),
        ("gateway = 3\n" + CHANNEL, "[gateway] must be one table with its keys, not a number"),
        ("[model]\nwindow_s = 0\n" + CHANNEL, "[model], window_s = 0: must be above 0"),
        ("[model]\nwindow_s = inf\n" + CHANNEL, "[model], window_s = inf: must be a finite number"),
        ("[model]\nhop_s = nan\n" + CHANNEL, "[model], hop_s = nan: "),
        ("[model]\nprovider = ''\n" + CHANNEL, "[model], provider = '': must not be empty"),
        ("[model]\nwindow_s = '1.28'\n" + CHANNEL, "[model], window_s = '1.28': must be a number, without quotes"),
        ("[model]\nwindow_s = true\n" + CHANNEL, "[model], window_s = True: must be a number"),
        ("[mqtt]\nembedded_port = 70000\n" + CHANNEL, "[mqtt], embedded_port = 70000: must be 65535 or less"),
        ("[alarm]\nhold_s = -1\n" + CHANNEL, "[alarm], hold_s = -1: must be 0 or more"),
        ("[alarm]\nalarm_per_day = 0\n" + CHANNEL, "[alarm], alarm_per_day = 0: "),
        ("[mqtt]\noutbox_mb = 0.5\n" + CHANNEL, "[mqtt], outbox_mb = 0.5: "),
        (CHANNEL + "scale = inf\n", "[[channel]] 1, scale = inf: "),
        (CHANNEL + "scale = -1\n", "[[channel]] 1, scale = -1: "),
        (CHANNEL.replace('["healthy.flac"]', "[]"), "[[channel]] 1, source, files = []: must not be empty"),
        (CHANNEL.replace('"healthy.flac"', '"a", 2'), "[[channel]] 1, source, files 2 = 2: must be text in quotes"),
        (CHANNEL.replace('"recording"', '"alsa"'), "[[channel]] 1, source, type = 'alsa': "),
        (CHANNEL.replace("type =", "speed = -1, type ="), "[[channel]] 1, source, speed = -1: "),
        (CHANNEL.replace("type =", "rate_hz = 0, type ="), "[[channel]] 1, source, rate_hz = 0: "),
        (CHANNEL.replace('asset = "pump-1"', ""), "[[channel]] 1, asset is missing; add it"),
        (CHANNEL.replace('"pump-1"', f"[{'1, ' * 500}]"), "[[channel]] 1, asset = [1, 1, "),
        (
            CHANNEL.replace("type =", "loop = 'yes', type ="),
            "[[channel]] 1, source, loop = 'yes': must be true or false",
        ),
        (CHANNEL.replace('"recording"', "3"), "[[channel]] 1, source, type = 3: must be text in quotes"),
        (CHANNEL.replace('type = "recording",', ""), "[[channel]] 1, source, type is missing; add it"),
        (CHANNEL.replace('"recording"', '"serail"'), "[[channel]] 1, source, type = 'serail': no installed package"),
        ("", "there is no channel; add a table [[channel]] for each sensor"),
        ("channel = []\n", "there is no channel; add a table [[channel]] for each sensor"),
        (CHANNEL.replace("[[channel]]", "[channel]"), "channel must be written [[channel]], with two brackets"),
        ("[alarm]\nwarning_per_day = 0.05\n" + CHANNEL, "[alarm]: warning_per_day = 0.05 is below alarm_per_day = 0.1"),
        (CHANNEL + "alarm = { hold = 1 }\n", "unknown key 'hold' in [[channel]] 1, alarm; did you mean 'hold_s'?"),
        (
            CHANNEL + "alarm = { alarm_per_day = 4 }\n",
            "[[channel]] 1, alarm together with [alarm]: warning_per_day = 1 is below alarm_per_day = 4",
        ),
        (CHANNEL + CHANNEL, "channel pump-1/vib-de is there twice; rename one"),
    ],
)
def test_wrong_value_names_its_place(file: Path, text: str, where: str) -> None:
    """Types, ranges, missing and doubled entries are refused with their place and value, shortened."""
    said = mistake(file, text)
    assert said.startswith(where)
    assert len(said) < 250


def test_every_mistake_is_listed(file: Path) -> None:
    """All mistakes are in the one line, those of sources as well; beyond five they are counted."""
    text = "[model]\nwindow_s = 0\nhop_s = 0\n" + CHANNEL.replace("files", "fils")
    assert mistake(file, text).split("; [") == [
        "[model], window_s = 0: must be above 0",
        "model], hop_s = 0: must be above 0; unknown key 'fils' in [[channel]] 1, source; did you mean 'files'?",
        "[channel]] 1, source, files is missing; add it",
    ]
    said = mistake(file, "".join(f"[table{number}]\n" for number in range(7)) + CHANNEL)
    assert "'table4' in the file" in said
    assert "table5" not in said
    assert said.endswith("; and 2 more")


@pytest.mark.parametrize("bad", ["a/b", "a+", "#", "$SYS", "", "  ", "a\\u0007", "a\\u2028b", "a\\n"])
@pytest.mark.parametrize("key", ["[gateway], name", "[[channel]] 1, asset", "[[channel]] 1, name"])
def test_name_that_cannot_be_a_topic_level_is_refused(file: Path, key: str, bad: str) -> None:
    """Gateway, asset and channel are each one level of an MQTT topic."""
    texts = {
        "[gateway], name": f'[gateway]\nname = "{bad}"\n{CHANNEL}',
        "[[channel]] 1, asset": CHANNEL.replace('"pump-1"', f'"{bad}"'),
        "[[channel]] 1, name": CHANNEL.replace('"vib-de"', f'"{bad}"'),
    }
    assert mistake(file, texts[key]).startswith(f"{key}: the name ")


def test_root_may_have_levels_but_no_wildcards(file: Path) -> None:
    """The root is a topic of its own; empty levels and wildcards are refused."""
    assert loaded(file, "[mqtt]\nroot = 'plant/hall-2'\n" + CHANNEL).mqtt.root == "plant/hall-2"
    for bad in ("a/#", "+/b", "a//b", "/a", "a/", "$share"):
        assert mistake(file, f"[mqtt]\nroot = '{bad}'\n" + CHANNEL).startswith("[mqtt], root: root name ")


def test_line_break_in_a_key_does_not_break_the_line(file: Path) -> None:
    """A quoted key may hold anything; what is said about it is one line."""
    assert "'a\\nb'" in mistake(file, CHANNEL.replace("type =", '"a\\nb" = 1, type ='))
    assert "unknown key" in mistake(file, '["a\\nb"]\n' + CHANNEL)


def test_names_of_any_language_are_welcome(file: Path) -> None:
    """Letters beyond ASCII and spaces inside a name are fine."""
    assert loaded(file, CHANNEL.replace("pump-1", "Pumpe für Öl")).channel[0].asset == "Pumpe für Öl"


@pytest.mark.parametrize(
    "content",
    [
        b"[gateway\n",
        b"a = ",
        b"\xff\xfe",
        b"a = 1\na = 2\n",
        b"x = " + b"9" * 5000,
        b"x = 0x" + b"f" * 9999,
        b"x = " + b"[" * 50_000,
        b"x = " + b"[" * 300 + b"]" * 300,
    ],
)
def test_file_that_is_no_toml_is_refused(file: Path, content: bytes) -> None:
    """Bad syntax, bad UTF-8, endless numbers and endless nesting are one line each."""
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"is not valid TOML: |cannot be read: |nested too deep") as caught:
        load_config(file)
    assert "\n" not in str(caught.value)


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder and a gigantic one are named with what the system says."""
    with pytest.raises(UsageError, match=r"nowhere\.toml: No such file or directory; check the path"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        load_config(tmp_path)
    (tmp_path / "big.toml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(UsageError, match="too many for a configuration"):
        load_config(tmp_path / "big.toml")


def test_pipes_and_devices_are_refused_at_once(file: Path, tmp_path: Path) -> None:
    """A pipe that nobody writes to and a device without an end are one line, wherever a file is expected."""
    os.mkfifo(tmp_path / "pipe")
    for endless in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UsageError, match=f"{endless}: it is a pipe or a device; give a file"):
            load_config(endless)
        for key in ("password_file", "ca_file"):
            said = mistake(file, f"[mqtt]\n{key} = '{endless}'\n" + CHANNEL)
            assert said == f"[mqtt], {key}: {endless} is not a small file; give the path of a text file"
    assert "is not a small file" in mistake(file, f"[mqtt]\nca_file = '{tmp_path}'\n" + CHANNEL)
    assert "zero byte" in mistake(file, '[mqtt]\nca_file = "a\\u0000b"\n' + CHANNEL)


def test_byte_order_mark_is_accepted(file: Path) -> None:
    """Editors of Windows begin a UTF-8 file with an invisible mark."""
    file.write_bytes(b"\xef\xbb\xbf" + CHANNEL.encode())
    assert load_config(file).channel[0].asset == "pump-1"


@pytest.mark.parametrize("host", ["h" * 300, ".".join(["h" * 60] * 5), "plant..local"])
def test_host_that_no_name_server_takes_is_refused(file: Path, host: str) -> None:
    """A name of 300 letters is one line, not an error of the network later on."""
    assert mistake(file, f"[mqtt]\nurl = 'mqtt://{host}'\n" + CHANNEL).startswith("[mqtt], url: ")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("username", 'write the user into url = "mqtt://USER@HOST:1883"'),
        ("password", "write the password into a file, and its path into password_file"),
        ("port", 'write host and port into url = "mqtt://HOST:1883"'),
    ],
)
def test_login_under_mqtt_says_where_it_goes(file: Path, key: str, hint: str) -> None:
    """What other programs call username or port has another place here; its value is not shown."""
    said = mistake(file, f"[mqtt]\n{key} = 'hush'\n" + CHANNEL)
    assert said == f"unknown key {key!r} in [mqtt]; {hint}"


@pytest.mark.parametrize(
    ("host", "name"),
    [("press-7.plant", "press-7.plant"), ("a b/c#", "a-b-c-"), ("", "gateway"), ("x" * 300, "x" * 200)],
)
def test_default_name_is_that_of_the_host(file: Path, host: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two gateways on one broker need two names: the host's, made valid for a topic."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert loaded(file, CHANNEL).gateway.name == name
    assert loaded(file, "[gateway]\nname = 'line-3'\n" + CHANNEL).gateway.name == "line-3"


def test_provider_is_any_word(file: Path) -> None:
    """Which providers there are is known to the encoder, not to the configuration."""
    assert loaded(file, "[model]\nprovider = 'openvino'\n" + CHANNEL).model.provider == "openvino"


def test_alarm_settings_of_a_channel_are_added_to_those_of_the_gateway(file: Path) -> None:
    """What a channel does not say it inherits; the gateway's own settings stay as they are."""
    text = "[alarm]\nhold_s = 9\ndelay_s = 1\n" + CHANNEL + "alarm = { alarm_per_day = 0.5, delay_s = 3 }\n"
    config = loaded(file, text + CHANNEL.replace("pump-1", "pump-2"))
    first, second = config.channel
    assert config.alarm_of(first) == AlarmConfig(alarm_per_day=0.5, delay_s=3, hold_s=9)
    assert config.alarm_of(second) == config.alarm == AlarmConfig(delay_s=1, hold_s=9)


SECRET = "pa%2Fss@w"
SECRET_SOURCE = f"""
[channel.source]
type = "vault"
api_key = "{SECRET}"
user_password = "{SECRET}"
port = 3
urls = ["opc://me:{SECRET}@h"]
login = {{ name = "me", passphrase = "{SECRET}" }}
query = "http://h/?id=5&token={SECRET}"
key_file = "k"
"""


def open_vault(
    context: object,
    *,
    api_key: str,
    user_password: str,
    urls: list[str],
    login: object,
    query: str,
    key_file: str,
    port: int,
) -> None:
    """Stand for a source whose keys hold secrets."""


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install the type of source and return a channel that uses it."""
    install_source(tmp_path / "site", monkeypatch, vault=open_vault)
    return CHANNEL[: CHANNEL.index("source")] + SECRET_SOURCE


def test_secrets_of_a_source_are_not_shown(file: Path, vault: str) -> None:
    """Values of secret keys and passwords in URLs are *** in JSON and in repr; the source gets them as they are."""
    config = loaded(file, "[mqtt]\nurl = 'mqtts://me:" + SECRET + "@plant:8883'\n" + vault)
    shown = config.model_dump(mode="json")
    assert shown["mqtt"]["url"] == "mqtts://me:***@plant:8883"
    assert shown["channel"][0]["source"] == {
        "type": "vault",
        "api_key": "***",
        "user_password": "***",
        "port": 3,
        "urls": ["opc://me:***@h"],
        "login": {"name": "me", "passphrase": "***"},
        "query": "http://h/?id=5&token=***",
        "key_file": "k",
    }
    for text in (config.model_dump_json(), json.dumps(shown), repr(config), str(config), str(config.model_dump())):
        assert "pa%2Fss" not in text
    assert config.mqtt.url == f"mqtts://me:{SECRET}@plant:8883"
    assert config.channel[0].source.options["api_key"] == SECRET


def test_secrets_are_not_shown_in_errors(file: Path, vault: str) -> None:
    """A secret of the wrong type is named by its key alone, also in the errors that led to the line."""
    text = vault.replace("port = 3", "port = 'three'").replace(f'api_key = "{SECRET}"', "api_key = 12345")
    file.write_text(f"[mqtt]\nurl = ['mqtt://me:{SECRET}@plant']\n" + text.replace("urls = [", "urls = [3, "))
    with pytest.raises(UsageError) as caught:
        load_config(file)
    error: BaseException | None = caught.value
    assert "api_key = '***': must be text in quotes" in str(error)
    assert "url = ['mqtt://me:***@plant']" in str(error)
    while error is not None:
        assert "pa%2Fss" not in str(error)
        assert "12345" not in str(error)
        error = error.__cause__ or error.__context__


def test_schema_describes_every_key() -> None:
    """The JSON schema for editors has a sentence for every table and key, forbids others, and knows the sources."""
    schema = Config.model_json_schema()
    tables = {"": schema} | {name: schema["$defs"][TABLES[name].__name__] for name in TABLES if name}
    tables["channel, alarm"] = schema["$defs"]["ChannelAlarmConfig"]
    for name, table in tables.items():
        assert table["additionalProperties"] is False
        for key, facts in table["properties"].items():
            assert facts["description"].endswith((".", "...", "}")), (name, key)
    assert schema["required"] == ["channel"]
    source = schema["$defs"]["SourceConfig"]
    assert source["properties"]["type"]["anyOf"] == [
        {"enum": ["bursts", "recording", "serial", "simulator"]},
        {"type": "string"},
    ]
    assert source["additionalProperties"] is True
    assert source["allOf"][0]["then"]["required"] == ["files", "interval_s"]
    kinds = {case["if"]["properties"]["type"]["const"]: case["then"]["properties"] for case in source["allOf"]}
    assert set(kinds) == {"bursts", "recording", "serial", "simulator"}
    assert all(facts["description"].endswith((".", "...", "}")) for keys in kinds.values() for facts in keys.values())
    assert kinds["recording"]["speed"]["default"] == 1.0


def test_reference_is_what_the_models_say() -> None:
    """docs/configuration.md lists every key with its default and meaning; `make docs` writes it."""
    root = Path(__file__).parents[1]
    written = runpy.run_path(str(root / "scripts" / "configuration_reference.py"))["reference"]()
    assert (root / "docs" / "configuration.md").read_text(encoding="utf-8") == written
    assert "| `no_data_s` | number |" in written
