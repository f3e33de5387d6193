"""A value.json as `tokenmill value` leaves it."""

from tokenmill.contracts.value import (
    VALUE_SCHEMA,
    Curve,
    CurvePoint,
    Difference,
    HeldOutText,
    MixtureRun,
    MixtureSearch,
    Multiplier,
    Preparation,
    PriceOfGain,
    Proxy,
    ProxyRun,
    SourceValue,
    Value,
    VariantValue,
)

SETS = {"docs": (30, 60_000), "code [x]": (12, 20_000), "news": (8, 9_000)}
BETTER = Difference(mean=-0.043, low=-0.055, high=-0.031, seeds=3, documents=50)
RATIO = Multiplier(value=1.31, low=1.18, high=1.45, least=0.25, most=2.0)


def held_out():
    texts = {
        name: HeldOutText(documents=documents, bytes=size, origin="eval split")
        for name, (documents, size) in SETS.items()
    }
    documents, size = (sum(column) for column in zip(*SETS.values(), strict=True))
    return texts | {"all": HeldOutText(documents=documents, bytes=size, origin="all")}


def variant(
    name, fingerprint="", loss=2.1, difference=None, verdict=None, multiplier=None, note=""
):
    price = PriceOfGain(
        preparation_usd=0.002, more_preparation_usd=0.0005, training_usd=0.05,
        saved_usd=None if multiplier is None or multiplier.value is None else 0.0155,
        saved_usd_low=None, saved_usd_high=None, net_usd=None,
    )  # fmt: skip
    return VariantValue(
        name=name,
        changes=[] if name == "base" else ["curate.rules=none"],
        data_fingerprint=fingerprint,
        preparation=Preparation(
            documents=900, bytes=4_000_000, unique_tokens=1_234_567, cpu_seconds=30.0, usd=0.001
        ),
        epochs=0.4,
        steps=400,
        runs=[
            ProxyRun(
                seed=seed, loss_tokens=500_000, seconds=20.0, usd=0.0005,
                bits_per_byte={"all": loss + seed / 1000, **dict.fromkeys(SETS, loss)},
            )
            for seed in range(3)
        ],
        differences={} if difference is None else dict.fromkeys(["all", *SETS], difference),
        verdict=verdict,
        multiplier=multiplier,
        multiplier_note=note,
        price=None if verdict is None else price,
    )  # fmt: skip


def source(share, verdict="helps", worth=RATIO):
    return SourceValue(
        documents=100, bytes=1_000_000, unique_tokens=round(share * 1e6), share=share,
        preparation_usd=0.0003, training_usd=0.01,
        without=None if verdict is None else Difference(
            mean=0.02, low=0.01, high=0.03, seeds=5, documents=50
        ),
        verdict=verdict,
        worth=None if verdict is None else worth,
    )  # fmt: skip


def mixture():
    natural = {"docs": 0.7, "code [x]": 0.2, "other sources": 0.1}
    return MixtureSearch(
        natural=natural,
        proposed={"docs": 0.5, "code [x]": 0.3, "a": 0.12, "b": 0.08},
        runs=[
            MixtureRun(weights=natural, seed=1000, bits_per_byte=2.1 + i / 100) for i in range(9)
        ],
        regression="c + k exp(t . w)",
        cross_validated_error=0.004,
        mean_error=0.02,
        predicted=-0.03,
        check=BETTER,
        verdict="better",
        note="the proposal is better than natural proportions",
    )


def made_value(variants, **others):
    values = {
        "schema": VALUE_SCHEMA,
        "reference": variants[0].name,
        "equal": "tokens",
        "proxy": Proxy(
            params_total=260_000, layers=2, d_model=48, sequence_length=256,
            target_params_total=4_210_000,
        ),
        "held_out": held_out(),
        "seeds": [0, 1, 2],
        "looks": [3, 5, 8],
        "confidence": 0.95,
        "margin": 0.0105,
        "stopped": "clear",
        "curve_points": [
            CurvePoint(loss_tokens=125_000 * 2**i, bits_per_byte=2.5 - i / 5, standard_error=0.01)
            for i in range(4)
        ],
        "curve": Curve(e=1.2, b=55.0, beta=0.3),
        "variants": variants,
        "sources": {},
        "mixture": None,
        "seconds": 240.0,
        "usd": 0.006,
    }  # fmt: skip
    return Value(**(values | others))
