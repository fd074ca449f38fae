"""What users ask of a running gateway, through the commands of the command line: a real broker, a real database."""

import itertools
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run_here
from gateways import HOP_S, WINDOW_S, config_of, enroll_machine, running
from machine import RATE_HZ, machine_signal
from mosquitto import Mosquitto, Subscriber, wait_until
from plain_source import PlainSource

from fisher_edge.decision.judgement import State
from fisher_edge.dsp.blocks import Block
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.gateway import Gateway
from fisher_edge.gateway.context import Context, Situation
from fisher_edge.names import ChannelKey
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.commands import Commands
from fisher_edge.store.database import DATABASE_NAME, Database
from fisher_edge.store.takes import PendingTakes

A = ChannelKey("pump", "a")
TOPIC = "plant/pump/rpm"
BLOCK_S = 0.1


@pytest.fixture(autouse=True)
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a gateway look at everything at every tick."""
    monkeypatch.setattr("fisher_edge.gateway.gateway.LOOK_S", 0.0)
    monkeypatch.setattr("fisher_edge.gateway.gateway.TICK_S", 0.05)
    monkeypatch.setattr("fisher_edge.gateway.worker.LOOK_S", 0.0)
    monkeypatch.setattr("fisher_edge.cli.state.POLL_S", 0.02)


class Machine:
    """A machine without end whose fault a test switches; its signal comes ten times as fast as real."""

    def __init__(self) -> None:
        self.faulty = False
        self.silent = False
        self.pauses = False
        self.gain = 1.0
        self._signals = {False: machine_signal(100, 60.0), True: machine_signal(101, 60.0, fault_hz=5000.0)}

    def __call__(self, stop: threading.Event) -> Iterator[Block]:
        """Yield blocks without a gap."""
        step, index, time_s = round(BLOCK_S * RATE_HZ), 0, 1e9
        while not stop.wait(BLOCK_S / 10):
            signal = self._signals[self.faulty]
            if self.silent:
                continue
            first = index % (len(signal) - step)
            gain = self.gain * (1.0 if not self.pauses or index // step % 2 else 1e-3)
            yield Block(np.float32(gain) * signal[first : first + step], RATE_HZ, index, time_s + index / RATE_HZ)
            index += step


@pytest.fixture
def machine() -> Machine:
    """Return a healthy machine."""
    return Machine()


@pytest.fixture
def enrolled(tmp_path: Path, encoder: Encoder) -> Path:
    """Return a folder in whose state directory the channel is enrolled."""
    enroll_machine(tmp_path, encoder, A)
    return tmp_path


def started(folder: Path, mosquitto: Mosquitto, machine: Machine, **channel: Any) -> Any:
    """Run a gateway that listens to a machine; `channel` are further keys of its channel."""
    own = {"asset": A.asset, "name": A.channel, "window_s": WINDOW_S, "hop_s": HOP_S, **channel}
    source = {"type": "recording", "files": ["unused.wav"]}
    config = config_of(folder, mosquitto.url, [A], channel=[{**own, "source": source}], model={"provider": "cpu"})
    return running(config, {A: PlainSource(machine)})


def state_of(gateway: Gateway) -> State:
    """State of the channel in the newest snapshot."""
    status = gateway.status()
    assert status is not None
    return status.channels[0].state


def asked(folder: Path, *words: object) -> dict[str, Any]:
    """Run a command that prints JSON and has nothing to complain about."""
    done = run_here(*words, "--state-dir", folder / "state", "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def refused(folder: Path, *words: object) -> str:
    """Run a command that is refused in one line, and return that."""
    done = run_here(*words, "--state-dir", folder / "state")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def events(subscriber: Subscriber) -> list[tuple[str, str, str | None]]:
    """Events so far: state before, state after, kind."""
    said = [message.fields for message in subscriber.of("event")]
    return [(each["before"], each["after"], each["kind"]) for each in said]


def test_a_running_sensor_is_enrolled(tmp_path: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """Takes are recorded, reviewed, accepted and judged by, while the gateway runs; the audio is kept."""
    with Database(tmp_path / "state"):
        pass
    with started(tmp_path, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.NO_BASELINE, "the first window", 30)
        told = asked(tmp_path, "baseline", "record", A.asset, A.channel, "--minutes", 0.2)
        assert (told["takes"], told["ended"], told["problem"]) == (8, True, None)
        assert gateway.readers[A].recorder is None
        assert gateway.channels[A].heard is None
        assert told["seconds"] == pytest.approx(12, abs=2 * BLOCK_S)
        assert told["slack"] > 1
        seen = asked(tmp_path, "baseline", "review", A.asset, A.channel)
        assert [take["number"] for take in seen["takes"]] == list(range(1, 9))
        assert {take["remark"] for take in seen["takes"]} == {"ok"}
        assert seen["enrolled"]["version"] == 0
        assert not asked(tmp_path, "baseline", "list")
        accepted = asked(tmp_path, "baseline", "accept", A.asset, A.channel, "--leave-out", 3, "--reason", "new pump")
        assert (accepted["version"], len(accepted["state_of_take"])) == (1, 7)
        wait_until(lambda: state_of(gateway) is State.NORMAL, "a judgement", 30)
    with Database(tmp_path / "state") as database:
        (facts,) = Baselines(database).facts(A)
    assert (facts.reason, len(facts.takes)) == ("new pump", 7)
    assert len(list((tmp_path / "state" / "audio").rglob("*.wav"))) == 7
    assert not list((tmp_path / "state" / "takes").rglob("*.wav"))
    assert "no take of pump/a waits" in refused(tmp_path, "baseline", "review", A.asset, A.channel)


def test_further_takes_extend_a_baseline(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """With --extend the windows enrolled already stay, and undo goes back."""
    before = before_of(enrolled)
    with started(enrolled, mosquitto, machine):
        asked(enrolled, "baseline", "record", A.asset, A.channel, "--minutes", 0.1, "--state", "fast")
        seen = asked(enrolled, "baseline", "review", A.asset, A.channel, "--extend")
        accepted = asked(enrolled, "baseline", "accept", A.asset, A.channel, "--extend")
    assert {take["state"] for take in seen["takes"]} == {"fast"}
    assert (accepted["version"], accepted["windows_before"]) == (2, before)
    assert accepted["windows"] > 0
    undone = run_here("baseline", "undo", A.asset, A.channel, "--state-dir", enrolled / "state")
    assert undone.stdout == "pump/a: version 1 of normal is active again\n"
    assert before_of(enrolled) == before


def before_of(folder: Path) -> int:
    """Windows of the active normal state."""
    with Database(folder / "state") as database:
        normal = Baselines(database).get(A, None)
    assert normal is not None
    return len(normal)


def test_recording_ends_early_and_with_the_gateway(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """What was recorded stays, whoever ends it; a second recording at the same time is refused."""
    with started(enrolled, mosquitto, machine), Database(enrolled / "state") as database:
        commands = Commands(database)
        first = commands.ask("record", A, {"minutes": 5})
        wait_until(lambda: commands.get(first).answer.get("seconds", 0) > 3, "three seconds", 30)
        assert "is being recorded already" in refused(enrolled, "baseline", "record", A.asset, A.channel)
        commands.ask("stop", A, {})
        wait_until(lambda: commands.get(first).ended, "the end", 30)
        assert (commands.get(first).status, commands.get(first).answer["takes"]) == ("done", 1)
        second = commands.ask("record", A, {"minutes": 5})
        wait_until(lambda: commands.get(second).answer.get("seconds", 0) > 3, "three seconds", 30)
    with Database(enrolled / "state") as database:
        ended = Commands(database).get(second)
    assert (ended.status, ended.answer["error"]) == ("failed", "the gateway was stopped; 1 takes are kept")
    takes = PendingTakes(enrolled / "state", A).all()
    assert [take.facts.provider for take in takes] == ["cpu", "cpu"], "what the configuration says"
    discarded = run_here("baseline", "discard", A.asset, A.channel, "--state-dir", enrolled / "state")
    assert discarded.stdout == "pump/a: 2 take(s) deleted\n"


def test_recording_of_a_silent_sensor_ends(
    enrolled: Path, mosquitto: Mosquitto, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a sample it fails with the reason; what came before stays."""
    monkeypatch.setattr("fisher_edge.gateway.desk.SILENCE_S", 0.5)
    machine.silent = True
    with started(enrolled, mosquitto, machine):
        assert "error: no signal came" in refused(enrolled, "baseline", "record", A.asset, A.channel)


def test_recording_ends_when_the_disk_is_nearly_full(
    enrolled: Path, mosquitto: Mosquitto, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the records have no room."""
    with started(enrolled, mosquitto, machine):
        monkeypatch.setattr(Database, "is_disk_short", lambda _: True)
        assert "the disk is nearly full" in refused(enrolled, "baseline", "record", A.asset, A.channel)


def test_acknowledging_with_a_cause_gives_examples(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """The alarm stays, acknowledged, over new examples and a restart; the next windows look like its cause."""
    with Subscriber(mosquitto.port) as subscriber, started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.NORMAL, "normal", 30)
        assert "no warning and no alarm to acknowledge" in refused(
            enrolled, "alarms", "acknowledge", A.asset, A.channel
        )
        machine.faulty = True
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 30)
        wait_until(lambda: len(gateway.channels[A].unusual) >= 4, "windows of it", 30)
        words = ("acknowledge", A.asset, A.channel, "--cause", "gear tooth", "--note", "seen", "--by", "maria")
        told = asked(enrolled, "alarms", *words)
        assert (told["state"], told["cause"], told["no_examples"]) == ("alarm", "gear tooth", None)
        assert told["examples"] >= 4
        wait_until(
            lambda: (subscriber.of("result")[-1].fields["fault"] or {}).get("label") == "gear tooth", "the cause", 30
        )
        state = subscriber.of("state")[-1].fields
        assert (state["state"], state["severity"], state["acknowledged"], state["cause"]) == (
            "alarm",
            "alarm",
            True,
            "gear tooth",
        )
        assert [state["promise"][name] for name in ("alarms", "confirmed", "refuted")] == [1, 1, 0]
        assert state["promise"]["days"] > 0
        assert [each for each in events(subscriber) if each[1] == "alarm"] == [
            ("normal", "alarm", "sudden"),
            ("alarm", "alarm", "acknowledged"),
        ]
        handled = next(message.fields for message in subscriber.of("event") if message.fields["kind"] == "acknowledged")
        assert handled["handling"] == {"by": "maria", "cause": "gear tooth", "note": "seen"}
    with started(enrolled, mosquitto, machine) as gateway:
        assert gateway.channels[A].machine.memory.acknowledged
        assert state_of(gateway) is State.ALARM
        realised = gateway.channels[A].realised
        assert realised is not None
        assert (realised.alarms, realised.confirmed) == (1, 1)
    listed = run_here("alarms", "list", "--state-dir", enrolled / "state").stdout
    assert "pump/a  alarm since" in listed
    assert "  acknowledged  1 alarms in" in listed
    history = run_here("alarms", "history", A.asset, A.channel, "--state-dir", enrolled / "state").stdout
    assert "acknowledged  alarm acknowledged: gear tooth  by maria: seen" in history


def test_false_alarm_gives_no_example(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """It is counted as refuted; a cause named later takes its place."""
    machine.faulty = True
    with started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 30)
        told = asked(enrolled, "alarms", "acknowledge", A.asset, A.channel, "--cause", "false alarm")
        assert (told["examples"], told["no_examples"]) == (0, "no fault was named")
        realised = gateway.channels[A].realised
        assert realised is not None
        assert (realised.confirmed, realised.refuted) == (0, 1)
        asked(enrolled, "alarms", "acknowledge", A.asset, A.channel, "--cause", "gear tooth")
        realised = gateway.channels[A].realised
        assert realised is not None
        assert (realised.confirmed, realised.refuted) == (1, 0)


def test_examples_of_a_cause_that_was_another_are_withdrawn(
    enrolled: Path, mosquitto: Mosquitto, machine: Machine
) -> None:
    """They become examples of the right one; what was enrolled before stays."""
    machine.faulty = True

    def labels() -> list[tuple[str | None, int]]:
        return [(row["label"], len(row["recordings"])) for row in rows() if row["active"] and row["label"]]

    def rows() -> list[dict[str, Any]]:
        return list(asked(enrolled, "baseline", "list"))  # type: ignore[arg-type]  # a list of objects

    def acknowledged(cause: str) -> None:
        asked(enrolled, "alarms", "acknowledge", A.asset, A.channel, "--cause", cause)

    with started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: len(gateway.channels[A].unusual) >= 4, "windows of an alarm", 30)
        acknowledged("gear tooth")
        assert labels() == [("gear tooth", 1)]
        acknowledged("inner race")
        assert labels() == [("inner race", 1)]
        acknowledged("false alarm")
        assert labels() == []


def test_shelved_channel_is_quiet_until_it_is_unshelved(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """No event of the alarm comes, over a restart too; unshelving tells it."""
    with Subscriber(mosquitto.port) as subscriber, started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.NORMAL, "normal", 30)
        told = asked(enrolled, "alarms", "shelve", A.asset, A.channel, "--minutes", 60, "--note", "new coupling")
        assert told["until_s"] == pytest.approx(time.time() + 3600, abs=60)
        machine.faulty = True
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 30)
    with Subscriber(mosquitto.port) as later, started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.ALARM, "the alarm", 30)
        assert asked(enrolled, "alarms", "unshelve", A.asset, A.channel)["state"] == "alarm"
        wait_until(lambda: ("normal", "alarm", "unshelved") in events(later), "the event", 30)
    kinds = [kind for _, after, kind in events(subscriber) if after in {"normal", "alarm"} and kind]
    assert kinds == ["shelved"]
    assert "is not shelved" in again(enrolled, mosquitto, machine, "alarms", "unshelve", A.asset, A.channel)
    assert "give up to" in again(enrolled, mosquitto, machine, "alarms", "shelve", A.asset, A.channel, "--minutes", 1e9)


def again(folder: Path, mosquitto: Mosquitto, machine: Machine, *words: object) -> str:
    """Run a gateway for one command that is refused."""
    with started(folder, mosquitto, machine):
        return refused(folder, *words)


def test_alarm_that_was_not_told_survives_another_baseline_and_a_restart(
    enrolled: Path, encoder: Encoder, mosquitto: Mosquitto, machine: Machine
) -> None:
    """Shelved, enrolled anew, alarmed against that, stopped: the alarm is there after the restart."""
    with started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.NORMAL, "normal", 30)
        asked(enrolled, "alarms", "shelve", A.asset, A.channel, "--minutes", 60)
        enroll_machine(enrolled, encoder, A, range(3, 6))
        wait_until(lambda: gateway.channels[A].plan.baseline_version == 2, "the new baseline", 30)
        machine.faulty = True
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 30)
    machine.silent = True
    with started(enrolled, mosquitto, machine) as gateway:
        assert gateway.channels[A].machine.memory.severity is State.ALARM
        assert gateway.channels[A].machine.memory.shelved_until_s is not None


def test_activating_the_active_version_ends_no_alarm(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """Neither at once nor at the next start."""
    machine.faulty = True
    with started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 30)
        asked(enrolled, "alarms", "acknowledge", A.asset, A.channel)
        again_active = ("baseline", "activate", A.asset, A.channel, "--version", 1, "--state-dir", enrolled / "state")
        assert run_here(*again_active).returncode == 0
    machine.silent = True
    with started(enrolled, mosquitto, machine) as gateway:
        assert gateway.channels[A].machine.memory.acknowledged


def test_end_of_an_alarm_by_a_new_baseline_is_told_after_a_restart(
    enrolled: Path, encoder: Encoder, mosquitto: Mosquitto, machine: Machine
) -> None:
    """Who was told of the alarm hears that it is over."""
    machine.faulty = True
    with started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 30)
    machine.faulty = False
    enroll_machine(enrolled, encoder, A, range(3, 6))
    with Subscriber(mosquitto.port) as subscriber, started(enrolled, mosquitto, machine):
        wait_until(lambda: events(subscriber)[-1:] == [("alarm", "normal", None)], "its end", 30)


def test_another_baseline_of_the_same_number_keeps_its_own_record(
    enrolled: Path, encoder: Encoder, mosquitto: Mosquitto, machine: Machine
) -> None:
    """Removed and enrolled again, version 1 is not what it was."""
    machine.faulty = True
    with started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 30)
        assert run_here("baseline", "remove", *A, "--state-dir", enrolled / "state").returncode == 0
        wait_until(lambda: state_of(gateway) is State.NO_BASELINE, "its end", 30)
        assert gateway.channels[A].realised is None
        machine.faulty = False
        enroll_machine(enrolled, encoder, A, range(3, 6))
        wait_until(lambda: gateway.channels[A].realised is not None, "a judgement", 30)
        realised = gateway.channels[A].realised
        assert realised is not None
        assert (realised.baseline, realised.alarms) == (1, 0)


def test_enrollment_while_a_sensor_is_recorded_disturbs_neither(
    tmp_path: Path, encoder: Encoder, mosquitto: Mosquitto, machine: Machine
) -> None:
    """Windows of two plans are never compared; takes that wait are accepted while another one is under way."""
    with Database(tmp_path / "state"):
        pass
    with started(tmp_path, mosquitto, machine) as gateway, Database(tmp_path / "state") as database:
        wait_until(lambda: state_of(gateway) is State.NO_BASELINE, "the first window", 30)
        commands = Commands(database)
        number = commands.ask("record", A, {"minutes": 0.4})
        wait_until(lambda: commands.get(number).answer.get("takes", 0) >= 2, "two takes", 30)
        asked(tmp_path, "baseline", "accept", A.asset, A.channel)
        enroll_machine(tmp_path, encoder, A)
        wait_until(lambda: commands.get(number).ended, "the end", 60)
        done = commands.get(number)
        assert (done.status, done.answer["takes"], done.answer["problem"]) == ("done", 8, None)
        assert len(PendingTakes(tmp_path / "state", A).all()) <= 6
        assert state_of(gateway) is State.NORMAL


def test_channel_that_is_refused_can_be_recorded(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """Its windows differ from those enrolled: to enroll again it must be heard."""
    with started(enrolled, mosquitto, machine, window_s=0.64) as gateway:
        wait_until(lambda: state_of(gateway) is State.CHECK_FUNCTION, "check_function", 30)
        told = asked(enrolled, "baseline", "record", A.asset, A.channel, "--minutes", 0.1)
        assert told["seconds"] == pytest.approx(6, abs=2 * BLOCK_S)
        assert told["takes"] in {2, 3}


def test_recording_of_a_channel_in_alarm_says_so(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """What is recorded then may be the fault."""
    machine.faulty = True
    with started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 30)
        words = ("baseline", "record", *A, "--minutes", 0.1, "--state-dir", enrolled / "state")
        assert "the channel is in alarm: accept them only if" in run_here(*words).stdout


def test_recording_is_ended_by_a_command(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """Whoever began it may have gone."""
    with started(enrolled, mosquitto, machine), Database(enrolled / "state") as database:
        commands = Commands(database)
        number = commands.ask("record", A, {"minutes": 5})
        wait_until(lambda: commands.get(number).answer.get("seconds", 0) > 1, "a second", 30)
        ended = run_here("baseline", "stop", *A, "--state-dir", enrolled / "state")
        assert ended.stdout.startswith("pump/a: 0.")
        assert ended.stdout.endswith("minutes recorded, 1 take\n")


def test_command_that_nobody_takes_is_taken_back(
    enrolled: Path, mosquitto: Mosquitto, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not carried out later, when nobody expects it."""
    monkeypatch.setattr("fisher_edge.gateway.worker.LOOK_S", 1e9)
    monkeypatch.setattr("fisher_edge.cli.state.ANSWER_S", 0.2)
    with started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.NORMAL, "normal", 30)
        assert "has not answered for 0.2 s" in refused(enrolled, "baseline", "record", A.asset, A.channel)
        with Database(enrolled / "state") as database:
            assert Commands(database).waiting() == []


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ("normal", "'normal' is no cause of an alarm; say 'false alarm'"),
        ("Unfamiliar operating state", "is no cause of an alarm"),
        ("a\nb", "names no fault"),
    ],
)
def test_cause_that_is_none_is_refused(
    enrolled: Path, mosquitto: Mosquitto, machine: Machine, cause: str, reason: str
) -> None:
    """Nothing is acknowledged or counted then."""
    machine.faulty = True
    with started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 30)
        assert reason in refused(enrolled, "alarms", "acknowledge", A.asset, A.channel, "--cause", cause)
        assert not gateway.channels[A].machine.memory.acknowledged
        told = asked(enrolled, "alarms", "acknowledge", A.asset, A.channel, "--cause", "False Alarm")
        assert told["cause"] == "false alarm"


def test_operating_state_comes_over_mqtt(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """Takes get the state of the machine, windows are judged by it; an unfamiliar one and an idle machine are said."""
    states = {"slow": [300, 900], "fast": [900, 3000]}
    channel = {"operating_state": {"topic": TOPIC, "field": "rpm", "states": states}}
    with Subscriber(mosquitto.port) as plant, started(enrolled, mosquitto, machine, **channel) as gateway:

        def sent(payload: str, condition: Callable[[dict[str, Any]], bool], what: str) -> None:
            plant.publish(TOPIC, payload)
            wait_until(lambda: condition(plant.of("result")[-1].fields), what, 30)

        wait_until(lambda: plant.of("result"), "a result", 30)
        plant.publish(TOPIC, '{"rpm": 900}')
        wait_until(lambda: gateway.contexts[A].now().state == "fast", "the state", 30)
        asked(enrolled, "baseline", "record", A.asset, A.channel, "--minutes", 0.1)
        accepted = asked(enrolled, "baseline", "accept", A.asset, A.channel)
        assert accepted["states"] == ["fast"]
        sent('{"rpm": 2000}', lambda said: said["baseline"]["version"] == 2, "the new baseline")
        sent('{"rpm": 2000}', lambda said: (said["state"], said["operating_state"]) == ("normal", "fast"), "fast")
        sent('{"rpm": 899.5}', lambda said: (said["state"], said["operating_state"]) == ("warning", "slow"), "slow")
        sent(
            '{"rpm": 0}', lambda said: said["state"] == "idle" and "idles: 0 belongs to none" in said["reason"], "idle"
        )
        sent('{"rpm": 1000}', lambda said: said["state"] == "normal", "fast again")
    said = [message.fields for message in plant.of("event")]
    unfamiliar = [each for each in said if each["kind"] == "unfamiliar operating state"]
    assert "unfamiliar operating state 'slow': enroll it if it is normal" in unfamiliar[0]["reason"]
    assert "alarm" not in {each["after"] for each in said}


def test_state_that_changes_in_every_window_is_no_data(
    enrolled: Path, mosquitto: Mosquitto, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is judged then, which must not look as if all were well."""
    moments = itertools.count()
    monkeypatch.setattr(Context, "now", lambda _: Situation(f"state {next(moments)}"))
    channel = {"no_data_s": 1.0, "operating_state": {"topic": TOPIC}}
    with started(enrolled, mosquitto, machine, **channel) as gateway:
        wait_until(lambda: state_of(gateway) is State.NO_DATA, "no_data", 30)
        status = gateway.status()
        assert status is not None
        assert "could be judged for" in (status.channels[0].reason or "")
        assert "the operating state changed within this window" in (status.channels[0].reason or "")


def test_machine_that_stands_is_not_judged(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """Below `idle_below` the state is idle and says why, whatever the signal is."""
    machine.faulty = True
    with Subscriber(mosquitto.port) as subscriber, started(enrolled, mosquitto, machine, idle_below=10.0):
        wait_until(lambda: subscriber.of("result"), "a result", 30)
        said = subscriber.of("result")[0].fields
    assert (said["state"], said["distance"], said["evidence"]) == ("idle", None, None)
    assert said["reason"].startswith("the machine stands: RMS 0.")
    assert said["features"]["rms"] > 0


def test_stops_and_starts_of_a_healthy_machine_are_no_alarm(
    enrolled: Path, mosquitto: Mosquitto, machine: Machine
) -> None:
    """A window that holds a stop or a start is not judged."""
    with Subscriber(mosquitto.port) as subscriber, started(enrolled, mosquitto, machine, idle_below=0.02) as gateway:
        wait_until(lambda: state_of(gateway) is State.NORMAL, "normal", 30)
        for _ in range(4):
            for gain, state in ((1e-3, State.IDLE), (1.0, State.NORMAL)):
                machine.gain = gain
                wait_until(lambda state=state: state_of(gateway) is state, state.value, 30)  # type: ignore[misc]
    assert {each[1] for each in events(subscriber)} <= {"normal", "idle"}
    passing = [each.fields for each in subscriber.of("result") if "started or stopped" in each.fields.get("reason", "")]
    assert passing


def test_machine_with_pauses_is_judged(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """It stands in a part of every piece: that is no stop, and its fault is an alarm."""
    machine.faulty, machine.pauses = True, True
    with started(enrolled, mosquitto, machine, idle_below=0.02) as gateway:
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 30)


def test_replay_as_fast_as_possible_awaits_no_message(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """The whole recording would be over before one comes."""
    machine.faulty = True
    channel = {"operating_state": {"topic": TOPIC}}
    with started(enrolled, mosquitto, machine, **channel) as gateway:
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 8)


def test_start_without_a_usable_baseline_loses_nothing(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """A wrong window length in between: alarm, cause, shelving and counts are there when it is corrected."""
    machine.faulty = True
    with started(enrolled, mosquitto, machine) as gateway:
        wait_until(lambda: state_of(gateway) is State.ALARM, "an alarm", 30)
        asked(enrolled, "alarms", "acknowledge", A.asset, A.channel, "--cause", "gear tooth")
        asked(enrolled, "alarms", "shelve", A.asset, A.channel, "--minutes", 60)
    for _ in range(2):
        with Subscriber(mosquitto.port) as subscriber, started(enrolled, mosquitto, machine, window_s=0.64) as gateway:
            wait_until(lambda: state_of(gateway) is State.CHECK_FUNCTION, "check_function", 30)
            wait_until(lambda: subscriber.of("state"), "its state", 30)
        assert events(subscriber)[:1] in ([], [("alarm", "check_function", None)])
    with started(enrolled, mosquitto, machine) as gateway:
        memory = gateway.channels[A].machine.memory
        assert (memory.severity, memory.acknowledged, memory.cause) == (State.ALARM, True, "gear tooth")
        assert memory.shelved_until_s is not None
        realised = gateway.channels[A].realised
        assert realised is not None
        assert (realised.alarms, realised.confirmed) == (1, 1)


def test_alarm_that_is_over_is_counted_when_it_is_acknowledged(
    enrolled: Path, mosquitto: Mosquitto, machine: Machine
) -> None:
    """A false alarm of the night is one although it is normal by now; its windows can still become examples."""
    with started(enrolled, mosquitto, machine) as gateway:
        machine.faulty = True
        wait_until(lambda: len(gateway.channels[A].unusual) >= 4, "windows of an alarm", 30)
        machine.faulty = False
        wait_until(lambda: state_of(gateway) is State.NORMAL, "its end", 30)
        told = asked(enrolled, "alarms", "acknowledge", A.asset, A.channel, "--cause", "gear tooth")
        assert told["examples"] >= 4
        realised = gateway.channels[A].realised
        assert realised is not None
        assert (realised.alarms, realised.confirmed) == (1, 1)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("alarms", "shelve", "pump", "b", "--minutes", "5"), "this gateway has no channel pump/b; it has: pump/a"),
        (("baseline", "record", "pump", "a", "--minutes", "0"), "0 minutes cannot be recorded"),
        (("baseline", "record", "pump", "a", "--state", " \n"), "names nothing"),
        (("baseline", "stop", "pump", "a"), "is not being recorded"),
        (("baseline", "record", "pump", "a", "--minutes", "1e6"), "1e+06 minutes cannot be recorded; give up to 10080"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    enrolled: Path, mosquitto: Mosquitto, machine: Machine, words: tuple[str, ...], reason: str
) -> None:
    """One line, and exit code 4."""
    assert reason in again(enrolled, mosquitto, machine, *words)


def test_commands_of_other_programs_are_checked(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """An unknown verb and arguments of a wrong kind fail, and the worker goes on."""
    with started(enrolled, mosquitto, machine) as gateway, Database(enrolled / "state") as database:
        commands = Commands(database)
        numbers = [
            commands.ask("explode", A, {}),
            commands.ask("shelve", A, {}),
            commands.ask("record", A, {"minutes": "x"}),
        ]
        wait_until(lambda: all(commands.get(number).ended for number in numbers), "the answers", 30)
        answers = [commands.get(number).answer["error"] for number in numbers]
        before = gateway.channels[A].counters.results
        wait_until(lambda: gateway.channels[A].counters.results > before, "another result", 30)
    assert answers[0].startswith("there is no command 'explode'; known are: acknowledge, ")
    assert [answer.split(": ")[0] for answer in answers[1:]] == ["shelve", "record"]


def test_without_a_gateway_nothing_is_asked(enrolled: Path) -> None:
    """The line says how to start it; no command stays behind."""
    assert "no gateway runs on" in refused(enrolled, "alarms", "unshelve", A.asset, A.channel)
    connection = sqlite3.connect(enrolled / "state" / DATABASE_NAME)
    assert connection.execute("SELECT count(*) FROM command").fetchone() == (0,)
    connection.close()


def test_commands_that_a_killed_gateway_had_taken_fail(enrolled: Path, mosquitto: Mosquitto, machine: Machine) -> None:
    """The next start says so: nobody waits for ever."""
    with Database(enrolled / "state") as database:
        number = Commands(database).ask("record", A, {"minutes": 5})
        Commands(database).answer(number, "running", {"seconds": 3.0})
        waiting = Commands(database).ask("shelve", A, {"minutes": 5})
    with started(enrolled, mosquitto, machine) as gateway, Database(enrolled / "state") as database:
        left = Commands(database).get(number)
        assert Commands(database).get(waiting).status == "failed"
        assert gateway.channels[A].machine.memory.shelved_until_s is None
    assert (left.status, left.answer["seconds"]) == ("failed", 3.0)
    assert "the gateway was started again before it was done" in left.answer["error"]
