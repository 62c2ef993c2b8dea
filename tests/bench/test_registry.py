"""Names: built-in, from packages, from files; never guessed, never run unasked."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from attacks.threat import Threat
from bench.errors import BenchError
from bench.registry import ATTACKS, DEFENSES, KINDS, Entry, Registry, load_plugin, register
from bench.resolve import parse_attack


def test_a_taken_name_is_refused_with_its_owner() -> None:
    registry = Registry("defense", {"at": "defenses.at:at"})
    with pytest.raises(BenchError, match=r"already registered by .*defenses/at\.py:\d+"):
        registry.add("at", object())


@pytest.mark.parametrize("name", ["a+b", "a:b", "a,b", "a b", ""])
def test_a_name_the_command_line_could_not_say_is_refused(name: str) -> None:
    with pytest.raises(BenchError, match="letters, digits"):
        Registry("defense", {}).add(name, object())


def test_a_registered_name_that_is_also_a_step_count_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTACKS._entries, "pgd40", Entry("pgd40", ATTACKS.get("fgsm"), True))
    with pytest.raises(BenchError, match=r"'pgd40' is ambiguous.*'pgd' with 40 steps"):
        parse_attack("pgd40", "0.1")
    assert parse_attack("pgd41", "0.1").family == "pgd"


def test_an_attack_s_keywords_are_its_parameters_and_are_checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ATTACKS, "_entries", dict(ATTACKS._entries))

    @register.attack("mine", takes_steps=True)
    def mine(model, x, y, threat, *, rng, steps, mu=1.0):  # type: ignore[no-untyped-def]
        return x

    assert dict(parse_attack("mine3:mu=0.5", "0.1").params) == {"mu": 0.5}
    with pytest.raises(BenchError, match="must accept the keyword steps"):
        register.attack("other", takes_steps=True)(lambda model, x, y, threat, *, rng: x)
    with pytest.raises(BenchError, match="must accept the keyword snapshots"):
        register.attack("other", takes_steps=True, shares_trajectory=True)(mine)
    with pytest.raises(BenchError, match="parameter 'mu' needs a default"):
        register.attack("other")(lambda model, x, y, threat, *, rng, mu: x)


@pytest.mark.parametrize("options", [{}, {"defaults": {"added": 0.1}}])
def test_a_parameter_may_not_have_the_name_of_a_rule(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ATTACKS, "_entries", dict(ATTACKS._entries))
    with pytest.raises(BenchError, match="'mine': the parameter name 'added' is a rule's"):

        @register.attack("mine", domain="events", **options)
        def mine(model, recordings, y, threat, lens, *, rng, added=0.1):  # type: ignore[no-untyped-def]
            return recordings

    @register.attack("frames")
    def frames(model, x, y, threat, *, rng, added=0.1):  # type: ignore[no-untyped-def]
        return x

    assert dict(parse_attack("frames:added=0.5", "0.1").params) == {"added": 0.5}


def test_an_attack_s_own_check_is_asked_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ATTACKS, "_entries", dict(ATTACKS._entries))

    def check(params: Mapping[str, Any], threat: Threat) -> None:
        if params["mu"] > threat.eps:
            raise ValueError("mu must not be more than eps")

    @register.attack("mine", check=check)
    def mine(model, x, y, threat, *, rng, mu=0.05):  # type: ignore[no-untyped-def]
        return x

    assert parse_attack("mine", "0.1").params
    with pytest.raises(BenchError, match=r"attack 'mine:mu=0\.2': mu must not be more than eps"):
        parse_attack("mine:mu=0.2", "0.1")
    with pytest.raises(ValueError, match="give domain='events'"):
        register.attack("other", kinds=("added",))(mine)

    @register.attack("adder", domain="events", kinds=("add",))
    def adder(model, recordings, y, threat, lens, *, rng):  # type: ignore[no-untyped-def]
        return recordings

    with pytest.raises(BenchError, match="no kind of edit 'add'; choose from added, removed, shifted"):
        parse_attack("adder", "0.1")


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(BenchError, match="unknown defense 'vanila', did you mean 'vanilla'"):
        DEFENSES.get("vanila")


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_name_loads_and_says_where_it_lives(kind: str) -> None:
    for name in KINDS[kind].names():
        entry = KINDS[kind].entry(name)
        assert entry.load() is not None
        assert entry.origin()
        assert entry.fingerprint() == ""


def test_a_plug_in_file_runs_once_and_its_code_is_fingerprinted(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from bench import register\n"
        "@register.attack('stay-put')\n"
        "def stay(model, x, y, threat, *, rng):\n"
        "    '''Returns the image.'''\n"
        "    return x\n"
    )
    try:
        load_plugin(path)
        load_plugin(path)
        entry = ATTACKS.entry("stay-put")
        assert entry.load().summary == "Returns the image."
        assert entry.origin() == f"{path}:2"
        before = entry.fingerprint()
        path.write_text(path.read_text() + "# changed\n")
        assert entry.fingerprint() != before
    finally:
        ATTACKS._entries.pop("stay-put", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name", "failed to load: ModuleNotFoundError"),
        ("def", "failed to load: SyntaxError"),
        ("from bench import register\nregister.defense('at')(print)", "already registered"),
    ],
)
def test_a_broken_plug_in_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(BenchError, match=message):
        load_plugin(path)


def test_a_missing_plug_in_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="does not exist"):
        load_plugin(tmp_path / "none.py")


def test_installed_packages_add_names_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thirdparty_defense.py").write_text(
        "from defenses import Defense\ndef calm(): return Defense('calm')\n"
    )
    info = tmp_path / "thirdparty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bench.defenses]\ncalm = thirdparty_defense:calm\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("defense", {})
    assert "calm" in registry.names()
    assert "thirdparty_defense" not in sys.modules
    assert registry.get("calm")().name == "calm"
    assert registry.entry("calm").fingerprint()
