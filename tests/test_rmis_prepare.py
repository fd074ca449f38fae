"""From the publishers' folders to segments: names, keys, labels, samples, and what is wrong with a download."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import rmis_trees as trees
import soundfile
from command import COMMAND, run

from fisher_bench.rmis.catalogue import SETS, find
from fisher_bench.rmis.index import Index, Segment, read_index
from fisher_bench.rmis.prepare import prepare_set
from fisher_bench.rmis.prepare.cut import pieces_of
from fisher_bench.rmis.prepare.expected import lacking
from fisher_bench.rmis.prepare.layouts import LAYOUTS, find_sources
from fisher_edge.errors import BadInputError, UsageError

LISTED = [known.name for known in SETS if known.keys and known.name != "idmt_air"]


def _noise(samples: int, columns: int, peak: float, seed: int = 0) -> trees.Wave:
    wave = np.random.default_rng(seed).uniform(-0.9, 0.9, (samples, columns)) * peak
    wave[samples // 2] = peak
    return wave


def _prepared(name: str, raw: Path, out: Path) -> dict[str, Segment]:
    index = prepare_set(name, raw, out, allow_incomplete=True)
    return {segment.file: segment for segment in index.segments}


@pytest.mark.parametrize("name", LISTED)
def test_complete_download_has_the_benchmark_s_counts(name: str, tmp_path: Path) -> None:
    """Every published file is recognised, every class complete, and keys number what the benchmark has."""
    trees.touch(tmp_path, trees.complete_names(name))
    sources, strange = find_sources(name, tmp_path)
    known = find(name)
    assert (len(sources), strange) == (known.sources, [])
    keys = {(source.label, channel.key) for source in sources for channel in source.channels}
    assert len(keys) == known.keys
    assert {source.label for source in sources} == set(known.classes)
    assert len({channel.name for source in sources for channel in source.channels}) == sum(
        len(source.channels) for source in sources
    )
    assert lacking(known, sources) == ""
    assert lacking(known, sources[1:]) != ""


def test_every_set_but_dcase_has_a_layout() -> None:
    """No set of the catalogue is left without a reader of its folders."""
    assert set(LAYOUTS) == {known.name for known in SETS if not known.detects}


def test_pieces_follow_the_rule_of_five_seconds() -> None:
    """More than 5 s left over: the last 10 s; 5 s or less: dropped; a short recording: whole, or nothing."""
    rate = 1000
    assert pieces_of(20_000, rate) == [(0, 10_000), (10_000, 10_000)]
    assert pieces_of(25_000, rate) == [(0, 10_000), (10_000, 10_000)]
    assert pieces_of(25_001, rate) == [(0, 10_000), (10_000, 10_000), (15_001, 10_000)]
    assert pieces_of(10_000, rate) == [(0, 10_000)]
    assert pieces_of(9_999, rate) == [(0, 9_999)]
    assert pieces_of(5_001, rate) == [(0, 5_001)]
    assert pieces_of(5_000, rate) == []
    assert pieces_of(0, rate) == []


def test_sdust_counts_columns_backwards_and_scales_by_one_peak(tmp_path: Path) -> None:
    """Column 1 is channel 6; the largest sample of the whole set becomes full scale, quieter files stay quieter."""
    loud, quiet = _noise(140_800, 6, 4.0), _noise(140_800, 6, 2.0, seed=1)
    trees.sdust_mat(tmp_path / "raw/x/IF0.2/IF0.2 1000 20.mat", loud)
    trees.sdust_mat(tmp_path / "raw/x/OF0.6/OF0.6 1000-2000 40.mat", quiet, 1 / 25_600)
    found = _prepared("sdust_bearing", tmp_path / "raw", tmp_path / "out")
    assert len(found) == 12
    segment = found["IF0.2_IF0.2_1000_20_channel6_ch0_0.wav"]
    assert (segment.label, segment.class_id, segment.channel) == ("IF0.2", 0, 6)
    assert segment.key == "IF0.2_IF0.2_1000_20_channel6"
    assert (segment.condition, segment.source) == ("1000 20", "x/IF0.2/IF0.2 1000 20.mat")
    wave, rate_hz = soundfile.read(tmp_path / "out" / segment.path, dtype="int16")
    assert rate_hz == 25_600
    assert np.abs(wave - np.clip(loud[:, 0] / 4 * 32768, -32768, 32767)).max() <= 1
    other = found["OF0.6_OF0.6_1000-2000_40_channel1_ch0_0.wav"]
    wave, _ = soundfile.read(tmp_path / "out" / other.path)
    assert np.abs(wave - quiet[:, 5] / 4).max() < 1 / 32000
    facts = read_index(tmp_path / "out").facts
    assert (facts["peak"], facts["scale"]) == (4.0, 4.0)
    assert "36 of 37 files" not in facts["incomplete"]
    assert "1 of 37 files of IF0.2" in facts["incomplete"]


def test_a_set_below_full_scale_is_not_scaled(tmp_path: Path) -> None:
    """A peak of 1 or less leaves the amplitude alone."""
    data = _noise(500, 8, 0.5)
    trees.mafaulda_csv(tmp_path / "raw/full/normal/12.288.csv", data)
    found = _prepared("mafaulda_sound", tmp_path / "raw", tmp_path / "out")
    wave, rate_hz = soundfile.read(tmp_path / "out" / found["normal_12.288_channel8.wav"].path)
    assert rate_hz == 50_000
    assert wave == pytest.approx(data[:, 7], abs=1e-4)


def test_mafaulda_keeps_the_dot_and_takes_each_column_as_a_clip(tmp_path: Path) -> None:
    """Columns 2 to 7 are vibration, each with a key of its own; the peak is that of the columns used."""
    data = _noise(400, 8, 1.0)
    data[:, 0] = 50.0  # the tachometer is not part of the set
    data[:, 7] = 20.0
    data[3, 2] = -8.0
    trees.mafaulda_csv(tmp_path / "raw/overhang/cage_fault/6g/13.9264.csv", data)
    trees.mafaulda_csv(tmp_path / "raw/vertical-misalignment/0.51mm/20.0.csv", data / 2)
    found = _prepared("mafaulda_vib", tmp_path / "raw", tmp_path / "out")
    assert len(found) == 12
    segment = found["overhang_cage_fault_6g_13.9264_channel3.wav"]
    assert (segment.label, segment.class_id, segment.key) == (
        "overhang_cage_fault",
        4,
        segment.file.removesuffix(".wav"),
    )
    assert read_index(tmp_path / "out").facts["scale"] == 8.0
    wave, _ = soundfile.read(tmp_path / "out" / segment.path)
    assert wave[3] == -1.0
    assert found["vertical-misalignment_0.51mm_20.0_channel2.wav"].label == "vertical-misalignment"


def test_wtpg_takes_two_of_four_columns_as_flac(tmp_path: Path) -> None:
    """The extension is in upper case, key-phase files are passed over, the segments are FLAC."""
    data = _noise(48_000 * 11, 4, 2.0)
    data[:, 3] = 100.0
    trees.wtpg_mat(tmp_path / "raw/missing_tooth/2/M2_35.MAT", data)
    trees.touch(tmp_path / "raw", ["missing_tooth/2/M2_35_keyphase.MAT", "missing_tooth/2/notes.MAT"])
    found = _prepared("wt_plane_gearbox", tmp_path / "raw", tmp_path / "out")
    assert sorted(found) == [f"missing_tooth_2_M2_35_channel{c}_ch0_0.flac" for c in (1, 2)]
    segment = found["missing_tooth_2_M2_35_channel1_ch0_0.flac"]
    assert (segment.samples, segment.class_id, segment.condition) == (480_000, 2, "35 Hz")
    assert segment.key == "missing_tooth_2_M2_35_channel1"
    info = soundfile.info(tmp_path / "out" / segment.path)
    assert (info.format, info.subtype, info.samplerate) == ("FLAC", "PCM_16", 48_000)
    skipped = read_index(tmp_path / "out").facts["skipped"]
    assert skipped == [{"file": "missing_tooth/2/notes.MAT", "reason": "its name does not fit the layout"}]


def test_umged_is_read_from_hdf5_by_variable(tmp_path: Path) -> None:
    """Each modality takes its own variables of a v7.3 file; labels are eccentricities."""
    sensors = list(_noise(51_200 * 6, 11, 1.0).T)
    trees.umged_mat(tmp_path / "raw/GearEccDataset/G1/E16/N139_G1_E16_T3_S1200.mat", sensors)
    for name, channels in (("sound", [6]), ("vib", [3, 4, 5]), ("vol", [7, 8]), ("cur", [1, 2])):
        found = _prepared(f"umged_{name}", tmp_path / "raw", tmp_path / name)
        assert [segment.channel for segment in found.values()] == channels
        for segment in found.values():
            wave, _ = soundfile.read(tmp_path / name / segment.path)
            assert np.abs(wave - sensors[segment.channel - 1]).max() < 1 / 32000
            assert segment.key == f"G1_E16_N139_G1_E16_T3_S1200_channel{segment.channel:02d}"
            assert (segment.label, segment.class_id) == ("E16", 8)


def test_pu_seals_by_bearing_and_condition(tmp_path: Path) -> None:
    """Repetitions and both currents share a key; combined damage goes where the benchmark puts it."""
    signals = [np.full(400, 0.1 * n) for n in range(7)]
    for bearing, repetition in (("KA08", 1), ("KA08", 10), ("KB23", 1), ("KB27", 1), ("K001", 1)):
        trees.pu_mat(tmp_path / f"raw/{bearing}/N15_M01_F10_{bearing}_{repetition}.mat", signals)
    vibration = _prepared("pu_vib", tmp_path / "raw", tmp_path / "vib")
    current = _prepared("pu_cur", tmp_path / "raw", tmp_path / "cur")
    segment = vibration["OR_artificial_KA08_N15_M01_F10_KA08_10_channel7.wav"]
    assert (segment.label, segment.class_id, segment.key) == ("OR", 2, "OR_artificial_KA08_N15_M01_F10_KA08")
    assert {s.label for s in vibration.values() if "KB23" in s.file} == {"IR"}
    assert {s.key for s in vibration.values() if "KB27" in s.file} == {"OR_lifetime_KB27_N15_M01_F10_KB27"}
    assert {s.label for s in vibration.values() if "K001" in s.file} == {"healthy"}
    assert len(current) == 10
    assert len({s.key for s in current.values()}) == 4
    for channel, value in ((2, 0.1), (3, 0.2)):
        path = current[f"healthy_K001_N15_M01_F10_K001_1_channel{channel}.wav"].path
        assert soundfile.read(tmp_path / "cur" / path)[0] == pytest.approx(np.full(400, value), abs=1e-4)


def test_pu_broken_file_is_told_or_read_when_repaired(tmp_path: Path) -> None:
    """The file that was published damaged is left out with the reason; a repaired one is one level deeper and used."""
    signals = [np.full(400, 0.1 * n) for n in range(7)]
    raw = tmp_path / "raw"
    for repetition in (1, 2, 3):
        trees.pu_mat(raw / f"KA08/N15_M01_F10_KA08_{repetition}.mat", signals)
    broken = raw / "KA08/N15_M01_F10_KA08_2.mat"
    content = broken.read_bytes()
    broken.write_bytes(content[:200] + bytes(len(content) - 200))
    found = _prepared("pu_vib", raw, tmp_path / "out")
    assert len(found) == 2
    (skipped,) = read_index(tmp_path / "out").facts["skipped"]
    assert skipped["file"] == "KA08/N15_M01_F10_KA08_2.mat"
    assert "published damaged" in skipped["reason"]
    trees.pu_mat(broken, signals, repaired=True)
    assert len(_prepared("pu_vib", raw, tmp_path / "out")) == 3
    sources, _ = find_sources("pu_vib", raw)
    complete = [*sources]
    assert "79" not in lacking(find("pu_vib"), complete, [s for s in sources if s.path == broken])


def test_iica_key_is_the_source_and_24_bits_become_16(tmp_path: Path) -> None:
    """Three pieces would be numbered 0 to 2; the microphone stays in the key, also without the last underscore."""
    wave = _noise(48_000 * 12, 1, 0.5)[:, 0]
    trees.wav(tmp_path / "raw/raw/tubeleak/lab/1/1_niO_4.0_1m_.wav", wave, 48_000, "PCM_24")
    trees.wav(tmp_path / "raw/raw/ventlow/work_low/3/3_iO_2.5_4l.wav", wave, 48_000, "PCM_24")
    found = _prepared("idmt_air", tmp_path / "raw", tmp_path / "out")
    assert sorted(found) == ["tubeleak/lab/1/1_niO_4.0_1m_0.wav", "ventlow/work_low/3/3_iO_2.5_4l_0.wav"]
    segment = found["tubeleak/lab/1/1_niO_4.0_1m_0.wav"]
    assert (segment.label, segment.class_id) == ("tubeleak_leak", 1)
    assert segment.key == "tubeleak/lab/1/1_niO_4.0_1m"
    assert found["ventlow/work_low/3/3_iO_2.5_4l_0.wav"].label == "ventlow_noleak"
    stored, _ = soundfile.read(tmp_path / "out" / segment.path)
    assert soundfile.info(tmp_path / "out" / segment.path).subtype == "PCM_16"
    assert np.abs(stored - wave[:480_000]).max() < 1 / 32000


def test_iiee_keeps_the_official_split(tmp_path: Path) -> None:
    """Only the cut clips are used, where they lie; train and test come from the folder."""
    root = tmp_path / "raw/IDMT-ISA-ELECTRIC-ENGINE"
    for split, name in (("train", "pure_0"), ("test", "atmo_high_0")):
        for engine in ("engine1_good", "engine2_broken", "engine3_heavyload"):
            trees.wav(root / f"{split}_cut/{engine}/{name}.wav", np.zeros(4410), 44_100)
            trees.wav(root / f"{split}/{engine}/{name}.wav", np.zeros(44_100), 44_100)
    index = prepare_set("idmt_engine", tmp_path / "raw", tmp_path / "out")
    assert [(s.label, s.class_id, s.split) for s in index.segments if s.split == "test"] == [
        ("good", 0, "test"), ("broken", 1, "test"), ("heavyload", 2, "test"),
    ]  # fmt: skip
    assert len(index.segments) == 6
    assert all(Path(segment.path).is_file() and segment.samples == 4410 for segment in index.segments)
    shutil.rmtree(root / "test_cut/engine2_broken")
    with pytest.raises(BadInputError, match="no test file of broken"):
        prepare_set("idmt_engine", tmp_path / "raw", tmp_path / "out")


def _dcase20(root: Path) -> None:
    sections = {"ToyCar": ("01 02 03 04", "05 06 07"), "ToyConveyor": ("01 02 03", "04 05 06")}
    lines = []
    for machine in ["fan", "pump", "slider", "valve", "ToyCar", "ToyConveyor"]:
        dev, evaluation = sections.get(machine, ("00 02 04 06", "01 03 05"))
        lines.append(machine)
        for section in dev.split():
            for folder, state in (("train", "normal"), ("test", "normal"), ("test", "anomaly")):
                trees.dcase_clip(root, f"dev_data/{machine}/{folder}/{state}_id_{section}_00000000.wav")
        for section in evaluation.split():
            trees.dcase_clip(root, f"eval_data/{machine}/train/normal_id_{section}_00000000.wav")
            for serial, (state, label) in enumerate((("normal", 0), ("anomaly", 1))):
                trees.dcase_clip(root, f"eval_data/{machine}/test/id_{section}_{serial:08d}.wav")
                true = f"{state}_id_{section}_{serial + 98:08d}.wav"
                lines.append(f"id_{section}_{serial:08d}.wav,{true},{label}")
    (root / "eval_data_list_2020.csv").write_bytes("\r\n".join(lines).encode() + b"\r\n")


def test_dcase_2020_has_machine_ids_for_sections(tmp_path: Path) -> None:
    """Everything about an evaluation clip comes from its true name; the list has Windows line ends."""
    _dcase20(tmp_path / "raw")
    found = _prepared("dcase20", tmp_path / "raw", tmp_path / "out")
    assert len(found) == 23 * 3 + 18 * 3
    clip = found["eval_data/ToyCar/test/id_05_00000001.wav"]
    assert (clip.subset, clip.machine, clip.section, clip.split) == ("eval", "ToyCar", "05", "test")
    assert (clip.domain, clip.anomalous, clip.samples, clip.rate_hz) == ("source", 1, 160, 16_000)
    assert found["dev_data/fan/test/normal_id_00_00000000.wav"].anomalous == 0
    with pytest.raises(BadInputError, match=r"eval_data/fan with 6 of 1342 test clips.*and 3 more machines.*3678171"):
        prepare_set("dcase20", tmp_path / "raw", tmp_path / "out")


def _names(section: str, domain: str, split: str, state: str, serial: int, attributes: str) -> str:
    return f"section_{section}_{domain}_{split}_{state}_{serial:04d}" + (f"_{attributes}" if attributes else "")


def test_dcase_from_2021_reads_domains_and_attributes(tmp_path: Path) -> None:
    """Attributes may hold dots; 2021 tests each domain in a folder; true names may lack `.wav` and `test`."""
    root = tmp_path / "raw/DCASE"
    dev = f"dev_data/valve/train/{_names('00', 'source', 'train', 'normal', 7, 'volt_3.0_pat_1')}.wav"
    trees.dcase_clip(root, dev)
    trees.dcase_clip(root, f"dev_data/valve/target_test/{_names('01', 'target', 'test', 'anomaly', 3, '')}.wav")
    trees.dcase_clip(root, "eval_data/valve/source_test/section_03_source_test_0000.wav")
    trees.dcase_clip(root, "dev_data/valve/supplemental/section_00_machine_source_0000_noAttribute.wav")
    truth = "valve\nsection_03_source_test_0000.wav,section_03_source_anomaly_0035_weight15_BckgF\n"
    (root / "eval_data/eval_data_list_2021.csv").parent.mkdir(exist_ok=True)
    (root / "eval_data/eval_data_list_2021.csv").write_text(truth)
    found = _prepared("dcase21", tmp_path / "raw", tmp_path / "out")
    assert len(found) == 3
    assert (found[dev].domain, found[dev].attributes, found[dev].anomalous) == ("source", "volt_3.0_pat_1", 0)
    clip = found["eval_data/valve/source_test/section_03_source_test_0000.wav"]
    assert (clip.section, clip.split, clip.anomalous, clip.attributes) == ("03", "test", 1, "weight15_BckgF")


def test_dcase_without_its_list_or_with_a_clip_it_lacks_is_refused(tmp_path: Path) -> None:
    """The list is needed, must be of the year, and must name every test clip of the evaluation."""
    raw = tmp_path / "raw"
    _dcase20(raw)
    (raw / "eval_data_list_2020.csv").rename(tmp_path / "aside.csv")
    with pytest.raises(BadInputError, match=r"eval_data_list_2020\.csv is not there.*baseline"):
        prepare_set("dcase20", raw, tmp_path / "out")
    (tmp_path / "aside.csv").rename(raw / "eval_data_list_2020.csv")
    trees.dcase_clip(raw, "eval_data/fan/test/id_01_00000009.wav")
    with pytest.raises(BadInputError, match=r"id_01_00000009\.wav is not in the list"):
        prepare_set("dcase20", raw, tmp_path / "out", allow_incomplete=True)


def test_a_clip_at_another_rate_or_damaged_is_left_out_and_told(tmp_path: Path) -> None:
    """Headers are read: a wrong rate, two channels or no WAV at all leave a clip out with the reason."""
    _dcase20(tmp_path / "raw")
    trees.dcase_clip(tmp_path / "raw", "dev_data/fan/test/normal_id_00_00000000.wav", rate_hz=8000)
    (tmp_path / "raw/dev_data/fan/test/anomaly_id_00_00000000.wav").write_bytes(b"RIFF")
    prepare_set("dcase20", tmp_path / "raw", tmp_path / "out", allow_incomplete=True)
    facts = read_index(tmp_path / "out").facts
    reasons = {item["file"]: item["reason"] for item in facts["skipped"]}
    assert "at 8000 Hz" in reasons["dev_data/fan/test/normal_id_00_00000000.wav"]
    assert "cannot be read" in reasons["dev_data/fan/test/anomaly_id_00_00000000.wav"]
    assert "dev_data/fan without 00 test" in facts["incomplete"]


@pytest.mark.parametrize(
    ("name", "file", "damage", "reason"),
    [
        ("wt_plane_gearbox", "wear/1/W1_20.MAT", "pointer", "Git LFS pointer"),
        ("wt_plane_gearbox", "wear/1/W1_20.MAT", "cut", "cannot be read as .MAT"),
        ("sdust_bearing", "NC/NC 1000 0.mat", "columns", "not (samples, 6)"),
        ("sdust_bearing", "NC/NC 1000 0.mat", "rate", "is at 12800 Hz, not 25600 Hz"),
        ("mafaulda_sound", "normal/12.5.csv", "columns", "has 7 columns, not 8"),
        ("mafaulda_sound", "normal/12.5.csv", "cut", "cannot be read as .csv"),
        ("umged_vib", "G1/N001_G1_E00_T1_S300.mat", "columns", "lacks 1 of 11 variables, the first is DataSensor11"),
        ("umged_vib", "G1/N001_G1_E00_T1_S300.mat", "cut", "cannot be read as .mat"),
        ("pu_vib", "K001/N15_M07_F10_K001_1.mat", "columns", "has 6 signals, not 7"),
        ("pu_vib", "K001/N15_M07_F10_K001_1.mat", "nan", "not finite"),
        ("idmt_air", "tubeleak/lab/1/1_iO_1_1m_.wav", "rate", "is at 44100 Hz, not 48000 Hz"),
        ("idmt_air", "tubeleak/lab/1/1_iO_1_1m_.wav", "columns", "has 2 channels, not one"),
    ],
)
def test_a_damaged_file_is_named_with_the_reason(
    name: str, file: str, damage: str, reason: str, tmp_path: Path
) -> None:
    """Every kind of damage is one line with the file, exit code 4, and no traceback."""
    path = tmp_path / "raw" / file
    _write_damaged(name, path, damage)
    done = run("rmis", "prepare", name, tmp_path / "raw", "--out", tmp_path / "out", "--allow-incomplete", "--json")
    assert done.returncode == 0, done.stderr
    (skipped,) = json.loads(done.stdout)["skipped"]
    assert skipped["file"] == file
    assert reason in skipped["reason"]
    assert "\n" not in skipped["reason"]
    done = run("rmis", "prepare", name, tmp_path / "raw", "--out", tmp_path / "out")
    assert done.returncode == 4
    assert "--allow-incomplete" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def _write_damaged(name: str, path: Path, damage: str) -> None:
    """Write a file of a set that is damaged in one way."""
    columns = -1 if damage == "columns" else 0
    data = _noise(2000, 11, 0.5)
    if damage == "nan":
        data[7] = np.nan
    family = name.split("_", maxsplit=1)[0]
    if family == "wt":
        trees.wtpg_mat(path, data[:, :4])
    elif family == "sdust":
        trees.sdust_mat(path, data[:, : 6 + columns], 1 / 12_800 if damage == "rate" else None)
    elif family == "mafaulda":
        trees.mafaulda_csv(path, data[:, : 8 + columns])
    elif family == "umged":
        trees.umged_mat(path, list(data.T[: 11 + columns]))
    elif family == "pu":
        trees.pu_mat(path, list(data.T[: 7 + columns]))
    else:
        trees.wav(path, data[:, :2] if columns else data[:, 0], 44_100 if damage == "rate" else 48_000)
    if damage == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 470000000\n")
    if damage == "cut":
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])


def _pu_tree(raw: Path, samples: int) -> None:
    for bearing in ("K001", "KI01", "KA01"):
        for repetition in range(1, 21):
            signals = list(_noise(samples, 7, 1.5, seed=repetition).T)
            trees.pu_mat(raw / f"{bearing}/N15_M07_F10_{bearing}_{repetition}.mat", signals)


def _content(index: Index, folder: Path) -> dict[str, bytes]:
    return {segment.file: (folder / segment.path).read_bytes() for segment in index.segments}


def test_a_killed_preparation_continues(tmp_path: Path) -> None:
    """After SIGKILL in the middle the same command ends with what an unbroken one gives; nothing is cut twice."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    _pu_tree(raw, 30_000)
    command = [*COMMAND, "rmis", "prepare", "pu_cur", str(raw), "--out", str(out), "--allow-incomplete"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    journal = out / "progress.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.is_file() and journal.read_text().count('"segments"') >= 8):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "index.parquet").exists()
    with journal.open("a") as file:
        file.write('{"stamp": "a line that was not fini')
    before = {path: path.stat().st_mtime_ns for path in sorted((out / "audio").glob("*.wav"))}
    done = journal.read_text().count('"segments"')
    assert 8 <= done < 60
    continued = prepare_set("pu_cur", raw, out, allow_incomplete=True)
    kept = [path for path, changed in before.items() if path.stat().st_mtime_ns == changed]
    assert len(kept) >= 2 * done
    unbroken = prepare_set("pu_cur", raw, tmp_path / "again", allow_incomplete=True)
    assert continued.segments == unbroken.segments
    assert len(continued.segments) == 120
    assert _content(continued, out) == _content(unbroken, tmp_path / "again")


def test_several_processes_give_what_one_gives(tmp_path: Path) -> None:
    """The number of workers changes nothing, and progress ends at the whole."""
    _pu_tree(tmp_path / "raw", 300)
    told: list[tuple[str, int, int]] = []
    one = prepare_set("pu_vib", tmp_path / "raw", tmp_path / "one", allow_incomplete=True)
    two = prepare_set(
        "pu_vib", tmp_path / "raw", tmp_path / "two", workers=2, allow_incomplete=True,
        report=lambda stage, done, total: told.append((stage, done, total)),
    )  # fmt: skip
    assert one == two
    assert _content(one, tmp_path / "one") == _content(two, tmp_path / "two")
    assert told[-1] == ("cutting", 60, 60)
    assert ("measuring the peak", 60, 60) in told


def test_a_replaced_source_is_done_again(tmp_path: Path) -> None:
    """A file that changed since, or a new peak of the set, is not taken from the last run."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    quiet, loud = [np.full(300, 0.5)] * 7, [np.full(500, 2.0)] * 7
    for n in (1, 2):
        trees.pu_mat(raw / f"K001/N15_M07_F10_K001_{n}.mat", quiet)
    prepare_set("pu_vib", raw, out, allow_incomplete=True)
    trees.pu_mat(raw / "K001/N15_M07_F10_K001_2.mat", loud)
    index = prepare_set("pu_vib", raw, out, allow_incomplete=True)
    assert [segment.samples for segment in index.segments] == [300, 500]
    assert soundfile.read(out / index.segments[0].path)[0] == pytest.approx(np.full(300, 0.25), abs=1e-4)


def test_a_full_disk_ends_with_one_line_and_loses_nothing(tmp_path: Path) -> None:
    """Where no more can be written the command says so with exit code 4; with room again it continues."""
    _pu_tree(tmp_path / "raw", 3000)
    command = [*COMMAND, "rmis", "prepare", "pu_cur", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    command += ["--allow-incomplete"]
    limited = ["sh", "-c", f"trap '' XFSZ; ulimit -f 4; exec {' '.join(command)}"]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "cannot write" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert len(prepare_set("pu_cur", tmp_path / "raw", tmp_path / "out", allow_incomplete=True).segments) == 120


def test_a_folder_holds_one_set(tmp_path: Path) -> None:
    """Another set into the same folder, the originals as output, or no originals are refused."""
    _pu_tree(tmp_path / "raw", 50)
    prepare_set("pu_vib", tmp_path / "raw", tmp_path / "out", allow_incomplete=True)
    with pytest.raises(BadInputError, match="holds pu_vib, not pu_cur"):
        prepare_set("pu_cur", tmp_path / "raw", tmp_path / "out", allow_incomplete=True)
    for inside in (tmp_path / "raw", tmp_path / "raw" / "out"):
        with pytest.raises(UsageError, match="lies in the folder of the originals"):
            prepare_set("pu_cur", tmp_path / "raw", inside)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="cannot write into"):
        prepare_set("pu_cur", tmp_path / "raw", tmp_path / "file" / "out")
    shutil.copytree(tmp_path / "raw" / "K001", tmp_path / "raw" / "twice" / "K001")
    with pytest.raises(BadInputError, match=r"K001_1\.mat and twice/K001/.* are the same recording"):
        prepare_set("pu_vib", tmp_path / "raw", tmp_path / "new", allow_incomplete=True)
    done = run("rmis", "prepare", "pu_vib", tmp_path / "nothing", "--out", tmp_path / "x")
    assert done.returncode == 4
    assert "get PU vib from groups.uni-paderborn.de" in done.stderr
    assert not (tmp_path / "x").exists()
