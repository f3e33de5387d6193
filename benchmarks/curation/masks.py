"""Recall and precision of curate.mask on planted accounts, numbers, keys and addresses.

    PYTHONPATH=. .venv/bin/python benchmarks/curation/masks.py NAME=FILE..

Each FILE is a text in which nothing personal stands. Between its words 200 of each kind are
planted, drawn by a fixed seed: phone numbers of all countries that libphonenumber knows, as they
are written internationally; IBANs and card numbers with right check digits; keys; e-mail addresses.
Prints for each text and kind how many were masked, and what was masked without one.
"""

import random
import string
import sys

import phonenumbers

from components.curate.mask import KINDS, mask

COUNT = 200
LETTERS = string.ascii_letters + string.digits


def _phone(rng: random.Random) -> str:
    numbers = (phonenumbers.example_number(r) for r in sorted(phonenumbers.SUPPORTED_REGIONS))
    shown = phonenumbers.PhoneNumberFormat.INTERNATIONAL
    return rng.choice([phonenumbers.format_number(n, shown) for n in numbers if n])


def _iban(rng: random.Random) -> str:
    country, length = rng.choice([("DE", 18), ("FR", 23), ("GB", 18), ("SA", 20), ("CH", 17)])
    account = "".join(rng.choices(string.digits, k=length))
    digits = "".join(str(int(c, 36)) for c in f"{account}{country}00")
    number = f"{country}{98 - int(digits) % 97:02d}{account}"
    if rng.random() < 0.5:
        return number
    return " ".join(number[i : i + 4] for i in range(0, len(number), 4))


def _card(rng: random.Random) -> str:
    digits = [4, *rng.choices(range(10), k=14)]
    total = sum(d if i % 2 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits))
    number = "".join(map(str, digits)) + str(-total % 10)
    glue = rng.choice(["", " ", "-"])
    return glue.join(number[i : i + 4] for i in range(0, 16, 4))


def _key(rng: random.Random) -> str:
    kinds = (("ghp_", 36), ("AKIA", 16), ("sk-", 48), ("hf_", 34), ("glpat-", 20))
    prefix, length = rng.choice(kinds)
    letters = string.ascii_uppercase + string.digits if prefix == "AKIA" else LETTERS
    return prefix + "".join(rng.choices(letters, k=length))


def _email(rng: random.Random) -> str:
    return f"{''.join(rng.choices(string.ascii_lowercase, k=8))}@example.org"


PLANTS = {"phone": _phone, "iban": _iban, "card": _card, "key": _key, "email": _email}


def main() -> None:
    """Print a line for each text and kind."""
    for argument in sys.argv[1:]:
        name, _, path = argument.partition("=")
        with open(path, encoding="utf-8") as file:
            words = file.read().split()
        by_itself = mask(" ".join(words), KINDS)[1]
        for kind, plant in PLANTS.items():
            rng = random.Random(7)
            planted = list(words)
            for place in sorted(rng.sample(range(len(words)), COUNT), reverse=True):
                planted.insert(place, plant(rng))
            found = mask(" ".join(planted), KINDS)[1].get(kind, 0) - by_itself.get(kind, 0)
            print(
                f"{name:8s} {kind:6s} recall {found / COUNT:.3f}; "
                f"{by_itself.get(kind, 0)} in the text itself ({len(words):,} words)"
            )


if __name__ == "__main__":
    main()
