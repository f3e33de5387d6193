import io

from complete_model import complete
from rich.console import Console

from pipeline.report.sources import sources_table
from tokenmill.contracts.ledger import Funnel


def rows(sources):
    """The table of so many sources, as lines of words."""
    keys = {
        f"source {i}": {
            "raw": {"documents": i, "bytes": 1000 * i, "tokens_estimated": 10.0 * i},
            "dropped": {"near_duplicate": {"documents": 2}},
        }
        for i in range(1, sources + 1)
    }
    out = io.StringIO()
    Console(file=out, width=200).print(sources_table(complete(Funnel, {"by_source": keys})))
    return [line.split() for line in out.getvalue().splitlines()[1:]]


def test_the_table_shows_the_top_sources_and_the_sum_of_the_others():
    table = rows(271)
    assert len(table) == 22
    assert table[0][:3] == ["source", "271", "271"]
    others = table[20]
    assert others[:2] == ["251", "others"]
    assert others[2:6] == ["31,626", "31.6", "MB", "316,260"]  # 1 + .. + 251
    assert others[6] == "-502"
    assert table[21][0] == "all"


def test_one_other_source_has_its_name():
    assert [line[0] for line in rows(21)] == ["source"] * 21 + ["all"]
    assert [line[0] for line in rows(1)] == ["source", "all"]
