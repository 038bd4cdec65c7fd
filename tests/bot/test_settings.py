"""Settings as a person sets them: environment, file, command line; and what a wrong one is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot import settings as conf
from pipeline.turns import TurnSettings


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no .env of the developer's
    for row in conf.rows():
        monkeypatch.delenv(row.variable, raising=False)


def test_without_any_setting_it_listens_on_this_machine_only() -> None:
    settings = conf.load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.checkpoint.endswith("model_runtime/checkpoints/nano")


def test_environment_file_and_command_line_in_this_order(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("PARLEY_PORT=1\nPARLEY_MAX_CALLS=7\nPARLEY_AGENT=other\n")
    monkeypatch.setenv("PARLEY_PORT", "2")
    monkeypatch.setenv("PARLEY_AGENT", "env")
    settings = conf.load(agent="option", host=None)
    assert (settings.max_calls, settings.port, settings.agent, settings.host) == (7, 2, "option", "127.0.0.1")


def test_nested_settings_take_two_underscores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_TURNS__END_MS", "500")
    monkeypatch.setenv("PARLEY_ENGINE__DEVICE", "cpu")
    settings = conf.load()
    assert settings.turns.end_ms == 500
    assert settings.turns.barge_in_ms == TurnSettings().barge_in_ms
    assert settings.engine.device == "cpu"


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("", []),
        ("stun:a.example", ["stun:a.example"]),
        ("stun:a.example, turn:b.example:3478", ["stun:a.example", "turn:b.example:3478"]),
        ('[{"urls": "turn:b.example", "username": "u", "credential": "c"}]', ["turn:b.example"]),
    ],
)
def test_ice_servers_are_urls_or_json(monkeypatch: pytest.MonkeyPatch, text: str, urls: list[str]) -> None:
    monkeypatch.setenv("PARLEY_ICE_SERVERS", text)
    assert [server.urls for server in conf.load().ice_servers] == urls


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARLEY_PORT", "high"),
        ("PARLEY_PORT", "70000"),
        ("PARLEY_MAX_CALLS", "0"),
        ("PARLEY_LOG_LEVEL", "loud"),
        ("PARLEY_TURNS__END_MS", "-1"),
        ("PARLEY_TURNS__NO_SUCH", "1"),
        ("PARLEY_TURNS__PAUSE_MS", "900"),
        ("PARLEY_ENGINE__DEVICE", "abacus"),
        ("PARLEY_ENGINE__OPTIONS", "--chunks '8"),
        ("PARLEY_ICE_SERVERS", "[{"),
        ("PARLEY_ICE_SERVERS", '[{"url": "stun:a"}]'),
        ("PARLEY_REDIS__URL", "localhost:6379"),
        ("PARLEY_REDIS__TENANT", "a}b"),
        ("PARLEY_REDIS__KEEP_S", "-1"),
        ("PARLEY_KNOWLEDGE__LEAST_LIKENESS", "2"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(conf.BadSettings, match=name):
        conf.load()


def test_an_origin_is_as_browsers_send_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_ALLOWED_ORIGINS", "https://shop.example/, https://b.example")
    assert conf.load().allowed_origins == ("https://shop.example", "https://b.example")


def test_every_setting_is_described_and_in_the_table() -> None:
    table = conf.markdown()
    rows = list(conf.rows())
    assert all(row.description.endswith((".", "`")) for row in rows)
    assert all(f"`{row.variable}`" in table for row in rows)
    assert {"PARLEY_HOST", "PARLEY_TURNS__END_MS", "PARLEY_ENGINE__URL"} <= {row.variable for row in rows}


def test_no_encoder_is_set_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_KNOWLEDGE__ENCODER", "")
    assert conf.load().knowledge.encoder is None
    assert "| `PARLEY_KNOWLEDGE__ENCODER` | empty |" in conf.markdown()
    monkeypatch.setenv("PARLEY_KNOWLEDGE__ENCODER", "/models/encoder")
    assert conf.load().knowledge.encoder == Path("/models/encoder")


def test_the_table_shows_what_is_set_now_but_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_MAX_CALLS", "9")
    monkeypatch.setenv("PARLEY_REDIS__URL", "redis://:secret@host/0")
    shown = {row.variable: row.value for row in conf.rows(conf.load())}
    assert shown["PARLEY_MAX_CALLS"] == "9"
    assert "secret" not in shown["PARLEY_REDIS__URL"]
    assert shown["PARLEY_REDIS__URL"]


def test_a_password_in_what_is_refused_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_REDIS__URL", "http://:secret@host")
    with pytest.raises(conf.BadSettings, match="PARLEY_REDIS__URL: should begin with redis://") as refused:
        conf.load()
    assert "secret" not in str(refused.value)
    monkeypatch.delenv("PARLEY_REDIS__URL")
    monkeypatch.setenv("PARLEY_REDIS", '"redis://:secret@host"')  # one underscore and a word too few
    with pytest.raises(conf.BadSettings, match="PARLEY_REDIS") as refused:
        conf.load()
    assert "secret" not in str(refused.value)


def test_data_goes_where_the_system_says_a_persons_data_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, data in (
        ("", tmp_path / ".local/share"),
        ("relative", tmp_path / ".local/share"),
        ("/data", Path("/data")),
    ):
        monkeypatch.setenv("XDG_DATA_HOME", given)
        assert conf.RedisSettings().data_dir == data / "parley"
        assert conf.load().voices_dir == data / "parley" / "voices"
        assert conf.KnowledgeSettings().folder == data / "parley" / "knowledge"
    monkeypatch.setenv("PARLEY_REDIS__DATA_DIR", "~/calls")
    monkeypatch.setenv("PARLEY_VOICES_DIR", "~/voices")
    settings = conf.load()
    assert (settings.redis.data_dir, settings.voices_dir) == (tmp_path / "calls", tmp_path / "voices")
    assert "~/calls" in {row.value for row in conf.rows(settings)}
