"""Every node test that ONNX has for an operator of the table, and what the documentation says of them."""

import json
import os
from collections import Counter
from typing import Any

import onnx
import pytest
import torch

from models.onnx_graph.graph import FIRST_OPSET
from models.onnx_graph.operations import OPERATORS
from tests.models.onnx_graph import gradients, node_cases


@pytest.fixture(scope="module")
def cases() -> list[Any]:
    torch.set_num_threads(1)
    return node_cases.load()


def failure(case: Any) -> str | None:
    """Run a case; say what went wrong, None if nothing did."""
    try:
        node_cases.run(case)
    except Exception as error:  # whatever it is, it belongs into the list
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


def first_opset(row: str) -> int:
    """Return the first opset that we accept and that has an operator."""
    if row == node_cases.SEVERAL:
        return FIRST_OPSET
    return max(FIRST_OPSET, min(one.since_version for one in onnx.defs.get_all_schemas_with_history()
                                if one.name == row and not one.domain))  # fmt: skip


def test_every_case_of_a_covered_operator_passes_or_is_left_out_for_a_reason(cases: list[Any]) -> None:
    table, wrong = {}, []
    for row, own in node_cases.rows(cases).items():
        passed, left_out = 0, Counter()
        for case in own:
            why, found = node_cases.reason(case), failure(case)
            if why is None and found is None:
                passed += 1
            elif why is None:
                wrong.append(f"{case.name} fails: {found}")
            elif found is None:
                wrong.append(f"{case.name} passes, but is left out: {why}")
            else:
                left_out[why] += 1
        table[row] = {"opset": first_opset(row), "passed": passed, "left_out": dict(sorted(left_out.items()))}
        if not passed:
            wrong.append(f"{row} has no node test that passes")
    assert not wrong, "\n".join(wrong)
    counts = {"cases": len(cases), "operators": table}
    if os.environ.get("WRITE_COVERAGE"):
        node_cases.COVERAGE.write_text(json.dumps(counts, indent=1) + "\n")
    assert json.loads(node_cases.COVERAGE.read_text()) == counts, (
        "the counts have changed; run this test with WRITE_COVERAGE=1, then `make docs`"
    )
    assert set(table) == {*OPERATORS, node_cases.SEVERAL}


def test_every_reason_is_one_of_a_case(cases: list[Any]) -> None:
    used = {node_cases.reason(case) for row in node_cases.rows(cases).values() for case in row}
    assert used >= set(node_cases.LEFT_OUT.values())


def test_gradients_agree_with_finite_differences_for_every_operator_that_has_them(cases: list[Any]) -> None:
    checked: Counter[str] = Counter()
    wrong = []
    for row, own in node_cases.rows(cases).items():
        if row == node_cases.SEVERAL or not OPERATORS[row].smooth:
            continue
        for case in own:
            if node_cases.reason(case):
                continue
            try:
                checked[row] += gradients.check(case)
            except (RuntimeError, ValueError, IndexError) as error:
                wrong.append(f"{case.name}: {' '.join(str(error).split())[:300]}")
    assert not wrong, "\n".join(wrong)
    assert not [name for name, operator in OPERATORS.items() if operator.smooth and not checked[name]]
