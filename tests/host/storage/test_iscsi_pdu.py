"""What an iSCSI target sends, whatever it is: understood or refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domzero.host.storage.iscsi.pdu import DATA_LIMIT, HEADER, BadReplyError, chap_answer, decoded_keys, lengths

PARTS = st.sampled_from(
    [b"CHAP_A", b"CHAP_I", b"CHAP_C", b"=", b"\0", b"5", b"0x", b"0b", b"ff", b"-1", b"300", b"\xff"]
)


@given(st.one_of(st.binary(max_size=60), st.lists(PARTS, max_size=20).map(b"".join)))
def test_keys(data: bytes) -> None:
    try:
        keys = decoded_keys(data)
        answer = chap_answer(dict(keys), "a secret")
    except BadReplyError:
        return
    assert len(answer) == 2 + 32


@given(st.dictionaries(st.sampled_from(["CHAP_A", "CHAP_I", "CHAP_C"]), st.text(max_size=12)))
def test_challenges(keys: dict[str, str]) -> None:
    try:
        chap_answer({"CHAP_A": "5", "CHAP_I": "7", **keys}, "a secret")
    except BadReplyError:
        return


@given(st.binary(min_size=HEADER, max_size=HEADER))
def test_lengths(header: bytes) -> None:
    try:
        additional, data = lengths(header)
    except BadReplyError:
        return
    assert additional < 4 * 256
    assert data <= DATA_LIMIT
