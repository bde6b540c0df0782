"""The helpers' imports, drawn: `python -m tests.import_graph`. A module stands below those that it imports."""

from collections import Counter
from graphlib import TopologicalSorter

from tests.test_helpers import FILES, PACKAGES, ours, package


def levels(modules: dict[str, set[str]]) -> list[list[str]]:
    """Modules by the longest way down to one that imports none of them; CycleError names a cycle."""
    sorter, found = TopologicalSorter(modules), []
    sorter.prepare()
    while ready := sorter.get_ready():
        found.append(sorted(ready))
        sorter.done(*ready)
    return found


def drawn() -> str:
    """Each package by levels, a module with what it imports of its own package; then the arrows between packages."""
    lines = []
    for name in PACKAGES:
        inside = {module: ours(module) & set(FILES) for module in FILES if package(module) == name}
        within = {module: {other for other in used if other in inside} for module, used in inside.items()}
        lines.append(f"helpers/{name}: {len(inside)} modules, {sum(map(len, within.values()))} arrows")
        for number, level in enumerate(levels(within)):
            for module in level:
                used = ", ".join(sorted(other.rpartition(".")[2] for other in within[module]))
                lines.append(f"  {number}  {module.rpartition('.')[2]:14s}" + f" -> {used}" * bool(used))
    across = Counter((package(a), package(b)) for a in FILES for b in ours(a) if package(a) != package(b))
    lines.append("between packages:")
    lines += [f"  helpers/{a} -> helpers/{b}: {times}" for (a, b), times in sorted(across.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    print(drawn())
