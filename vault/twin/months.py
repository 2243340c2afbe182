"""What the worker may open of a vault, decided and bound before anything is opened; then opened in a child."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from sqlmodel import Session

from vault.clock import Clock
from vault.consent import consents
from vault.db import Database
from vault.errors import VaultError
from vault.imprint.block import Heads
from vault.imprint.features import Cadence, FeatureMap, feature_map, mapped_for
from vault.imprint.noise import Integers
from vault.keys.processor import Processor
from vault.parties import people
from vault.parties.people import Person
from vault.policy.permits import Permit
from vault.policy.records import Use
from vault.proof.decision import PolicySet
from vault.schema.category import Category, Purpose
from vault.schema.trace import Period, period_of
from vault.seal.ids import CompartmentId, ConsentId, VaultId, sha256
from vault.seal.ring import Compartment
from vault.seal.signing import Signer
from vault.store import batches, rings
from vault.twin.children import Child, Children
from vault.twin.closing import last_closed
from vault.twin.opening import Ask, VaultKeys


class NothingToOpen(VaultError):
    """A consent that is gone, or under which no month has closed yet."""

    slug = "nothing-to-open"
    title = "Nothing to open"
    status = 409


class BatchesChanged(VaultError):
    """Batches that a release was bound to are gone."""

    slug = "batches-changed"
    title = "Batches changed"
    status = 409


@dataclass(frozen=True)
class Worker:
    """What the worker process works with.

    Args:
        database: The main database.
        processor: Opens what self and cohort consents hand over.
        signer: The key `processor-sign`.
        row_keys: Every `processor-sign` key that the operator stated: rows of a former one are read on.
        policy_set: The rules in force.
        children: Opens batches.
        clock: Tells the time.
        cadence: How days become rows.
    """

    database: Database
    processor: Processor
    signer: Signer
    row_keys: Collection[bytes]
    policy_set: PolicySet
    children: Children
    clock: Clock
    cadence: Cadence = Cadence.MONTHLY

    def map_of(self, category: Category) -> FeatureMap:
        """Return the map in force of a category."""
        return feature_map(category, self.cadence)


@dataclass(frozen=True)
class Month:
    """One category and month of a vault.

    Args:
        category: Which category.
        period: Which month.
        compartments: Those whose seeds were handed over, by epoch.
        batch_hashes: SHA-256 of every batch in them, sorted: what a release id binds.
        heads: The last batch of each device's chain in them.
    """

    category: Category
    period: Period
    compartments: tuple[CompartmentId, ...]
    batch_hashes: tuple[bytes, ...]
    heads: Heads = field(compare=False)


@dataclass(frozen=True)
class Opening:
    """What one permit opens.

    Args:
        permit: Why it may be opened.
        keys: What a child is sent.
        months: Inside the consent's window and closed; with daily rows, the running one's days may have closed.
        closed: The last local date that has closed.
    """

    permit: Permit
    keys: VaultKeys
    months: tuple[Month, ...]
    closed: date


def plan(
    session: Session,
    worker: Worker,
    consent_id: ConsentId,
    decide: Callable[[Use, PolicySet], Permit],
    purpose: Purpose,
) -> Opening:
    """Decide what may be opened under a consent, and read its keys; opens no trace.

    Args:
        session: Any transaction.
        worker: The worker.
        consent_id: Which consent.
        decide: `policy.decide_refresh` or `policy.decide_train`.
        purpose: Why.

    Raises:
        NothingToOpen: No such consent, or nothing of it is closed and has a feature map.
        VaultError: The rules forbid it, the keys are gone, or what is stored does not verify.
    """
    permit = permitted(session, worker, consent_id, decide, purpose)
    handed_over = worker.processor.seeds(session, permit, worker.clock.now())
    listed = rings.compartments(session, permit.vault_id, handed_over)  # without those erased since
    seeds = {name: handed_over[name] for name in listed}
    months = tuple(_months(session, permit.vault_id, listed))
    if not months:
        raise NothingToOpen("No month that this consent covers has closed yet.")
    person = people.get(session, permit.vault_id)
    keys = _keys(session, person, seeds, {month.period for month in months})
    return Opening(permit, keys, months, last_closed(person, worker.cadence, worker.clock.now()))


def permitted(
    session: Session,
    worker: Worker,
    consent_id: ConsentId,
    decide: Callable[[Use, PolicySet], Permit],
    purpose: Purpose,
) -> Permit:
    """Decide on a consent, its person and the time as they are now.

    Raises:
        NothingToOpen: No such consent, or nothing of it is closed and has a feature map.
        Forbidden: The rules forbid it.
    """
    now = worker.clock.now()
    consent = consents.find(session, consent_id)
    if consent is None:
        raise NothingToOpen("No consent of this id is kept here.")
    terms, person = consent.current.terms, people.get(session, consent.vault_id)
    data_to = min(terms.data_to, period_of(last_closed(person, worker.cadence, now)))
    mapped = terms.categories.intersection(mapped_for(worker.cadence))
    if data_to < terms.data_from or not mapped:
        raise NothingToOpen("No month of a category with a feature map has closed yet under this consent.")
    # What is specially protected and not explicitly allowed stays sealed, and keeps the rest from nothing.
    allowed = mapped & terms.usable
    return decide(Use(consent, person, purpose, allowed or mapped, terms.data_from, data_to, now), worker.policy_set)


def open_months(worker: Worker, opening: Opening, asks: Sequence[tuple[Month, Ask]]) -> list[Integers]:
    """Open months in one child that holds this vault's keys alone.

    Args:
        worker: The worker.
        opening: From `plan`; whatever it costs is charged and committed.
        asks: What is wanted of which of its months.

    Returns:
        Exact, private numbers for each ask; they must not leave the caller's memory without noise.

    Raises:
        UnreadableBatches: A batch does not open.
        OpeningFailed: The child died.
        BatchesChanged: A batch that the plan is bound to is gone.
    """
    with worker.children.of(opening.keys) as child:
        return [_open(worker, opening.permit.vault_id, child, month, ask) for month, ask in asks]


def _open(worker: Worker, vault: VaultId, child: Child, month: Month, ask: Ask) -> Integers:
    sent: list[bytes] = []

    def stream() -> Iterator[bytes]:
        bound = set(month.batch_hashes)
        for compartment in month.compartments:
            for encoded in _batches(worker, vault, compartment):
                # One that came after the release was named belongs to another release.
                if (digest := sha256(encoded)) in bound:
                    sent.append(digest)
                    yield encoded
                if len(sent) == len(bound):
                    return

    numbers = child.month(ask, stream())
    if sorted(sent) != list(month.batch_hashes):
        raise BatchesChanged("A batch was erased while its month was being opened; refresh again.")
    return numbers


def _batches(worker: Worker, vault: VaultId, compartment: CompartmentId) -> Iterator[bytes]:
    after = 0
    while True:
        with worker.database.snapshot() as session:
            page = batches.read(session, vault, compartment, after=after)
        if not page:
            return
        yield from (batch.encoded for batch in page)
        after = page[-1].id


def _months(session: Session, vault: VaultId, listed: Mapping[CompartmentId, Compartment]) -> Iterator[Month]:
    places: defaultdict[tuple[Period, Category], list[Compartment]] = defaultdict(list)
    for compartment in listed.values():
        places[compartment.period, compartment.category].append(compartment)
    digests, heads = batches.digests(session, vault, listed), batches.heads(session, vault, listed)
    for (period, category), found in sorted(places.items()):
        ids = tuple(one.id for one in sorted(found, key=lambda one: one.epoch))
        hashes = tuple(sorted(digest for name in ids for digest in digests[name]))
        yield Month(category, period, ids, hashes, {place: seq for place, seq in heads.items() if place[0] in ids})


def _keys(session: Session, person: Person, seeds: Mapping[CompartmentId, bytes], periods: set[Period]) -> VaultKeys:
    vault = person.vault_id
    ring = rings.read(session, vault, periods)
    return VaultKeys(
        vault, person.owner_key, person.time_zone, ring.head, tuple(page for page, _ in ring.pages), dict(seeds)
    )
