"""Language tags as inputs have them (de-DE, deu, ger) to the codes that tokenmill has."""

import functools
import re

from tokenmill.text.language import LANGUAGES

# ISO 639-2 (both forms) and 639-3 to the code in LANGUAGES; individual languages of a macrolanguage
# that stand for it, and codes that were withdrawn, too.
_PAIRS = """
    afr:af amh:am arg:an ara:ar arb:ar asm:as ast:ast ava:av aze:az azj:az bak:ba bel:be bul:bg
    bih:bh bho:bh ben:bn bod:bo tib:bo bre:br bos:bs cat:ca che:ce cos:co ces:cs cze:cs chv:cv
    cym:cy wel:cy dan:da deu:de ger:de div:dv ell:el gre:el eng:en epo:eo spa:es est:et ekk:et
    eus:eu baq:eu fas:fa per:fa pes:fa prs:fa fin:fi fra:fr fre:fr fry:fy gle:ga gla:gd glg:gl
    grn:gn gug:gn gsw:als guj:gu glv:gv heb:he iw:he hin:hi hrv:hr hat:ht hun:hu hye:hy arm:hy
    ina:ia ind:id in:id ile:ie ido:io isl:is ice:is ita:it jpn:ja jav:jv jw:jv kat:ka geo:ka kaz:kk
    khm:km kan:kn kor:ko kom:kv kpv:kv kur:ku kmr:ku cor:kw kir:ky lat:la ltz:lb lim:li lao:lo
    lit:lt lav:lv lvs:lv mlg:mg plt:mg mkd:mk mac:mk mal:ml mon:mn khk:mn mar:mr msa:ms may:ms
    zsm:ms mlt:mt mya:my bur:my nep:ne npi:ne nld:nl dut:nl nno:nn nor:no nob:no nb:no oci:oc
    ori:or ory:or oss:os pan:pa pol:pl pus:ps pbt:ps por:pt que:qu roh:rm ron:ro rum:ro mol:ro mo:ro
    rus:ru san:sa srd:sc snd:sd hbs:sh sin:si slk:sk slo:sk slv:sl som:so sqi:sq alb:sq srp:sr
    sun:su swe:sv swa:sw swh:sw tam:ta tel:te tgk:tg tha:th tuk:tk tgl:tl fil:tl tur:tr tat:tt
    uig:ug ukr:uk urd:ur uzb:uz uzn:uz vie:vi vol:vo wln:wa ydd:yi yid:yi ji:yi yor:yo zho:zh chi:zh
    cmn:zh
"""
_TO_CODE = dict(pair.split(":") for pair in _PAIRS.split())
# Languages that are written as a kind of another one; the empty ones cannot be told.
_EXTENDED = {"zh-yue": "yue", "zh-wuu": "wuu", "zh-min": "", "zh-nan": "", "ar-arz": "arz"}
_TAG = re.compile(r"\s*([A-Za-z]{2,3})(?:[-_]([A-Za-z0-9]{1,8}))?(?:[-_][A-Za-z0-9]{1,8})*\s*")


@functools.lru_cache(maxsize=1 << 10)
def language_code(tag: str) -> str:
    """Return the code of `tokenmill.text.language.LANGUAGES` that a language tag means.

    Args:
        tag: BCP 47 (de-DE), ISO 639-1, -2 or -3 (de, ger, deu), with a script (deu_Latn) or not.

    Returns:
        The code; empty for what is no tag, several, or a language that is not among them.
    """
    found = _TAG.fullmatch(tag[:100])
    if not found:
        return ""
    language, second = found[1].lower(), (found[2] or "").lower()
    code = language if language in LANGUAGES else _TO_CODE.get(language, "")
    return _EXTENDED.get(f"{code}-{second}", code)
