"""Lets SQL of others only read the documented views: the parsed statement is checked, not its text.

DuckDB itself says what a statement is (`json_serialize_sql` takes nothing but SELECT). Every table must be
one of our views or a name that the statement defines, every function one of a list, so that what is
added to DuckDB later is refused until somebody has looked at it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sidejudge_storage.errors import QueryRefusedError
from sidejudge_storage.quality_schema import USER_VIEW_NAMES

if TYPE_CHECKING:
    import duckdb

__all__ = ["ALLOWED_FUNCTIONS", "check_query"]

_SCHEMA = "v1"

_FUNCTIONS = {
    "operators and conditions": """
        + - * / // % ^ ** ~~ !~~ ~~* !~~* ~~~ || & | << >> ! ~ -> ->> && @> <@
        like_escape not_like_escape ilike_escape not_ilike_escape
        coalesce nullif ifnull if greatest least
    """,
    "aggregates": """
        count count_star sum avg mean min max median mode any_value first last arg_max arg_min max_by
        min_by bool_and bool_or bit_and bit_or bit_xor string_agg group_concat listagg list array_agg
        stddev stddev_samp stddev_pop variance var_samp var_pop corr covar_pop covar_samp regr_slope
        regr_intercept regr_r2 skewness kurtosis entropy product fsum kahan_sum favg quantile
        quantile_cont quantile_disc approx_quantile approx_count_distinct histogram count_if
    """,
    "windows": """
        row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value
        nth_value
    """,
    "numbers": """
        abs ceil ceiling floor round round_even trunc sign sqrt cbrt exp ln log log2 log10 pow power pi
        sin cos tan asin acos atan atan2 degrees radians mod fmod isnan isinf isfinite width_bucket
        add subtract multiply divide
    """,
    "texts": """
        lower upper lcase ucase length len char_length strlen substring substr left right trim ltrim
        rtrim replace contains starts_with ends_with prefix suffix concat concat_ws split string_split
        str_split split_part regexp_matches regexp_full_match regexp_replace regexp_extract
        regexp_extract_all position strpos instr reverse lpad rpad md5 sha256 hash format printf
        levenshtein jaccard translate chr ascii
    """,
    "times": """
        now current_timestamp get_current_timestamp current_date today date_trunc datetrunc date_part
        datepart date_diff datediff date_sub datesub date_add extract year quarter month week day hour
        minute second dayofweek dayofyear isodow epoch epoch_ms epoch_us to_timestamp make_date
        make_timestamp strftime strptime time_bucket age last_day dayname monthname yearweek
        to_days to_hours to_minutes to_seconds to_weeks to_months to_years
    """,
    "lists, structs and JSON": """
        unnest list_value list_aggregate list_contains list_has list_sort list_distinct list_extract
        list_element array_extract array_length len struct_pack row struct_extract map map_keys
        map_values element_at json_extract json_extract_string json_extract_path
        json_extract_path_text json_array_length json_keys json_type json_valid json_exists json_value
        list_transform list_filter list_avg list_sum list_min list_max array_value
    """,
    "casts and tables": """
        typeof try_cast cast generate_series range
    """,
}

ALLOWED_FUNCTIONS = frozenset(
    name for names in _FUNCTIONS.values() for name in names.split()
)
"""What a query may call."""

_TABLE_FUNCTIONS = frozenset({"unnest", "generate_series", "range"})


def check_query(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse SQL that is more than one SELECT over the views.

    Raises:
        QueryRefusedError: It says what is not allowed.
    """
    ((text,),) = connection.execute(
        "SELECT json_serialize_sql(CAST(? AS VARCHAR))", [sql]
    ).fetchall()
    document = json.loads(text)
    if document.get("error"):
        message = document.get("error_message", "it is not SQL")
        if document.get("error_type") == "not implemented":
            message = "only SELECT is allowed"
        raise QueryRefusedError(message)
    statements = document["statements"]
    if len(statements) != 1:
        raise QueryRefusedError(f"there are {len(statements)} statements; send one")
    nodes = list(_nodes(statements[0]))
    defined = {name for node in nodes for name in _cte_names(node)}
    for node in nodes:
        _check_node(node, defined)


def _check_node(node: Mapping[str, Any], defined: set[str]) -> None:
    kind = str(node.get("type"))  # a cast has an object here
    if kind == "BASE_TABLE":
        _check_table(node, defined)
    if kind == "TABLE_FUNCTION":
        name = str(node.get("function", {}).get("function_name", "")).lower()
        if name not in _TABLE_FUNCTIONS:
            raise QueryRefusedError(f"the table function {name!r} is not allowed")
    if kind in {"SHOW_REF", "PIVOT", "DELIM_GET", "COLUMN_DATA"}:
        raise QueryRefusedError(f"{kind.lower()} is not allowed")
    if "function_name" in node:
        name = str(node["function_name"]).lower()
        schema = str(node.get("schema") or "").lower()
        catalog = str(node.get("catalog") or "").lower()
        path = (node.get("qualified_name") or {}).get("path", [name])
        builtin = not schema and not catalog and len(path) == 1
        if name not in ALLOWED_FUNCTIONS or not builtin:
            raise QueryRefusedError(f"the function {name!r} is not allowed")


def _check_table(node: Mapping[str, Any], defined: set[str]) -> None:
    name = str(node.get("table_name", ""))
    schema = str(node.get("schema_name") or "")
    catalog = str(node.get("catalog_name") or "")
    if not catalog and schema == _SCHEMA and name in USER_VIEW_NAMES:
        return
    if (
        not catalog
        and not schema
        and (name.lower() in defined or name in USER_VIEW_NAMES)
    ):
        return
    full = ".".join(part for part in (catalog, schema, name) if part)
    raise QueryRefusedError(
        f"there is no view {full!r} to query; there are {', '.join(sorted(USER_VIEW_NAMES))}"
    )


def _cte_names(node: Mapping[str, Any]) -> Iterator[str]:
    for entry in (node.get("cte_map") or {}).get("map", ()):
        yield str(entry["key"]).lower()
    if str(node.get("type")) in {"RECURSIVE_CTE_NODE", "CTE_NODE"} and node.get(
        "cte_name"
    ):
        yield str(node["cte_name"]).lower()


def _nodes(value: object) -> Iterator[Mapping[str, Any]]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
