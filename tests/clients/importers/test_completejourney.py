from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twinvault.importers import UnknownFormat, open_import
from twinvault.importers.completejourney import slug
from vault.imprint.features import feature_map
from vault.schema.category import Category
from vault.schema.trace import Action, Trace

HEADER = "household_id,basket_id,product_id,transaction_timestamp,product_category,department,quantity,sales_value\n"
ROW = "1,10,100,2017-01-01 11:53:26,SOFT DRINKS,GROCERY,1,0.99\n"


def write(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "household.csv"
    path.write_bytes((header + "".join(rows)).encode("utf-8", "surrogateescape"))
    return path


def read(path: Path, zone: str = "UTC") -> tuple[list[Trace], dict[str, int], int]:
    found = open_import(path, ZoneInfo(zone))
    return list(found), dict(found.reasons), found.rows_read


def test_a_row_becomes_a_purchase(tmp_path: Path) -> None:
    (trace,), reasons, rows = read(write(tmp_path, ROW))
    assert (reasons, rows) == ({}, 1)
    assert trace.category == "pd:Purchase"
    assert (trace.action, trace.object, trace.text) == (Action.BUY, "completejourney:soft-drinks", "SOFT DRINKS")
    assert (trace.quantity_milli, trace.amount_milli, trace.currency) == (1000, 990, "USD")
    assert trace.occurred_at == datetime(2017, 1, 1, 11, 53, 26, tzinfo=UTC)


def test_times_without_a_zone_are_of_the_vaults_zone(tmp_path: Path) -> None:
    (trace,), _, _ = read(write(tmp_path, ROW), "America/New_York")
    assert trace.occurred_at == datetime(2017, 1, 1, 16, 53, 26, tzinfo=UTC)


def test_ids_are_the_same_in_every_import_and_tell_equal_rows_apart(tmp_path: Path) -> None:
    path = write(tmp_path, ROW, ROW, ROW.replace("0.99", "1.99"))
    first, second = read(path)[0], read(path)[0]
    assert [t.id for t in first] == [t.id for t in second]
    assert len({t.id for t in first}) == 3
    reordered = read(write(tmp_path, ROW.replace("0.99", "1.99"), ROW, ROW))[0]
    assert {t.id for t in reordered} == {t.id for t in first}


def test_parquet_gives_the_same_traces_as_csv(tmp_path: Path) -> None:
    table = pa.table(
        {
            "household_id": pa.array([1, 1]),
            "basket_id": pa.array([10, 11]),
            "product_id": pa.array([100, 101]),
            "transaction_timestamp": pa.array(
                [1_483_271_606_000_000_001, 1_483_271_606_000_000_000], pa.timestamp("ns")
            ),
            "product_category": pa.array(["SOFT DRINKS", None]),
            "department": pa.array(["GROCERY", "MISCELLANEOUS"]),
            "quantity": pa.array([1, 2]),
            "sales_value": pa.array([0.99, 0.1 + 0.2]),
        }
    )
    path = tmp_path / "household.parquet"
    pq.write_table(table, path)
    (first, second), reasons, _ = read(path)
    assert reasons == {}
    assert first == read(write(tmp_path, ROW))[0][0]
    assert (second.object, second.text, second.amount_milli) == ("", "MISCELLANEOUS", 300)


def test_every_published_code_is_the_slug_of_its_name() -> None:
    published = feature_map(Category("pd:Purchase"))
    for code, name in zip(published.codes[:-2], published.names[:-2], strict=True):
        assert code == f"completejourney:{slug(name)}"


@pytest.mark.parametrize(
    "row",
    [
        ROW.replace("0.99", "nan"),
        ROW.replace("0.99", "inf"),
        ROW.replace("0.99", "1e30"),
        ROW.replace("0.99", "9" * 5000),
        ROW.replace("2017-01-01 11:53:26", "yesterday"),
        ROW.replace("2017-01-01 11:53:26", "0001-01-01 00:00:00"),
        ROW.replace("2017-01-01", "2500-01-01"),
        ROW.replace("SOFT DRINKS", "SOFT \udcffDRINKS"),
        ROW.replace("SOFT DRINKS", "SOFT\0DRINKS"),
        "1,10\n",
        ROW.replace("\n", ",extra\n"),
        ROW.replace("1,10,", "2,10,", 1),
        ROW.replace(",1,0.99", ",,0.99"),
    ],
)
def test_a_bad_row_is_counted_with_a_reason_and_the_rest_is_read(tmp_path: Path, row: str) -> None:
    traces, reasons, rows = read(write(tmp_path, ROW, row, ROW.replace("100", "101")), "America/New_York")
    assert len(traces) == 2
    assert sum(reasons.values()) == 1
    assert rows == 3
    assert not any("SOFT" in reason or "9999" in reason for reason in reasons)


def test_a_field_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    traces, reasons, _ = read(write(tmp_path, ROW, '1,10,100,"' + "x" * 400_000))
    assert len(traces) == 1
    assert sum(reasons.values()) == 1


def test_returns_and_long_names(tmp_path: Path) -> None:
    long = ROW.replace("SOFT DRINKS", "A" * 2000)
    traces, reasons, _ = read(write(tmp_path, ROW.replace(",1,", ",-1,").replace("0.99", "-0.99"), long))
    assert (traces[0].action, traces[0].quantity_milli, traces[0].amount_milli) == (Action.RETURN, 1000, -990)
    assert len(traces) == 1
    assert reasons == {"outside what a trace can hold": 1}


def test_parquet_without_the_columns_or_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"household_id": [1]}), path)
    with pytest.raises(UnknownFormat, match="lacks transaction_timestamp"):
        read(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnknownFormat, match="damaged"):
        read(path)
