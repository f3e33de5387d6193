"""The screen of `tokenmill value`: what each variant is worth, with its interval and its price."""

import json
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table

from pipeline.report.measured import difference_words, multiplier_words, source_values_table
from pipeline.report.tables import escape, largest
from tokenmill.contracts.value import MixtureSearch, Value, VariantValue
from tokenmill.number_format import active_params, count, decimal, duration, usd

_VARIANTS_SHOWN = 9
# The screen has 45 lines: many variants leave no room for what the page has, too.
_SETS_SHOWN, _FEW_VARIANTS = 4, 4
_VERDICTS = {
    "better": "[green]better[/]",
    "worse": "[red]worse[/]",
    "equal": "equal",
    "undecided": "[yellow]undecided[/]",
    None: "",
}


def value_screen(value: Value) -> RenderableType:
    """Return tables and sentences that fit 45 lines of 100 columns."""
    parts: list[RenderableType] = [f"\n[bold]{escape(title(value))}[/]"]
    if value.sources:
        parts.append(source_values_table(value.sources, wide=False))
    else:
        parts.append(variants_table(value))
    if value.mixture is not None:
        parts.append(weights_table(value.mixture))
    elif not value.sources and len(value.variants) <= _FEW_VARIANTS:
        parts += [sets_table(value), prices_table(value)]
    parts += [escape(sentence) for sentence in sentences(value)]
    return Group(*parts)


def title(value: Value) -> str:
    """Say what was compared, and how."""
    proxy, size = value.proxy, value.held_out["all"]
    equal = "tokens" if value.equal == "tokens" else "money for training"
    return (
        f"Compared with {value.reference} at equal {equal}, by models of "
        f"{count(proxy.params_total)} parameters"
        f"{active_params(proxy.params_total, proxy.params_active)}, on "
        f"{count(size.documents)} held-out documents"
    )


def variants_table(value: Value) -> Table:
    """Fill the table of variants: text, loss, difference, verdict, what a token is worth."""
    table = _table(
        "variant", "tokens", "seeds", "bits per byte", "difference", "", "a token's worth"
    )
    table.columns[5].justify = "left"
    shown, rest = largest(value.variants, _VARIANTS_SHOWN)
    for variant in shown:
        table.add_row(
            escape(variant.name),
            count(variant.preparation.unique_tokens),
            count(len(variant.runs)),
            f"{mean_loss(variant):.3f}",
            difference_words(variant.differences["all"]) if variant.differences else "",
            _VERDICTS[variant.verdict],
            escape(multiplier_words(variant.multiplier)) if variant.verdict else "x1",
        )
    if rest:
        table.add_row(f"{count(len(rest))} others, in value.json")
    return table


def sets_table(value: Value) -> Table:
    """Fill the table of differences on each set of held-out documents."""
    others = value.variants[1:]
    shown, rest = largest(others, 3)
    table = _table("held-out documents of", "", *(escape(variant.name) for variant in shown))
    names = [name for name in value.held_out if name != "all"]
    names.sort(key=lambda name: (-value.held_out[name].bytes, name))
    own, more = largest(names, _SETS_SHOWN)
    for name in own:
        table.add_row(
            escape(name),
            count(value.held_out[name].documents),
            *(difference_words(variant.differences.get(name)) for variant in shown),
        )
    left_out = [f"{count(len(more))} more sets"] * bool(more)
    left_out += [f"{count(len(rest))} more variants"] * bool(rest)
    if left_out:
        table.caption = f"{' and '.join(left_out)} in value.json and on the page."
        table.caption_justify = "left"
    return table


def prices_table(value: Value) -> Table:
    """Fill the table of what each gain costs, by a million tokens."""
    table = _table("USD per million tokens", "preparing", "more than", "training saved", "in all")
    for variant in value.variants[1 : 1 + _VARIANTS_SHOWN]:
        if (price := variant.price) is None:
            continue
        saved = "no number" if price.saved_usd is None else usd(price.saved_usd)
        table.add_row(
            escape(variant.name),
            usd(price.preparation_usd),
            usd(price.more_preparation_usd),
            saved,
            "" if price.net_usd is None else usd(price.net_usd),
        )
    table.columns[2].header = f"more than {escape(value.reference)}"
    return table


def weights_table(mixture: MixtureSearch) -> Table:
    """Fill the table of natural and proposed shares of the sources."""
    table = _table("source", "natural", "proposed", "of its share")
    shares = {name: 0.0 for name in mixture.natural}
    for source, weight in mixture.proposed.items():
        shares[source if source in shares else list(shares)[-1]] += weight
    total = sum(shares.values())
    for name, natural in mixture.natural.items():
        proposed = shares[name] / total
        table.add_row(
            escape(name), f"{natural:.1%}", f"{proposed:.1%}", f"x{proposed / natural:.2f}"
        )
    return table


def sentences(value: Value) -> Iterator[str]:
    """Say how to read the numbers, and what they do not say."""
    why = {
        "clear": "all verdicts were clear",
        "budget": "the budget was spent",
        "seeds": "the last planned look was had",
    }[value.stopped]
    looks = ", ".join(map(str, value.looks))
    reference = value.variants[0]
    compared = reference.runs[0].loss_tokens
    yield (
        f"{count(len(value.seeds))} seeds, each of {count(compared)} loss tokens "
        f"({decimal(reference.epochs)} epochs); planned looks after {looks}; {why}. "
        f"{value.confidence:.0%} intervals hold over all looks together. Less than "
        f"{value.margin:.3f} bits per byte counts as equal."
    )
    by_note: dict[str, list[str]] = {}
    for variant in value.variants:
        if variant.verdict is not None and variant.multiplier_note:
            by_note.setdefault(variant.multiplier_note, []).append(variant.name)
    for note, names in by_note.items():
        whose = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield f"What a token is worth ({whose}): {note}."
    if (undecided := sum(v.verdict == "undecided" for v in value.variants)) and (
        value.stopped != "clear"
    ):
        yield (
            f"{count(undecided)} undecided: a longer budget, more seeds or more held-out text "
            "narrows the interval."
        )
    if (mixture := value.mixture) is not None:
        yield from mixture_sentences(mixture)
    proxy = value.proxy
    yield (
        f"All small trainings: {duration(value.seconds)}, {usd(value.usd)}. A verdict is of models "
        f"of {count(proxy.params_total)} parameters"
        f"{active_params(proxy.params_total, proxy.params_active)}; the configuration's has "
        f"{count(proxy.target_params_total)}"
        f"{active_params(proxy.target_params_total, proxy.target_params_active)}."
    )


def mixture_sentences(mixture: MixtureSearch) -> Iterator[str]:
    """Say what the search found, and what the paired trainings make of it."""
    yield (
        f"{count(len(mixture.runs))} random mixtures: the regression misses one that it has not "
        f"seen by {mixture.cross_validated_error:.3f} bits per byte, their mean would by "
        f"{mixture.mean_error:.3f}."
    )
    checked = ""
    if mixture.check is not None:
        checked = f" Predicted {mixture.predicted:+.3f}, found {difference_words(mixture.check)}."
    yield f"{mixture.note[:1].upper()}{mixture.note[1:]}.{checked}"
    if mixture.verdict == "better":
        weights = ", ".join(
            f"{json.dumps(source, ensure_ascii=False)} = {weight:g}"
            for source, weight in mixture.proposed.items()
        )
        yield f"pack.source_weights = {{ {weights} }}"


def mean_loss(variant: VariantValue) -> float:
    """Return a variant's bits per byte on the deciding texts, the mean of its seeds."""
    return sum(run.bits_per_byte["all"] for run in variant.runs) / len(variant.runs)


def _table(*columns: str) -> Table:
    table = Table(box=None)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    return table
