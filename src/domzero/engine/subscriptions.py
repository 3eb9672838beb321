"""What clients of the event calls ask for, and an index of who asked for what.

A subscription is `*` (everything), a class, or `class/ref` (one object). Class names are compared without regard to
case; unknown ones are accepted and never match.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from domzero.engine.errors import ApiError
from domzero.idl.types import Ref

EVERYTHING = "*"
LONGEST_KEPT = 4096
"""Characters of a list of subscriptions whose meaning is remembered; XenCenter's and Xen Orchestra's have fewer."""

MOST = 10_000
"""Subscriptions that a session may have, and that one call may ask for. Whoever wants more asks for the class."""
LONGEST = 512
"""Characters of a subscription; those that can match have a tenth."""

Who = TypeVar("Who", bound=Hashable)


class Subject(NamedTuple):
    """One subscription: a class in lower case, or `*`, and an object's reference or nothing."""

    lower: str
    ref: Ref | None = None

    @classmethod
    def parse(cls, text: str) -> Subject:
        """Read what a client sent. Raises `ApiError` EVENT_SUBSCRIPTION_PARSE_FAILURE for empty or endless parts."""
        name, slash, ref = text.partition("/")
        if not name or (slash and not ref) or len(text) > LONGEST:
            raise ApiError("EVENT_SUBSCRIPTION_PARSE_FAILURE", text[:LONGEST])
        return cls(name.lower(), ref if slash else None)


def too_many(number: int) -> ApiError:
    """What somebody gets who asks for more than `MOST`."""
    return ApiError("EVENT_SUBSCRIPTION_PARSE_FAILURE", f"{number} subscriptions; there may be {MOST}")


def parse_all(texts: Sequence[str]) -> list[Subject]:
    """Read what a client asks for in one call. Raises like `Subject.parse`, and for too many."""
    if len(texts) > MOST:
        raise too_many(len(texts))
    return [Subject.parse(text) for text in texts]


def covering(lower: str, ref: Ref) -> tuple[Subject, Subject, Subject]:
    """The subscriptions that an event on that object matches."""
    return (Subject(EVERYTHING), Subject(lower), Subject(lower, ref))


@dataclass(frozen=True, slots=True)
class Filter:
    """A set of subscriptions, taken together."""

    everything: bool
    classes: frozenset[str]
    objects: frozenset[Subject]
    named: frozenset[str]
    """All classes of which something was asked for."""
    subjects: tuple[Subject, ...]
    """The fewest subscriptions that ask for the same."""

    @staticmethod
    def parse(texts: tuple[str, ...]) -> Filter:
        """Raises like `parse_all`. Clients send the same list again and again, so answers are kept, but not of
        lists that are long: a thousand of those could take all memory."""
        if sum(map(len, texts)) > LONGEST_KEPT:
            return Filter._parse(texts)
        return Filter._parse_and_keep(texts)

    @staticmethod
    @lru_cache(maxsize=1024)
    def _parse_and_keep(texts: tuple[str, ...]) -> Filter:
        return Filter._parse(texts)

    @staticmethod
    def _parse(texts: tuple[str, ...]) -> Filter:
        subjects = parse_all(texts)
        everything = Subject(EVERYTHING) in subjects
        classes = {subject.lower for subject in subjects if subject.ref is None}
        objects = {subject for subject in subjects if subject.ref is not None}
        fewest = [Subject(lower) for lower in classes] + [
            subject for subject in objects if subject.lower not in classes
        ]
        return Filter(
            everything,
            frozenset(classes),
            frozenset(objects),
            frozenset(subject.lower for subject in subjects),
            (Subject(EVERYTHING),) if everything else tuple(fewest),
        )

    def matches(self, lower: str, ref: Ref) -> bool:
        """Whether an event on that object was asked for."""
        return self.everything or lower in self.classes or (bool(self.objects) and Subject(lower, ref) in self.objects)

    def names(self, lower: str) -> bool:
        """Whether the class, or an object of it, was asked for."""
        return self.everything or lower in self.named


class Interest(Generic[Who]):
    """Who asked for what. Finding those whom a change concerns costs as much as they are, however many others there
    may be."""

    def __init__(self) -> None:
        self._by_subject: dict[Subject, dict[Who, None]] = {}

    def add(self, who: Who, subjects: Iterable[Subject]) -> None:
        """Note that somebody asked."""
        for subject in subjects:
            self._by_subject.setdefault(subject, {})[who] = None

    def remove(self, who: Who, subjects: Iterable[Subject]) -> None:
        """Forget it again; nothing happens where it was not noted."""
        for subject in subjects:
            there = self._by_subject.get(subject)
            if there is not None:
                there.pop(who, None)
                if not there:
                    del self._by_subject[subject]

    def concerned(self, lower: str, ref: Ref) -> list[Who]:
        """All who asked for something that an event on this object matches, each once."""
        if not self._by_subject:
            return []
        found = [self._by_subject[subject] for subject in covering(lower, ref) if subject in self._by_subject]
        if len(found) == 1:
            return list(found[0])
        return list(dict.fromkeys(who for there in found for who in there))
