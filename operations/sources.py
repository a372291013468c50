"""The open data sources: where each file lies, its sha256, and the licence it comes under. Data about data, no code.

`fetch` downloads what stands here; `datacheck` compares folders with it. Addresses are pinned to a commit or a version;
whatever comes from them, the sha256 decides.
"""

from __future__ import annotations

from dataclasses import dataclass

_TJH = "https://raw.githubusercontent.com/HAIRLAB/Pre_Surv_COVID_19/c5befb16fd9a7e5fc9d92a9afba83c3c3148600f"
_MIMIC = "https://physionet.org/files/mimic-iv-demo/2.2"


@dataclass(frozen=True)
class PublicFile:
    """One file of a source.

    Attributes:
        path: below the source's folder, with "/".
        address: below the source's address, with "/".
        sha256: of its content.
        size: in bytes; None where only the sha256 is published.
    """

    path: str
    address: str
    sha256: str
    size: int | None = None


@dataclass(frozen=True)
class PublicSource:
    """A dataset anyone may download.

    Attributes:
        name: as the command line calls it.
        folder: where its files go, below the data folder.
        address: of the source, without a trailing "/".
        licence: its name, and where its text lies.
        files: what the project reads, and the licence.
    """

    name: str
    folder: str
    address: str
    licence: str
    files: tuple[PublicFile, ...]


def _same(path: str, sha256: str, size: int | None = None) -> PublicFile:
    return PublicFile(path, path, sha256, size)


TJH_TRAIN = "time_series_375_prerpocess_en.xlsx"
TJH_TEST = "time_series_test_110_preprocess_en.xlsx"

TJH = PublicSource(
    "tjh", "tjh", _TJH, "MIT (tjh/LICENSE); Yan et al. 2020, doi:10.1038/s42256-020-0180-7", (
        PublicFile(TJH_TRAIN, f"data/{TJH_TRAIN}",
                   "a9b4f468ca2d9d99fa5d943512d932b722797aba6ee1025cc1811c5b749c6cdf", 634526),
        PublicFile(TJH_TEST, f"data/{TJH_TEST}",
                   "8fe296c0e778cc4485f4ea31d625f467398d2a0bb1f7eb41e001291c037192ef", 43171),
        PublicFile("LICENSE", "LICENSE", "ced7d3e61a5c3fa30c7718ec9838493e86cfabe2109c90d821d0b7892c1d46f7", 1100)))

# The sums are those of PhysioNet's own SHA256SUMS.txt of version 2.2.
MIMIC_DEMO = PublicSource(
    "mimic-demo", "mimic-iv-demo-2.2", _MIMIC,
    "ODbL 1.0 (mimic-iv-demo-2.2/LICENSE.txt); Johnson et al. 2023, MIMIC-IV Clinical Database Demo 2.2, PhysioNet", (
        _same("LICENSE.txt", "bcdfcd4f31c790e30fb645dc36414907172405897adff329ad379eed85d12017", 25815),
        _same("README.txt", "4eaae533164245e59e5eb70b52695c061900cdc067cebe508105706b4d10e393", 978),
        _same("hosp/patients.csv.gz", "59dcc6cd8450ddf03ad32cc7d76e41caa4c9633541715987f590c74835cf6fae", 1083),
        _same("hosp/admissions.csv.gz", "910b9f160ffdf1e08ea673585393f347c773ccc87d66875c627584a903ae8493", 11072),
        _same("hosp/transfers.csv.gz", "41151539886d12d57159b65ffe4d7df5a7ef8ceb7cd113ea9a56fbfbfd78a87c", 23480),
        _same("hosp/services.csv.gz", "28306d68e952fe2cc9ef6e60b0afda93c27d7a06bee8ef39e71ccc4de5ded793", 5072),
        _same("hosp/labevents.csv.gz", "d51a4cf1ea63245abe7d544b0d50a928e9ee2ec5eb9a5ce85500aed0bd6c6dfc", 1963979),
        _same("hosp/d_labitems.csv.gz", "72ea5f020469fd24543bd98ab3bd0a4f645a5a4b7802d9d52af20d736f9d76db", 13520),
        _same("hosp/diagnoses_icd.csv.gz", "958565670c0b3903c0c12825366dc2bae8561d2d55f16feac0c949dd630ed3e4", 24198),
        _same("hosp/d_icd_diagnoses.csv.gz",
              "0f715a3c4c5e44400305d4deb86ff648e499a3bfcb946f353e8b030022d3ec06", 1813533),
        _same("hosp/procedures_icd.csv.gz", "68f21dcba9ae0c4b7faa3ef38aa950a8ebeb6d167bc74416314dccdcf28674e0", 6602),
        _same("hosp/prescriptions.csv.gz", "33c392ba5b9299b08eca0a61911ba106f0aebdba26ed31b856bb9ffd49fe3654", 606447),
        _same("hosp/omr.csv.gz", "6d7c69dbb2c79b9d1de7d1e68f3424ad248821d7c074dc6537d7290774af39b9", 17339),
        _same("icu/icustays.csv.gz", "e05e81aa52a3022e522b6832a898101a69b84e64c17bb344d819e458d5bc21b3", 5667),
        _same("icu/d_items.csv.gz", "1690467a822345226a041c1149237c418aa60098c6b699fb4cef64d73588a01f", 57073),
        _same("icu/chartevents.csv.gz", "90f096ad3db847ed1aaec073f8d86053c51fea7b616d3b046410e030f083d560"),
        _same("icu/inputevents.csv.gz", "69597dca47e554e16645ca505167e9f39b07c1724e915ba54ccfb40f5fa0078a", 788253),
        _same("icu/outputevents.csv.gz", "3bcf68adaa11070d6c24e13d4bfaaf718606cd33b0df7f28e0de240c357a869e", 96413),
        _same("icu/procedureevents.csv.gz", "37454f286dc1eee6cef666b4fdf91452eb8bea6bfc3cf98d4ad179ebb4a741fa", 44817)))

SOURCES = {source.name: source for source in (TJH, MIMIC_DEMO)}
