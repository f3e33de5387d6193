"""The experts of a mixture: how busy each was over the training, which are dead, the routers."""

import math
from collections.abc import Iterator, Sequence

from pipeline.report.experts import describe_dead
from pipeline.report.page.charts import Line, line_chart
from pipeline.report.page.content import DataTable, Figure, Section
from pipeline.report.page.heat_maps import small_heat_maps
from pipeline.report.page.run_documents import RunDocuments
from tokenmill.contracts.training import ExpertLoads
from tokenmill.number_format import approximate, count, decimal

# What a picture has room for, and a page that is sent.
_MOST_TIMES, _MOST_MAPS, _MOST_CELLS = 40, 8, 6_000
# The darkest shade is of so many times the mean load.
_FULL_SHADE = 2.0


def experts_section(run: RunDocuments) -> Section:
    """Show how busy the experts were, and how sure the routers; empty for a dense model."""
    title, times = "Experts", _some(run.expert_loads)
    if not times:
        return Section("experts", title)
    return Section(
        "experts",
        title,
        list(_sentences(times)),
        list(_figures(times)),
        [(f"Experts at step {count(times[-1].step)}, by layer", _layers_table(times[-1]))],
    )


def _some(times: Sequence[ExpertLoads]) -> list[ExpertLoads]:
    """Return at most so many times as a page has room for, the first and the last among them."""
    kept = min(len(times), _MOST_TIMES)
    return [times[round(i * (len(times) - 1) / max(1, kept - 1))] for i in range(kept)]


def _experts(time: ExpertLoads) -> int:
    """Return the experts of a layer."""
    return len(time.layers[0].load_shares)


def _busiest(time: ExpertLoads) -> list[float]:
    """Return the largest load of each layer, in means."""
    return [max(of.loads) for of in time.layers]


def _idlest(time: ExpertLoads) -> list[float]:
    """Return the smallest load of each layer, in means."""
    return [min(of.loads) for of in time.layers]


def _entropies(time: ExpertLoads) -> list[float]:
    """Return the entropy of each layer's router, nats."""
    return [of.router_entropy_nats for of in time.layers]


def _sentences(times: list[ExpertLoads]) -> Iterator[str]:
    first, last = times[0], times[-1]
    layers, experts = len(last.layers), _experts(last)
    yield (
        f"{experts} experts in each of {layers} {'layer' if layers == 1 else 'layers'}, measured "
        "on the first held-out rows. Loads are in means: 1 is what each expert has where all are "
        "equally busy."
    )
    busy = _busiest(last)
    layer = busy.index(max(busy))
    expert = last.layers[layer].loads.index(busy[layer])
    before = "" if first is last else f"; the busiest at step {count(first.step)} had "
    before += "" if first is last else decimal(max(_busiest(first)))
    yield (
        f"At step {count(last.step)} the busiest is expert {expert} of layer "
        f"{last.layers[layer].layer} with a load of {decimal(busy[layer])}{before}."
    )
    dead = (
        describe_dead(last) or "No expert is dead: each has at least a hundredth of the mean load"
    )
    yield f"{dead}."
    moved = decimal(_mean(_entropies(last)))
    moved += "" if first is last else f", from {decimal(_mean(_entropies(first)))}"
    yield (
        f"Entropy of the routers: {moved} nats in the mean of the layers, of at most "
        f"ln {experts} = {decimal(math.log(experts))} for a router that prefers no expert."
    )


def _figures(times: list[ExpertLoads]) -> Iterator[Figure]:
    yield _load_maps(times)
    if len(times) > 1:
        yield _extremes(times)
        yield _entropy(times)


def _load_maps(times: list[ExpertLoads]) -> Figure:
    """Draw the load of each expert over the training, a small picture a layer."""
    first, last = times[0], times[-1]
    layers, experts = len(last.layers), _experts(last)
    most = min(layers, _MOST_MAPS, max(1, _MOST_CELLS // (experts * len(times))))
    # The first, the last and evenly spaced between; the last alone where there is room for one.
    drawn = (
        [round(i * (layers - 1) / (most - 1)) for i in range(most)] if most > 1 else [layers - 1]
    )
    maps, rows = [], []
    for i in drawn:
        loads = [time.layers[i].loads for time in times]
        number = last.layers[i].layer
        matrix = [[at[k] / _FULL_SHADE for at in loads] for k in range(experts)]
        maps.append((f"layer {number}", matrix))
        rows += [
            (f"layer {number}, expert {k}", f"{loads[0][k]:.2f}", f"{loads[-1][k]:.2f}")
            for k in range(experts)
        ]
    return Figure(
        "Load of each expert over the training" + (", some layers" * (most < layers)),
        small_heat_maps(maps),
        f"Heat maps, one a layer: a row is one of {experts} experts, a column one of {len(times)} "
        f"times from step {count(first.step)} to {count(last.step)}. Blank is no load, the darkest "
        f"{_FULL_SHADE:g} times the mean or more; where all experts are equally busy a column has "
        "one shade.",
        DataTable(
            ("expert", f"load at step {count(first.step)}", f"load at step {count(last.step)}"),
            rows,
        ),
    )


def _extremes(times: list[ExpertLoads]) -> Figure:
    """Draw the largest and the smallest load: of any layer, and in the mean of the layers."""
    curves: list[tuple[str, list[float]]] = [
        ("busiest of any layer", [max(_busiest(time)) for time in times]),
        ("busiest, mean of the layers", [_mean(_busiest(time)) for time in times]),
        ("idlest, mean of the layers", [_mean(_idlest(time)) for time in times]),
        ("idlest of any layer", [min(_idlest(time)) for time in times]),
    ]
    if len(times[-1].layers) == 1:
        curves = [("busiest", curves[0][1]), ("idlest", curves[-1][1])]
    return _curves(
        "Load of the busiest and of the idlest expert, in means",
        times,
        curves,
        f"The busiest expert goes from {decimal(curves[0][1][0])} to {decimal(curves[0][1][-1])} "
        f"times the mean load, the idlest from {decimal(curves[-1][1][0])} to "
        f"{decimal(curves[-1][1][-1])}.",
    )


def _entropy(times: list[ExpertLoads]) -> Figure:
    """Draw the entropy of the routers, of each layer where these are few."""
    layers = times[-1].layers
    if len(layers) <= 4:
        curves = [
            (f"layer {of.layer}", [_entropies(time)[i] for time in times])
            for i, of in enumerate(layers)
        ]
    else:
        curves = [
            ("largest of the layers", [max(_entropies(time)) for time in times]),
            ("mean of the layers", [_mean(_entropies(time)) for time in times]),
            ("smallest of the layers", [min(_entropies(time)) for time in times]),
        ]
    before, after = _mean(_entropies(times[0])), _mean(_entropies(times[-1]))
    return _curves(
        "Entropy of the routers, nats",
        times,
        curves,
        f"In the mean of the layers it goes from {decimal(before)} to {decimal(after)}; a router "
        f"that prefers no expert has {decimal(math.log(_experts(times[-1])))}.",
    )


def _curves(
    title: str, times: list[ExpertLoads], curves: list[tuple[str, list[float]]], alternative: str
) -> Figure:
    """Draw curves over the steps, from zero."""
    svg, legend = line_chart(
        [
            Line(name, [(float(time.step), y) for time, y in zip(times, values, strict=True)])
            for name, values in curves
        ],
        "step",
        approximate,
        from_zero=True,
    )
    rows = [
        (count(time.step), *(f"{values[i]:.3f}" for _, values in curves))
        for i, time in enumerate(times)
    ]
    names = tuple(name for name, _ in curves)
    return Figure(title, svg, alternative, DataTable(("step", *names), rows), legend)


def _layers_table(time: ExpertLoads) -> DataTable:
    """Show the busiest and the idlest expert of each layer, its dead ones and its router."""
    rows = []
    for of in time.layers:
        loads = of.loads
        most, least = max(loads), min(loads)
        rows.append(
            (
                f"layer {of.layer}",
                f"{loads.index(most)} ({most:.2f})",
                f"{loads.index(least)} ({least:.2f})",
                count(len(of.dead_experts)),
                f"{of.router_entropy_nats:.3f}",
            )
        )
    return DataTable(
        ("", "busiest expert (load)", "idlest expert (load)", "dead experts", "entropy, nats"), rows
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
