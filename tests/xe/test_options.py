"""The client's options against anything a person, a file or an environment may hold."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domzero.client.xe_options import FLAGS, QUESTIONS, RESERVED, VALUED, OptionError, options, split_extra

WORDS = st.one_of(
    st.sampled_from([*VALUED, *FLAGS, *QUESTIONS, "--minimal", "vm-list", "--", "-", "=", "--trace=x", "a\nb"]),
    st.sampled_from(RESERVED).flatmap(lambda key: st.text(max_size=6).map(lambda value: f"{key}={value}")),
    st.text(max_size=12),
)


@settings(deadline=None)
@given(st.lists(WORDS, max_size=8), st.text(max_size=40), st.lists(st.text(max_size=20), max_size=4))
def test_nothing_but_the_options_own_error(arguments: list[str], extra: str, lines: list[str]) -> None:
    with contextlib.suppress(OptionError, OSError):
        chosen = options(arguments, extra, lines)
        assert chosen.port is None or 0 < chosen.port < 65536
        assert not any("\n" in argument for argument in chosen.arguments)
        assert not any(argument in {**VALUED, **FLAGS, **QUESTIONS} for argument in chosen.arguments)


@given(st.lists(st.text(min_size=1, max_size=10), max_size=6))
def test_arguments_come_back_out_of_the_environment(arguments: list[str]) -> None:
    text = ",".join(argument.replace("\\", "\\\\").replace(",", "\\,") for argument in arguments)
    assert split_extra(text) == arguments


def test_a_password_file_that_is_a_directory_or_missing(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(OSError, match=str(place)):
            options(["vm-list", "-pwf", str(place)], "", [])
