"""Results -> Markdown tables, and the page that holds them between two markers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tests.bench.containers import SERVERS
from tests.bench.results import Block, Results, Spread, aims

BLOCK = re.compile(r"(<!-- measured -->\n).*?(<!-- end measured -->)", re.DOTALL)
METRICS = (
    ("ttft_p50", "TTFT p50, ms", 1),
    ("ttft_p95", "TTFT p95, ms", 1),
    ("gap_p50", "Inter-token p50, ms", 2),
    ("gap_p99", "Inter-token p99, ms", 1),
    ("tokens_per_s", "Tokens/s", 0),
    ("chunks_per_token", "Chunks per token", 2),
    ("cpu_per_1000_tokens", "Server CPU s per 1000 tokens", 2),
)
"""What the main tables show: a field of `Block`, its heading, its decimals."""

MORE = (
    ("events_per_token", "Events per token", 2),
    ("reads_per_token", "TCP reads per token", 2),
    ("client_cores", "Client, CPUs", 2),
    ("other_cores", "Other processes, CPUs", 2),
)


def tables(results: Results) -> str:
    """Everything that was measured, as Markdown."""
    parts = [_conditions(results), _aims(results)]
    for concurrency in results.concurrencies():
        rows = _rows(results, concurrency, METRICS)
        parts.append(f"### Concurrency {concurrency}\n\n{table(('Server', *(head for _, head, _ in METRICS)), rows)}")
    rows = [(f"{concurrency}", *row) for concurrency in results.concurrencies() for row in _rows(results, concurrency, MORE)]
    parts.append(f"### Beside the measurement\n\n{table(('Concurrency', 'Server', *(head for _, head, _ in MORE)), rows)}")
    idle = ", ".join(f"{SERVERS[name].title} {cores:.2f}" for name, cores in results.idle.items())
    parts.append(f"CPUs in use at rest, before a server is frozen: {idle}.\n")
    return "\n".join(parts)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table.

    >>> table(("a", "b"), [("1", "2")])
    '| a | b |\\n| --- | --- |\\n| 1 | 2 |\\n'
    """
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, tuple("---" for _ in head), *rows])


def line(block: Block) -> str:
    """One run in one line, for whoever waits."""
    return (
        f"round {block.round + 1}, {block.server} at {block.concurrency}: TTFT {block.ttft_p50:.1f}/{block.ttft_p95:.1f} ms, "
        f"gaps {block.gap_p50:.2f}/{block.gap_p99:.1f} ms, {block.tokens_per_s:.0f} tokens/s, "
        f"{block.chunks_per_token:.2f} chunks per token, {block.cpu_per_1000_tokens:.2f} CPU s, others {block.other_cores:.2f} cores"
    )


def write(results: Results, page: Path) -> None:
    """Replace what stands between the markers of a page.

    Raises:
        ValueError: the page has no markers.
    """
    text = page.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise ValueError(f"{page} has no <!-- measured --> and <!-- end measured -->")
    page.write_text(BLOCK.sub(lambda found: f"{found[1]}\n{tables(results)}\n{found[2]}", text), encoding="utf-8")


def spread(value: Spread, decimals: int) -> str:
    """Median (least to greatest).

    >>> spread(Spread(1.04, 1.0, 2.0), 1)
    '1.0 (1.0 to 2.0)'
    """
    return f"{value.median:.{decimals}f} ({value.low:.{decimals}f} to {value.high:.{decimals}f})"


def _rows(results: Results, concurrency: int, metrics: tuple[tuple[str, str, int], ...]) -> list[tuple[str, ...]]:
    return [
        (SERVERS[server].title, *(spread(results.spread(server, concurrency, metric), decimals) for metric, _, decimals in metrics))
        for server in results.servers()
        if results.cell(server, concurrency)
    ]


def _conditions(results: Results) -> str:
    about = results.about
    facts = (
        ("Date", about["date"]),
        ("Machine", f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux {about['kernel']}, no GPU"),
        ("Versions", f"vLLM {about['vllm']} for CPUs, Ray {about['ray']}, ray-serve-cai at commit `{about['commit']}`"),
        ("Command", f"`{about['command']}`"),
        ("Load", f"{about['rounds']} rounds, {about['tokens']} tokens per request, model `{about['model']}`"),
        ("Other containers on the machine", f"{about['other_containers']}"),
    )
    return table(("Condition", "Value"), facts)


def _aims(results: Results) -> str:
    rows = [
        (
            aim.text,
            f"at {'most' if aim.at_most else 'least'} {aim.limit:g}{aim.unit}",
            f"{spread(aim.measured, 2)}{aim.unit}",
            "yes" if aim.met else "no",
        )
        for aim in aims(results)
    ]
    return table(("Aim", "Limit", "Measured", "Met"), rows)
