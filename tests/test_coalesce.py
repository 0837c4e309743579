"""Small pushed chunks share one batch, and each sender still gets its own verdict."""

from __future__ import annotations

from dataclasses import dataclass, field

from evalgauge.core.coalesce import coalesced
from evalgauge.core.collect import Chunk, EventVerdict, Verdict
from evalgauge.core.event import Reason
from evalgauge.core.intake import Intake, Item


@dataclass
class Sender:
    """Keeps the verdicts it gets."""

    verdicts: list[Verdict] = field(default_factory=list)

    def chunk(self, body: bytes, tenant: str | None = None) -> Chunk:
        """A pushed chunk of this sender."""
        return Chunk(
            "push", body, lambda line: f"{id(self)}:{line}", tenant=tenant, acknowledge=self.verdicts.append
        )


def test_verdicts_come_back_to_the_sender_of_their_line() -> None:
    """Lines are counted from the start of each sender's own body."""
    senders = [Sender() for _ in range(3)]
    bodies = [b"{}\n{}\n", b"{}", b"{}\n{}\n{}"]
    chunk = coalesced([sender.chunk(body) for sender, body in zip(senders, bodies, strict=True)])
    assert chunk.body == b"{}\n{}\n{}\n{}\n{}\n{}\n"
    assert chunk.locate(2) == f"{id(senders[1])}:0"
    assert chunk.acknowledge is not None
    refused = EventVerdict(5, "rejected", Reason.BAD_ID, "no id")
    chunk.acknowledge(Verdict(6, 4, 1, 1, (EventVerdict(1, "duplicate"), refused)))
    assert senders[0].verdicts == [Verdict(2, 1, 1, 0, (EventVerdict(1, "duplicate"),))]
    assert senders[1].verdicts == [Verdict(1, 1, 0, 0, ())]
    assert senders[2].verdicts == [
        Verdict(3, 2, 0, 1, (EventVerdict(2, "rejected", Reason.BAD_ID, "no id"),))
    ]


def test_blank_lines_are_no_events_of_anybody() -> None:
    """The engine does not count them, so the shares must not either."""
    first, second = Sender(), Sender()
    chunk = coalesced([first.chunk(b"{}\n\n \n"), second.chunk(b"{}\n")])
    assert chunk.acknowledge is not None
    chunk.acknowledge(Verdict(2, 2, 0, 0))
    assert first.verdicts == [Verdict(1, 1, 0, 0, ())]
    assert second.verdicts == [Verdict(1, 1, 0, 0, ())]


def test_an_error_reaches_every_sender() -> None:
    """Nobody is told that events are safe when they are not."""
    first, second = Sender(), Sender()
    chunk = coalesced([first.chunk(b"{}\n"), second.chunk(b"{}\n")])
    assert chunk.acknowledge is not None
    chunk.acknowledge(Verdict(error="disk full"))
    assert first.verdicts == second.verdicts == [Verdict(error="disk full")]


def test_only_neighbours_of_one_input_and_tenant_are_joined() -> None:
    """Order between inputs stays, and a tenant's events are judged by its own token."""
    intake = Intake(1 << 20)
    sender = Sender()
    for name, tenant in (("a", "x"), ("a", "x"), ("a", "y"), ("b", "y")):
        assert intake.offer(name, sender.chunk(b"{}\n", tenant))
    item = intake.get(0)
    assert isinstance(item, Item)
    assert len(intake.more(item, 1 << 20)) == 1
    item = intake.get(0)
    assert item is not None
    assert (item.input, item.chunk.tenant) == ("a", "y")
    assert not intake.more(item, 1 << 20)


def test_no_more_is_joined_than_the_limit_allows() -> None:
    """One slow batch must not hold all others up."""
    intake = Intake(1 << 20)
    sender = Sender()
    for _ in range(5):
        assert intake.offer("a", sender.chunk(b"{}\n" * 10))
    item = intake.get(0)
    assert item is not None
    assert len(intake.more(item, 90)) == 2
    assert intake.used == 60
