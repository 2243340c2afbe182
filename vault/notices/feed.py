"""The owner's feed: every logged event of one vault, opened and put in plain words. It stores nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from heapq import merge
from itertools import chain, islice
from typing import Final, assert_never

from sqlmodel import Session

from vault.encoding import JsonObject, parse_b64u, parse_json
from vault.notices.sentences import WORDS, Words, sentence
from vault.parties import companies
from vault.policy import sets
from vault.proof.decision import Rule, parse_policy_set
from vault.proof.leaf import LeafKind
from vault.schema.language import Language
from vault.schema.terms import COHORT_GRANTEE, SELF_GRANTEE
from vault.seal.ids import VaultId
from vault.seal.statement import KeyName
from vault.tlog import groups, log
from vault.tlog.groups import Kept
from vault.tlog.log import Leaf

_MOST_KEYS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Notice:
    """One event as its owner is told of it.

    Args:
        leaf: The logged event with both openings.
        public: What the public half says.
        personal: What the personal half says.
        sentence: The event in plain words.
        rules: Why a question was denied: each rule that decided, with its sentence in the policy set
            that the leaf names. The company was told less.
    """

    leaf: Leaf
    public: JsonObject
    personal: JsonObject
    sentence: str
    rules: Mapping[str, str]


def notices(
    session: Session, vault_id: VaultId, *, after: int, limit: int, language: Language = Language.EN
) -> list[Notice]:
    """Return what happened to a vault, oldest first.

    Args:
        session: A snapshot.
        vault_id: Whose feed.
        after: The last leaf index already seen; -1 from the start.
        limit: How many at most.
        language: In which the owner reads.

    Guarantees: besides events of this vault only auditors' accesses are shown, and only those that
        opened events of this vault, and new serving keys, and only those that spent what its plan had sealed in advance.
    """
    own = log.find(session, about=vault_id, after=after, limit=limit)
    accesses = _accesses(session, vault_id, after, limit)
    shared = {leaf.index: (leaf, kept) for leaf, kept in groups.about(session, vault_id, after=after, limit=limit)}
    spending = _spending(session, vault_id, after, limit)
    found = merge(own, accesses, spending, (leaf for leaf, _ in shared.values()), key=lambda leaf: leaf.index)
    return [
        _shared(session, *shared[leaf.index], language) if leaf.index in shared else _notice(session, leaf, language)
        for leaf in islice(found, limit)
    ]


def _accesses(session: Session, vault_id: VaultId, after: int, limit: int) -> list[Leaf]:
    found: list[Leaf] = []
    more = True
    while more and len(found) < limit:
        page = log.find(session, kind=LeafKind.AUDITOR_ACCESS, after=after, limit=limit)
        found += [leaf for leaf in page if _concerns(session, vault_id, leaf)]
        more = len(page) == limit
        after = page[-1].index if page else after
    return found


def _concerns(session: Session, vault_id: VaultId, access: Leaf) -> bool:
    public = parse_json(access.public.body)
    first, last = public.get("first"), public.get("last")
    if not isinstance(first, int) or not isinstance(last, int):
        return False  # a registration, not an access
    touched = log.find(session, about=vault_id, after=first - 1, limit=1)
    return bool(touched) and touched[0].index <= last


def _spending(session: Session, vault_id: VaultId, after: int, limit: int) -> list[Leaf]:
    """Return the serving keys that came after a plan with consents that were sealed to the one before."""
    keys = log.find(session, kind=LeafKind.KEY, after=after, limit=_MOST_KEYS)
    said = [(leaf, parse_json(leaf.public.body)) for leaf in keys]
    replaced = [leaf for leaf, key in said if key["name"] == KeyName.SERVING and key["epoch"] != 1]
    if not replaced:
        return []
    kinds = (LeafKind.LEGACY_PLAN, LeafKind.LEGACY_VETO)
    found = [log.find(session, kind=kind, about=vault_id, limit=_MOST_KEYS) for kind in kinds]
    steps = [*merge(*found, key=lambda leaf: leaf.index)]
    return [leaf for leaf in replaced if _holds_sealed([step for step in steps if step.index < leaf.index])][:limit]


def _holds_sealed(steps: list[Leaf]) -> bool:
    """Say whether the newest step is a plan with consents sealed in advance."""
    if not steps or steps[-1].kind is not LeafKind.LEGACY_PLAN or steps[-1].personal is None:
        return False
    return bool(parse_json(steps[-1].personal.body).get("sealed"))


def _notice(session: Session, leaf: Leaf, language: Language) -> Notice:
    public = parse_json(leaf.public.body)
    personal = {} if leaf.personal is None else parse_json(leaf.personal.body)
    party = party_of(session, str(personal.get("requester", personal.get("grantee", ""))), WORDS[language])
    rules = _rules(session, public, personal, language)
    return Notice(leaf, public, personal, sentence(leaf.kind, public, personal, party, WORDS[language]), rules)


def _shared(session: Session, leaf: Leaf, kept: list[Kept], language: Language) -> Notice:
    """Tell of the denials about one vault in a leaf that many denials share: how many, and all their reasons."""
    told = _notice(session, leaf, language)
    halves = [
        (parse_json(one.member.public.body), parse_json(one.member.personal.body))
        for one in kept
        if one.member.personal is not None
    ]
    rules = [_rules(session, public, personal, language) for public, personal in halves]
    words = WORDS[language]
    party = party_of(session, str(told.personal.get("requester", "")), words)
    said = sentence(leaf.kind, told.public | {"count": len(kept)}, told.personal, party, words)
    return replace(told, sentence=said, rules=dict(chain.from_iterable(some.items() for some in rules)))


def _rules(session: Session, public: JsonObject, personal: JsonObject, language: Language) -> dict[str, str]:
    decided = personal.get("rules")
    if not isinstance(decided, list):
        return {}
    known = _rules_of(sets.get(session, parse_b64u(public["policy_set"], size=32)))
    names = [str(name) for name in decided]
    return {name: _said(known[name], language) if name in known else WORDS[language].not_rules[name] for name in names}


def _said(rule: Rule, language: Language) -> str:
    """Return a rule's sentence; sets older than version 2 speak English only."""
    match language:
        case Language.EN:
            return rule.sentence
        case Language.FR:
            return rule.sentence_fr or rule.sentence
        case _:
            assert_never(language)


@lru_cache(maxsize=8)
def _rules_of(source: bytes) -> Mapping[str, Rule]:
    return parse_policy_set(source).rules


def party_of(session: Session, name: str, words: Words = WORDS[Language.EN]) -> str:
    """Return who a grantee or requester is, ready to begin a sentence."""
    if name == SELF_GRANTEE:
        return words.owner
    if name == COHORT_GRANTEE:
        return words.operator
    company = companies.find(session, name)
    return company.name if company else words.company
