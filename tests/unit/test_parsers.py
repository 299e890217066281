"""What the parsers of the command lines print where words are wrong."""

from __future__ import annotations

import pytest

from rql_lightning import train
from rql_lightning.customizing import command

COMMANDS = {
    "python -m rql_lightning.train fit": lambda *words: train.main(["fit", *words]),
    "python -m rql_lightning.customize": lambda *words: command.main(list(words)),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_error_is_not_preceded_by_the_usage_of_all_arguments(name, capsys):
    with pytest.raises(SystemExit) as stop:
        COMMANDS[name]("--video.no_such_key", "1")
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"tip: For details of accepted options run: {name} --help"
    assert lines[1].startswith("error: ") and len(lines) < 12


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_the_usage(name, capsys):
    with pytest.raises(SystemExit) as stop:
        COMMANDS[name]("--help")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: python -m rql_lightning.")
