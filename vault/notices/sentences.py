"""One plain sentence for each kind of event, as its owner reads it, in the owner's language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vault.encoding import JsonObject
from vault.proof.leaf import LeafKind
from vault.schema.consent import ConsentEvent
from vault.schema.language import LABELS, Language
from vault.schema.question import QuestionKind

_TERMS: Final = frozenset({"question_kind", "purpose", "category"})


@dataclass(frozen=True, slots=True)
class Words:
    """The wording of one language; braces are filled in.

    Args:
        events: By kind of event.
        accesses: Of auditors that choose whose events they see, by what was shown.
        anything: For every other kind.
        terms: What kinds of question, categories and purposes are called, by their names.
        states: What became of a consent.
        changed: For a consent whose event is not known any more.
        not_rules: Reasons of a denial that no policy gives.
        owner: The owner, as a party.
        operator: The operator, as a party.
        company: A company without a name.
    """

    events: Mapping[LeafKind, str]
    accesses: Mapping[str, str]
    anything: str
    terms: Mapping[str, str]
    states: Mapping[ConsentEvent, str]
    changed: str
    not_rules: Mapping[str, str]
    owner: str
    operator: str
    company: str


_ENGLISH: Final = Words(
    events={
        LeafKind.VAULT_GENESIS: "Your vault began.",
        LeafKind.SUCCESSION: "The next owner key, from your recovery kit, replaced your owner key.",
        LeafKind.PROFILE: "Your signed profile was put in force.",
        LeafKind.ACCOUNT: "Version {version} of your account record was stored.",
        LeafKind.RING_HEAD: "Version {version} of your list of compartments and devices was put in force.",
        LeafKind.UPLOAD: "A device of yours uploaded sealed batches: {count}.",
        LeafKind.CONSENT_REQUEST: "{party} asks you to renew a consent; `owner requests` shows what for.",
        LeafKind.CONSENT: "{party}: version {version} of your consent {state}.",
        LeafKind.HANDOVER: "The keys that your consent covers were handed over to this service, sealed.",
        LeafKind.RESEAL: "Keys that a consent handed over were sealed anew to this service's newer key.",
        LeafKind.RELEASE: "A noisy summary of {category} in {period} was made for your twin.",
        LeafKind.ANSWER: (
            "{party} asked {question_kind} (for: {purpose}) and got an answer; {quota_left} left this month."
        ),
        LeafKind.DENIAL: "{party} asked {question_kind} and was refused.",
        LeafKind.DENIALS: "{party} went on asking and was refused within one minute this often: {count}.",
        LeafKind.FREEZE: "A signed order to freeze or unfreeze your vault was followed.",
        LeafKind.ERASURE: "What an erasure names was destroyed.",
        LeafKind.RETENTION: "What was kept long enough was destroyed.",
        LeafKind.AUDITOR_ACCESS: (
            "An auditor was shown leaves {first} to {last} of the log: what was decided about your consents, under "
            "pseudonyms; no question and no answer."
        ),
        LeafKind.KEY: (
            "The service replaced the key to which you had sealed consents in advance: your executors can give none of "
            "them any more. Make a new plan, with new shares."
        ),
        LeafKind.LEGACY_PLAN: "Version {version} of your legacy plan was put in force.",
        LeafKind.LEGACY_CLAIM: (
            "Your executors declared that you are gone, or you were away for as long as your plan says. Its waiting "
            "period runs: sign in, and it stops."
        ),
        LeafKind.LEGACY_FORCE: "The waiting period of your plan has passed. Sign in if you are here, and it ends.",
        LeafKind.LEGACY_OPEN: "Your executors gave the consents that you had sealed in advance: {count}.",
        LeafKind.LEGACY_VETO: (
            "You signed in, so your plan does not go on. If your executors had declared something, their shares are "
            "spent: make a new plan."
        ),
    },
    accesses={
        "listing": (
            "An auditor was shown how often each consent was used in leaves {first} to {last} of the log, under names "
            "that mean something to this auditor only; no question and no answer."
        ),
        "chosen": (
            "An auditor was shown leaves {first} to {last} of the log, and of these what was decided about consents "
            "that it had chosen; you were told if one of yours was."
        ),
        "opened": (
            "{party}: an auditor chose your consent, and may see what was decided about it, under pseudonyms; no "
            "question and no answer."
        ),
    },
    anything="Something that concerns every vault of this service was logged.",
    terms={
        **LABELS[Language.EN],
        QuestionKind.NEXT_CHOICE: "what you will probably choose next",
        QuestionKind.RECOMMEND: "which of its offers suit you best",
        QuestionKind.PROPENSITY: "how likely a visit of yours is to end in a purchase",
        QuestionKind.SIMULATE_REACTION: "how you would probably react to something",
        QuestionKind.FORECAST: "how your habits will probably develop",
        QuestionKind.POPULATION_MAP: "for statistics over many people, you among them",
    },
    states={
        ConsentEvent.GIVEN: "is in force",
        ConsentEvent.NARROWED: "is in force, narrower than before",
        ConsentEvent.RENEWED: "was renewed",
        ConsentEvent.WITHDRAWN: "was withdrawn by you",
        ConsentEvent.REVOKED: "was revoked by the operator",
        ConsentEvent.RETURNED: "was given back, and so ended, by them",
        ConsentEvent.EXPIRED: "has expired",
        ConsentEvent.INVALIDATED: "was found invalid",
    },
    changed="changed",
    not_rules={
        "not-spent": (
            "While the question was being answered, the consent changed, its quota was spent, or all companies "
            "together used up what they may show you."
        ),
        "not-yours": "The consent was given to somebody else.",
    },
    owner="You",
    operator="The operator",
    company="A company",
)
_FRENCH: Final = Words(
    events={
        LeafKind.VAULT_GENESIS: "Votre coffre a été créé.",
        LeafKind.SUCCESSION: "La clé suivante, celle de votre kit de secours, a remplacé votre clé de propriétaire.",
        LeafKind.PROFILE: "Votre profil signé est entré en vigueur.",
        LeafKind.ACCOUNT: "La version {version} de votre fiche de compte a été enregistrée.",
        LeafKind.RING_HEAD: "La version {version} de votre liste de compartiments et d'appareils est en vigueur.",
        LeafKind.UPLOAD: "Un de vos appareils a envoyé des lots scellés : {count}.",
        LeafKind.CONSENT_REQUEST: (
            "{party} vous demande de renouveler un consentement ; `owner requests` montre pour quoi."
        ),
        LeafKind.CONSENT: "{party} : la version {version} de votre consentement {state}.",
        LeafKind.HANDOVER: "Les clés que couvre votre consentement ont été remises à ce service, scellées.",
        LeafKind.RESEAL: "Des clés remises par un consentement ont été rescellées pour la nouvelle clé de ce service.",
        LeafKind.RELEASE: "Un résumé bruité a été fait pour votre jumeau ({category}, {period}).",
        LeafKind.ANSWER: (
            "{party}, question posée : {question_kind} (finalité : {purpose}). Réponse reçue ; il en reste {quota_left} "
            "ce mois-ci."
        ),
        LeafKind.DENIAL: "{party}, question posée : {question_kind}. Refus.",
        LeafKind.DENIALS: "{party}, suite de questions ; refus en une minute : {count}.",
        LeafKind.FREEZE: "Un ordre signé de geler ou de dégeler votre coffre a été suivi.",
        LeafKind.ERASURE: "Ce que nomme un effacement a été détruit.",
        LeafKind.RETENTION: "Ce qui a été gardé assez longtemps a été détruit.",
        LeafKind.AUDITOR_ACCESS: (
            "Un auditeur a vu les feuilles {first} à {last} du journal : ce qui a été décidé de vos consentements, "
            "sous pseudonymes ; aucune question ni réponse."
        ),
        LeafKind.KEY: (
            "Le service a remplacé la clé à laquelle vous aviez scellé des consentements d'avance : vos exécuteurs ne "
            "peuvent plus en donner aucun. Faites un nouveau plan, avec de nouvelles parts."
        ),
        LeafKind.LEGACY_PLAN: "La version {version} de votre plan de succession numérique est entrée en vigueur.",
        LeafKind.LEGACY_CLAIM: (
            "Vos exécuteurs ont déclaré que vous n'êtes plus là, ou votre absence a duré ce que dit votre plan. Son "
            "délai court : connectez-vous, et il s'arrête."
        ),
        LeafKind.LEGACY_FORCE: ("Le délai de votre plan est passé. Connectez-vous si vous êtes là, et il prend fin."),
        LeafKind.LEGACY_OPEN: "Vos exécuteurs ont donné les consentements que vous aviez scellés d'avance : {count}.",
        LeafKind.LEGACY_VETO: (
            "Vous vous êtes connecté, votre plan ne se poursuit donc pas. Si vos exécuteurs avaient déclaré quelque "
            "chose, leurs parts sont épuisées : faites un nouveau plan."
        ),
    },
    accesses={
        "listing": (
            "Un auditeur a vu combien de fois chaque consentement a servi dans les feuilles {first} à {last} du "
            "journal, sous des noms qui n'ont de sens que pour lui ; aucune question ni réponse."
        ),
        "chosen": (
            "Un auditeur a vu les feuilles {first} à {last} du journal, et ce qui y a été décidé des consentements "
            "qu'il avait choisis ; vous avez été prévenu si l'un des vôtres en était."
        ),
        "opened": (
            "{party} : un auditeur a choisi votre consentement et peut voir ce qui en a été décidé, sous pseudonymes ; "
            "aucune question ni réponse."
        ),
    },
    anything="Un événement qui concerne tous les coffres de ce service a été consigné.",
    terms={
        **LABELS[Language.FR],
        QuestionKind.NEXT_CHOICE: "ce que vous choisirez probablement ensuite",
        QuestionKind.RECOMMEND: "lesquelles de ses offres vous conviennent le mieux",
        QuestionKind.PROPENSITY: "à quel point il est probable qu'une de vos visites se termine par un achat",
        QuestionKind.SIMULATE_REACTION: "comment vous réagiriez probablement à quelque chose",
        QuestionKind.FORECAST: "comment vos habitudes évolueront probablement",
        QuestionKind.POPULATION_MAP: "des statistiques sur de nombreuses personnes, dont vous",
    },
    states={
        ConsentEvent.GIVEN: "est en vigueur",
        ConsentEvent.NARROWED: "est en vigueur, plus étroite qu'avant",
        ConsentEvent.RENEWED: "a été renouvelée",
        ConsentEvent.WITHDRAWN: "a été retirée par vous",
        ConsentEvent.REVOKED: "a été révoquée par l'exploitant",
        ConsentEvent.RETURNED: "a été rendue par son bénéficiaire, et a donc pris fin",
        ConsentEvent.EXPIRED: "a expiré",
        ConsentEvent.INVALIDATED: "a été jugée non valable",
    },
    changed="a changé",
    not_rules={
        "not-spent": (
            "Pendant que la réponse se préparait, le consentement a changé, son quota a été épuisé, ou toutes les "
            "entreprises réunies ont épuisé ce qu'elles ont le droit de vous montrer."
        ),
        "not-yours": "Le consentement a été donné à quelqu'un d'autre.",
    },
    owner="Vous",
    operator="L'exploitant",
    company="Une entreprise",
)
WORDS: Final[Mapping[Language, Words]] = {Language.EN: _ENGLISH, Language.FR: _FRENCH}


def sentence(kind: LeafKind, public: JsonObject, personal: JsonObject, party: str, words: Words = _ENGLISH) -> str:
    """Return what happened, with categories, purposes and kinds of question as people call them.

    Args:
        kind: Of the leaf.
        public: Its public half.
        personal: Its personal half.
        party: Who asked or to whom a consent was given, ready to begin a sentence.
        words: The wording.
    """
    event = personal.get("event")
    state = words.states[ConsentEvent(str(event))] if kind is LeafKind.CONSENT and event else words.changed
    said = words.events.get(kind, words.anything)
    if kind is LeafKind.AUDITOR_ACCESS:
        said = words.accesses.get(str(public.get("shown")), said)
    names = {**public, **personal}
    called = {name: words.terms.get(str(names[name]), names[name]) for name in _TERMS & names.keys()}
    return said.format_map({**names, **called, "party": party, "state": state})
