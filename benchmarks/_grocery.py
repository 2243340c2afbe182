"""The grocery year (data set complete_journey) as arrays: who bought which product categories on which day."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vault.imprint.features import FeatureMap, feature_map
from vault.schema.category import Category

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

DAYS = 365


@dataclass(frozen=True, eq=False)
class Shops:
    """Every day on which a person shopped, sorted by person and day.

    Args:
        people: int64[P] household ids.
        person: int64[N] index into `people`.
        day: int64[N] days since the first of January, 0 to 364.
        bought: bool[N, K] which published codes were bought; `other` left out.
    """

    people: Ints
    person: Ints
    day: Ints
    bought: npt.NDArray[np.bool_]

    def of(self, marked: npt.NDArray[np.bool_]) -> Shops:
        """Return the shops of the marked people, numbered anew."""
        keep = marked[self.person]
        number = np.cumsum(marked) - 1
        return Shops(self.people[marked], number[self.person[keep]], self.day[keep], self.bought[keep])


def code_of(name: str) -> str:
    """Return the published code of a product category."""
    return "completejourney:" + re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def retail_map() -> FeatureMap:
    """Return the published map of purchases."""
    return feature_map(Category("pd:Purchase"))


def load(folder: Path, products: Path) -> Shops:
    """Read a folder with `transactions.parquet`, in the data set's own format.

    Args:
        folder: Holds the transactions.
        products: The public table that gives each product its category.

    Days are those of the file's time stamps; a last row past midnight of the year counts to its last day.
    """
    codes = {code: at for at, code in enumerate(retail_map().codes[:-2])}
    table = pq.read_table(products, columns=["product_id", "product_category"])
    names = table["product_category"].to_pylist()
    known = np.array([codes.get(code_of(name), -1) if name else -1 for name in names])
    product = table["product_id"].to_numpy()
    order = np.argsort(product)
    columns = ["household_id", "product_id", "transaction_timestamp"]
    sold = pq.read_table(folder / "transactions.parquet", columns=columns)
    at = np.searchsorted(product[order], sold["product_id"].to_numpy())
    at = np.minimum(at, len(product) - 1)
    right = product[order][at] == sold["product_id"].to_numpy()
    code = np.where(right, known[order][at], -1)
    day = np.clip(pc.day_of_year(sold["transaction_timestamp"]).to_numpy() - 1, 0, DAYS - 1)
    year = pc.year(sold["transaction_timestamp"]).to_numpy()
    day = np.where(year > year.min(), DAYS - 1, day)
    people, person = np.unique(sold["household_id"].to_numpy(), return_inverse=True)
    shop, row = np.unique(person * DAYS + day, return_inverse=True)
    bought = np.zeros((len(shop), len(codes)), dtype=np.bool_)
    bought[row[code >= 0], code[code >= 0]] = True
    return Shops(people, shop // DAYS, shop % DAYS, bought)
