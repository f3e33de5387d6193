"""Writes components/curate/fineweb2.json from a clone of huggingface/fineweb-2.

    .venv/bin/python tools/fineweb2_thresholds.py CLONE >components/curate/fineweb2.json

Penedo et al. 2025 derive thresholds of their filters, and stop words, for each language from its
Wikipedia and its part of Common Crawl; the numbers are in the repository's configs/ (Apache License
2.0). Kept are those of the languages that tokenmill can tell, under the names of its settings.
"""

import json
import sys
from pathlib import Path

import yaml

# The file of each language that lid.176 tells: of a group of languages its largest member, of
# several scripts the one that is written most.
_PAIRS = """
    af:afr_Latn als:als_Latn am:amh_Ethi an:arg_Latn ar:arb_Arab arz:arz_Arab as:asm_Beng
    ast:ast_Latn av:ava_Cyrl az:azj_Latn azb:azb_Arab ba:bak_Cyrl bar:bar_Latn bcl:bcl_Latn
    be:bel_Cyrl bg:bul_Cyrl bn:ben_Beng bo:bod_Tibt bpy:bpy_Beng br:bre_Latn bs:bos_Latn
    bxr:bxr_Cyrl ca:cat_Latn cbk:cbk_Latn ce:che_Cyrl ceb:ceb_Latn ckb:ckb_Arab co:cos_Latn
    cs:ces_Latn cv:chv_Cyrl cy:cym_Latn da:dan_Latn de:deu_Latn diq:diq_Latn dsb:dsb_Latn
    dty:dty_Deva dv:div_Thaa el:ell_Grek eml:eml_Latn eo:epo_Latn es:spa_Latn et:ekk_Latn
    eu:eus_Latn fa:fas_Arab fi:fin_Latn fr:fra_Latn frr:frr_Latn fy:fry_Latn ga:gle_Latn gd:gla_Latn
    gl:glg_Latn gn:gug_Latn gom:gom_Deva gu:guj_Gujr gv:glv_Latn he:heb_Hebr hi:hin_Deva
    hif:hif_Latn hr:hrv_Latn hsb:hsb_Latn ht:hat_Latn hu:hun_Latn hy:hye_Armn ia:ina_Latn
    id:ind_Latn ie:ile_Latn ilo:ilo_Latn io:ido_Latn is:isl_Latn it:ita_Latn ja:jpn_Jpan
    jbo:jbo_Latn jv:jav_Latn ka:kat_Geor kk:kaz_Cyrl km:khm_Khmr kn:kan_Knda ko:kor_Hang
    krc:krc_Cyrl ku:kmr_Latn kv:kpv_Cyrl kw:cor_Latn ky:kir_Cyrl la:lat_Latn lb:ltz_Latn
    lez:lez_Cyrl li:lim_Latn lmo:lmo_Latn lo:lao_Laoo lrc:lrc_Arab lt:lit_Latn lv:lvs_Latn
    mai:mai_Deva mg:plt_Latn mhr:mhr_Cyrl min:min_Latn mk:mkd_Cyrl ml:mal_Mlym mn:khk_Cyrl
    mr:mar_Deva mrj:mrj_Cyrl ms:zsm_Latn mt:mlt_Latn mwl:mwl_Latn my:mya_Mymr myv:myv_Cyrl
    mzn:mzn_Arab nah:nah_Latn nap:nap_Latn nds:nds_Latn ne:npi_Deva new:new_Deva nl:nld_Latn
    nn:nno_Latn no:nob_Latn oc:oci_Latn or:ory_Orya os:oss_Cyrl pa:pan_Guru pam:pam_Latn
    pfl:pfl_Latn pl:pol_Latn pms:pms_Latn pnb:pnb_Arab ps:pbt_Arab pt:por_Latn qu:quy_Latn
    rm:roh_Latn ro:ron_Latn ru:rus_Cyrl rue:rue_Cyrl sa:san_Deva sah:sah_Cyrl sc:srd_Latn
    scn:scn_Latn sco:sco_Latn sd:snd_Arab sh:srp_Latn si:sin_Sinh sk:slk_Latn sl:slv_Latn
    so:som_Latn sq:als_Latn sr:srp_Cyrl su:sun_Latn sv:swe_Latn sw:swh_Latn ta:tam_Taml te:tel_Telu
    tg:tgk_Cyrl th:tha_Thai tk:tuk_Latn tl:fil_Latn tr:tur_Latn tt:tat_Cyrl tyv:tyv_Cyrl ug:uig_Arab
    uk:ukr_Cyrl ur:urd_Arab uz:uzn_Latn vec:vec_Latn vep:vep_Latn vi:vie_Latn vls:vls_Latn
    vo:vol_Latn wa:wln_Latn war:war_Latn wuu:wuu_Hani xal:xal_Cyrl xmf:xmf_Geor yi:ydd_Hebr
    yo:yor_Latn yue:yue_Hani zh:cmn_Hani
"""
CONFIGS = dict(pair.split(":") for pair in _PAIRS.split())
SETTINGS = {
    "dup_line_frac": "max_duplicate_line_fraction",
    "line_punct_thr": "min_punctuated_line_fraction",
    "max_avg_word_length": "max_mean_word_length",
    "max_non_alpha_words_ratio": "min_alphabetic_word_fraction",  # so it is used by datatrove
    "min_avg_word_length": "min_mean_word_length",
    "new_line_ratio": "max_line_feeds_per_word",
}
NGRAMS = {"top_n_grams": "max_top", "dup_n_grams": "max_duplicate"}


def read_language(path: Path) -> dict[str, object]:
    """Read the thresholds and stop words of a language from FineWeb-2's file."""
    found = yaml.safe_load(path.read_text())
    thresholds = {ours: found[theirs] for theirs, ours in SETTINGS.items()}
    for theirs, ours in NGRAMS.items():
        for n, share in found[theirs]:
            thresholds[f"{ours}_{n}gram_character_fraction"] = share
    return {"thresholds": thresholds, "stop_words": found["stopwords"]}


def main() -> None:
    """Print one line a language."""
    directory = Path(sys.argv[1]) / "configs"
    lines = [
        f"{json.dumps(code)}: "
        f"{json.dumps(read_language(directory / f'{name}.yml'), ensure_ascii=False)}"
        for code, name in CONFIGS.items()
    ]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
