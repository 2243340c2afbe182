"""What an answer could reveal: a public classifier of codes and texts into special categories.

Best effort, and it says so: it knows English and French words of goods, not context and no other script. A basket of
ordinary goods can betray an illness; what no word names, this does not see. Accents, width and letters that nobody
sees hide no word. Holidays that most people keep whatever they believe are left out. A change of the words is a new
version, as the decision records name it.

The service decides by it, and whoever holds a question holds the decision against it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, assert_never

from vault.imprint.features import Cadence, FeatureMap, feature_map, mapped_for
from vault.schema.category import Category, parse_category
from vault.schema.question import Candidate, NextChoice, Propensity, Question, Recommend

VERSION: Final = "reveals-4"

# A term matches where a word begins; a trailing blank makes it match whole words only.
_TERMS: Final[dict[tuple[str, ...], str]] = {
    ("pd:Health",): "adult incontinence|allerg|analgesic|antacid|antibiotic|antihistamine|asthma|bandage|blood pressure"
    "|cholesterol|cold and flu|contact lens|cough|diabet|diet |dietary|dietetic|ear care|eye and ear|feminine hygiene"
    "|first aid|fitness diet|flu |foot care|glasses vision|gluten free|hbc |health|hearing aid|home health|ibuprofen"
    "|incontinence|insulin|lactose free|laxative|low sodium|low sugar|medical|medicat|medicin|menstrua|migraine"
    "|nicotine|nutritional supplement|pain relief|paracetamol|probiotic|remed|restricted diet|sinus|smoking cessation"
    "|sugar free|supplement|thermometer|vision aid|vitamin|wheelchair|wound"
    "|aide auditive|antalgi|antibiotiq|antidouleur|appareil auditif|asthm|complement alimentaire|fauteuil roulant|grippe"
    "|hygiene intime|lentilles de contact|lunettes de vue|menstru|pansement|rhume|sans gluten|sans lactose|sante "
    "|serviettes hygieniques|sevrage tabagique|tension arterielle|tensiometre|toux",
    ("pd:Health", "pd:MedicalHealth"): "chemotherap|dialysis|oncolog|surgery|surgical|chimiotherap|chirurg|dialyse",
    (
        "pd:Health",
        "pd:MedicalHealth",
        "pd:HealthRecord",
    ): "health record|medical record|patient record|vaccination record"
    "|carnet de sante|carnet de vaccination|dossier de sante|dossier medical|dossier patient",
    (
        "pd:Health",
        "pd:PhysicalHealth",
    ): "crutch|orthopaedic|orthopedic|physical therapy|physiotherap|prosthe|bequille|kinesitherap|orthopediq|prothes",
    ("pd:Health", "pd:Prescription"): "drugstore|pharmac|prescription|medicament|ordonnance",
    ("pd:Health", "pd:MentalHealth"): "antidepress|anxiety|depression|mental health|psychiatr|psychotherap|sleep aid"
    "|sleeping pill|therapist|anxiete|anxiolyt|sante mentale|somnifere",
    ("pd:Health", "pd:Sexual"): "contracept|family planning|fertility|ovulation|pregnan|prenatal"
    "|femme enceinte|femmes enceintes|fertilite|grossesse|planning familial",
    (
        "pd:Sexual",
    ): "condom|erotic|lubricant|personal massager|porn|sex |sex toy|sexual|erotiq|lubrifiant|preservatif|sexe |sextoy|sexuel",
    (
        "pd:SexualPreference",
    ): "bisexual|gay |gay pride|homosexual|lesbian|lgbt|queer|transgender|bisexuel|homosexuel|lesbienn|transgenre",
    ("pd:ReligiousBelief",): "bible|buddhis|catholic|christian |church|communion|crucifix|hajj|halal|hanukkah|hindu"
    "|islam|jewish|koran|kosher|matzo|menorah|mosque|muslim|prayer|qur an|quran|rabbi|ramadan|religio|rosary|sabbath"
    "|shabbat|sikh|synagogue|torah"
    "|bouddh|casher|chretien|coran |eglise|juif |juifs |juive|musulman|priere",
    ("pd:PhilosophicalBelief",): "atheis|freemason|humanist|athee|franc macon|francs macons",
    ("pd:PoliticalOpinion",): "campaign donation|conservative party|democratic party|election|green party|labour party"
    "|party membership|politic|republican party|parti socialiste|parti communiste|politiq",
    (
        "pd:TradeUnionMembership",
    ): "labor union|labour union|trade union|union dues|union membership|workers union|syndical|syndicat |syndicats ",
    ("pd:EthnicOrigin",): "ancestry|ethnic|ethnicity|hispanic|ethni",
    ("pd:Genetic", "pd:Health"): "dna test|genetic|genome|genetiq|test adn|tests adn",
    (
        "pd:Biometric",
    ): "biometric|face recognition|fingerprint|biometri|empreinte digitale|empreintes digitales|reconnaissance faciale",
}
_CATEGORIES: Final = {
    term: frozenset(map(parse_category, categories))
    for categories, terms in _TERMS.items()
    for term in terms.split("|")
}
# Grouped by first letter, or each word of a text would be held against each term.
_BY_LETTER: Final = {
    letter: "|".join(term[1:] for term in sorted(_CATEGORIES, key=len, reverse=True) if term[0] == letter)
    for letter in sorted({term[0] for term in _CATEGORIES})
}
_ANY_TERM: Final = re.compile("(?<= )(?:" + "|".join(f"{first}(?:{rest})" for first, rest in _BY_LETTER.items()) + ")")
_NO_WORD: Final = re.compile(r"[^a-z0-9\n]+")
_NONE: Final[frozenset[Category]] = frozenset()


def reveals_of(code: str, text: str) -> frozenset[Category]:
    """Return the special categories that learning about one object could reveal.

    Args:
        code: Its taxonomy code.
        text: What else is said about it; may be empty.
    """
    return revealed_by([f"{code} {text}"])


def revealed_by(texts: Iterable[str]) -> frozenset[Category]:
    """Return what any of some texts without a line's end names; terms do not reach from one to the next."""
    words = _NO_WORD.sub(" ", _plain(" \n ".join(texts)))
    return _NONE.union(*(_CATEGORIES[term] for term in _ANY_TERM.findall(f" {words} ")))


def _plain(text: str) -> str:
    """Return a text in small letters without what would hide a word from its terms."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text).lower()
    return "".join(letter for letter in apart if unicodedata.category(letter) not in {"Mn", "Cf"})


@lru_cache
def names_of(feature_map: FeatureMap) -> dict[str, str]:
    """Return what each code of a map is called."""
    return dict(zip(feature_map.codes, feature_map.names, strict=True))


@lru_cache
def reveals_of_codes(feature_map: FeatureMap) -> dict[str, frozenset[Category]]:
    """Return what each code of a map could reveal."""
    return {code: reveals_of(code, name) for code, name in names_of(feature_map).items()}


@lru_cache(maxsize=256)
def allowed(
    feature_map: FeatureMap, opted_in: frozenset[Category], first: int
) -> tuple[tuple[Candidate, ...], frozenset[Category]]:
    """Return those of a map's first codes that reveal nothing but what is opted in to, and what they reveal."""
    known = reveals_of_codes(feature_map)
    kept = [(code, known[code]) for code in feature_map.codes[:first] if known[code] <= opted_in]
    return tuple(Candidate(code, "") for code, _ in kept), _NONE.union(*(reveals for _, reveals in kept))


def least_revealed(question: Question, map_sha256: bytes, opted_in: frozenset[Category]) -> frozenset[Category] | None:
    """Return what an answer could reveal at the least; reading texts adds nothing that is not opted in to.

    Args:
        question: As asked.
        map_sha256: Digest of the feature map that the answer's model reads.
        opted_in: The consent's explicit special categories.

    Returns:
        None where the map is none of this release's.
    """
    match question:
        case Propensity():
            return _NONE
        case Recommend():
            found = _map_of(question.category, map_sha256)
            if found is None:
                return None
            named = names_of(found)
            return revealed_by(f"{one.code} {named.get(one.code, '')} {one.text}" for one in question.candidates)
        case NextChoice():
            found = _map_of(question.category, map_sha256)
            return None if found is None else allowed(found, opted_in, len(found.objects))[1]
        case _:
            assert_never(question)


def _map_of(category: Category, digest: bytes) -> FeatureMap | None:
    shipped = (feature_map(category, cadence) for cadence in Cadence if category in mapped_for(cadence))
    return next((one for one in shipped if one.digest == digest), None)
