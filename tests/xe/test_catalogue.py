"""The tables of commands fit the datamodel."""

from __future__ import annotations

from domzero.datamodel.graph import GRAPH
from domzero.idl.model import MISSING
from domzero.xe.catalogue import HAND_WRITTEN, catalogue
from domzero.xe.records import record_classes

RECORDS = record_classes(GRAPH)
EVERYTHING = catalogue(GRAPH, RECORDS, frozenset(GRAPH.methods), lambda _method, _path: True)


def test_every_command_is_in_the_whole_catalogue_once() -> None:
    names = [command.name for command in HAND_WRITTEN]
    assert sorted(names) == sorted(set(names))
    for command in HAND_WRITTEN:
        # A message that the datamodel does not have would keep its command away for ever.
        assert [name for name in command.needs if name not in GRAPH.methods] == [], command.name
        assert EVERYTHING[command.name] is command


def test_every_command_says_what_it_does() -> None:
    for command in EVERYTHING.values():
        assert command.doc.endswith("."), command.name
        assert command.help().count("\n") == 4


def test_commands_come_with_their_message_and_go_with_it() -> None:
    without = catalogue(GRAPH, RECORDS, frozenset(GRAPH.methods) - {"VM.start_on"}, lambda _method, _path: True)
    assert EVERYTHING.keys() - without.keys() == {"vm-start"}
    closed = catalogue(GRAPH, RECORDS, frozenset(GRAPH.methods), lambda _method, path: path != "/export")
    assert EVERYTHING.keys() - closed.keys() == {"vm-export", "template-export", "snapshot-export-to-template"}


def test_labels_tell_what_may_be_done() -> None:
    labels = {column.name: column.label for column in RECORDS["vm"].columns}
    assert labels["uuid"] == "uuid ( RO)"
    assert labels["name-label"] == "name-label ( RW)"
    assert labels["allowed-operations"] == "allowed-operations (SRO)"
    assert labels["tags"] == "tags (SRW)"
    assert labels["os-version"] == "os-version (MRO)"
    assert labels["other-config"] == "other-config (MRW)"


def test_commands_that_are_one_message_give_it_as_many_parameters_as_it_takes() -> None:
    simple = [command for command in HAND_WRITTEN if command.arity is not None]
    assert len(simple) > 100
    for command in simple:
        (name,) = command.needs
        params = GRAPH.methods[name].message.params
        required = sum(param.default is MISSING for param in params)
        assert required <= (command.arity or 0) <= len(params), command.name
