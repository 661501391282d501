"""An evaluation as one page that needs nothing from elsewhere: readable on a phone, in the dark and on paper. Pure."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dicomguard.retrain.evaluate import drawing, markup, short_runs_page
from dicomguard.retrain.evaluate.curves import FROC_RATES
from dicomguard.retrain.evaluate.drawing import UNIT_TICKS, Axis, Line
from dicomguard.retrain.evaluate.gallery import TITLES
from dicomguard.retrain.evaluate.markup import Row
from dicomguard.retrain.evaluate.peers import PEERS
from dicomguard.retrain.evaluate.report import (
    ALARM_TITLES,
    FAMILY_COLUMNS,
    GOAL_TITLES,
    PROCESSING_TITLES,
    alarm_cells,
    cell,
    goal_cells,
    heading,
    people_cells,
    percent,
    processing_cells,
    with_interval,
)

_STYLE = """
:root{--ink:#1c2733;--quiet:#55636f;--line:#d7dee6;--shade:#f3f6f9;--page:#fff;--good:#1a6b3c;--bad:#a3341f;
--c0:#0a6aa1;--c1:#c2571a;--c2:#3b7d3c;--c3:#8d4a9e;--c4:#947000;--c5:#555f69}
@media (prefers-color-scheme:dark){:root{--ink:#dfe6ec;--quiet:#9fadb9;--line:#33404d;--shade:#1a222a;--page:#11161b;
--good:#74cf97;--bad:#f0937c;--c0:#6cb8ea;--c1:#f0a06a;--c2:#85ca84;--c3:#d29be0;--c4:#dcbd57;--c5:#a9b5bf}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;max-width:74rem;
padding:1.5rem 1rem 4rem}
h1{font-size:1.5rem;margin:0 0 .3rem}h2{font-size:1.15rem;margin:2.6rem 0 .5rem}h3{font-size:1rem;margin:1.4rem 0 .3rem}
p{max-width:46rem;margin:.5rem 0}.lead{font-size:1.2rem;line-height:1.4}.quiet,figcaption{color:var(--quiet)}
.wide{overflow-x:auto;margin:.6rem 0}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:.22rem .65rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;vertical-align:bottom}thead th{border-bottom:2px solid var(--quiet);white-space:normal}
.t{text-align:left}.long{text-align:left}td.long{white-space:normal;min-width:11rem}
tr.second td{background:var(--shade)}
.good{color:var(--good)}.bad{color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:1rem 1.5rem}
.charts figure{max-width:30rem}
.shots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(24rem,100%),1fr));gap:1rem}
figure{margin:0}figure>svg,.shots img{width:100%;height:auto;display:block}
figcaption{font-size:.85rem;margin-top:.25rem}
svg text{font-size:10.5px;fill:var(--quiet)}.grid{stroke:var(--line);fill:none}
.chance{stroke:var(--quiet);stroke-dasharray:2 3;fill:none}
.keys{list-style:none;margin:.25rem 0 0;padding:0;display:flex;flex-wrap:wrap;gap:.1rem .9rem}
.key{width:18px;height:6px;vertical-align:middle}
.truth{color:#2f8f3a}.model{color:#d8641f}@media (prefers-color-scheme:dark){.truth{color:#5ec962}.model{color:#ff8040}}
@media print{body{max-width:none;font-size:10pt;padding:0}h2{break-after:avoid}figure,tr{break-inside:avoid}
.wide{overflow:visible}table{font-size:7.5pt}th,td{padding:.1rem .35rem}}
"""


def html(document: Mapping[str, Any], pictures: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The page; `pictures` by kind as `gallery.pictures` gives them."""
    sections = (
        _alarms(document),
        _goals(document),
        _families(document),
        _curves(document),
        _answers(document),
        _calibration(document),
        _sizes(document),
        _processing(document),
        _strata(document),
        _controls(document),
        short_runs_page.section(document["trials"]) if "trials" in document else "",
        _peers(document),
        _gallery(pictures),
        _reading(),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>Evaluation</title><style>{_STYLE}</style></head><body><main>'
        f'<h1>Evaluation</h1><p class="quiet">{escape(heading(document))}. Research use. Forged figures come from '
        "patients that training never saw.</p>" + "".join(sections) + "</main></body></html>\n"
    )


def _alarms(document: Mapping[str, Any]) -> str:
    everyone = document["alarms_by_kind"][0]
    people, bound = people_cells(everyone)
    lead = (
        f"{people} people kept from training have an authentic study that is flagged as forged (95 % upper bound "
        f"{bound}): {everyone['studies_flagged']} of {everyone['studies']} studies. {everyone['slices_flagged']} of "
        f"{everyone['slices']} slices are flagged, of {everyone['slice_people_flagged']} people."
    )
    titles = [*ALARM_TITLES, "not analysable"]

    def cells(name: str, row: Mapping[str, Any]) -> Row:
        return "", [*alarm_cells(name, row), str(row.get("not_analysable", "–"))]

    by_source = [cells(row["source"], row) for row in document["false_alarms"]]
    by_kind = [cells(row["kind"], row) for row in document["alarms_by_kind"]]
    by_kind += [
        cells(f"benign: {row['operation']}", row) for row in document["processing"] if row["operation"] != "untouched"
    ]
    identity = next((row for row in document["controls"] if row["control"] == "identity forgery"), None)
    if identity is not None and identity["studies"]:
        studies = f"{identity['studies_flagged']} of {identity['studies']}"
        by_kind.append(("", ["identity forgery", *people_cells(identity), studies, "–", "–", "–"]))
    return (
        f'<h2>False alarms on authentic data</h2><p class="lead">{escape(lead)}</p>'
        "<p>The bound counts people (Clopper and Pearson). Studies and slices of one person are no separate witnesses, "
        "so they are counted and have no bound.</p>"
        + markup.table(["source", *titles], by_source)
        + "<h3>By what the scans show</h3>"
        + markup.table(["authentic scans", *titles], by_kind)
    )


def _goals(document: Mapping[str, Any]) -> str:
    rows = []
    for row in document["goals"]:
        cells = goal_cells(row)
        if row["how"]:
            cells[1] += f" ({row['how']})"
        rows.append(("", cells))
    table = markup.table(GOAL_TITLES, rows, text=2, long=(1,))
    table = table.replace("<td>below the least</td>", '<td class="bad">below the least</td>')
    for band in ("target", "moonshot"):
        table = table.replace(f"<td>{band}</td>", f'<td class="good">{band}</td>')
    return f"<h2>Goals</h2>{table}"


def _families(document: Mapping[str, Any]) -> str:
    table = markup.table(
        [title for _, title in FAMILY_COLUMNS],
        [
            (
                "" if row["hand"] == "families" else "second",
                [cell(with_interval(row)[key]) for key, _ in FAMILY_COLUMNS],
            )
            for row in document["families"]
        ],
        text=2,
    )
    names = [name for name in next(iter(document["means"].values())) if not name.endswith(("_low", "_high"))]

    def mean(values: Mapping[str, Any], name: str) -> str:
        if values[name] is None:
            return "–"
        return f"{values[name]:.2f} [{values[f'{name}_low']:.2f}, {values[f'{name}_high']:.2f}]"

    means = markup.table(
        ["mean over sources", *(name.replace("_", " ") for name in names)],
        [
            ("", [group.replace("_", " "), *(mean(values, name) for name in names)])
            for group, values in document["means"].items()
        ],
    )
    return (
        f"<h2>Forgeries, worst first</h2><p>A shaded row is a family by another hand, which training never saw.</p>"
        f"{table}<h3>Means, with 95 % intervals over patients</h3>{means}"
    )


def _curves(document: Mapping[str, Any]) -> str:
    rate, sensitivity = Axis(title="false alarm rate", ticks=UNIT_TICKS), Axis(title="sensitivity", ticks=UNIT_TICKS)
    charts = [
        drawing.chart(
            f"ROC by {level}, own families" if hand == "families" else f"ROC by {level}, {hand.replace('_', ' ')}",
            rate,
            sensitivity,
            [
                Line(title=f"{row['source']} {row['auc']:.2f}", points=row["points"])
                for row in document["roc"]
                if row["level"] == level and row["hand"] == hand
            ],
            diagonal=True,
        )
        for level in ("slice", "study")
        for hand in ("families", "second_hand", "sealed")
        if any(row["level"] == level and row["hand"] == hand for row in document["roc"])
    ]
    for search, unit in (("forgery", "study"), ("lesion", "slice")):
        rows = [row for row in document["froc"] if row["search"] == search]
        if rows:
            charts.append(
                drawing.chart(
                    f"FROC of {'forgeries' if search == 'forgery' else 'real lesions'}, sensitivity at ½ in the legend",
                    Axis(title=f"false marks a {unit}", ticks=FROC_RATES, logarithmic=True),
                    sensitivity,
                    [
                        Line(
                            title=f"{row['title']} {row['at_half']['value']:.2f}",
                            points=list(zip(FROC_RATES, row["at"], strict=True)),
                            dots=True,
                        )
                        for row in rows
                    ],
                )
            )
    froc = markup.table(
        ["FROC", "units", "to find", *(f"at {rate:g}" for rate in FROC_RATES), "½: 95 % interval", "mean"],
        [
            (
                "",
                [
                    row["title"],
                    str(row["units"]),
                    str(row["wanted"]),
                    *(f"{value:.2f}" for value in row["at"]),
                    f"{row['at_half']['low']:.2f}–{row['at_half']['high']:.2f}",
                    f"{row['area']:.2f}",
                ],
            )
            for row in document["froc"]
        ],
    )
    return f'<h2>ROC and FROC</h2><div class="charts">{"".join(charts)}</div>{froc}'


def _answers(document: Mapping[str, Any]) -> str:
    parts = []
    for title, name in (("by study", "four_way"), ("by slice", "four_way_slices")):
        four = document[name]
        rows: list[Row] = [
            ("", [label, *map(str, row)]) for label, row in zip(four["labels"], four["counts"], strict=True)
        ]
        parts.append(
            f"<h3>{title}, macro-F1 {four['macro_f1']:.2f}, with every truth weighing alike {four['even_f1']:.2f}</h3>"
            + markup.table(["truth ↓ answer →", *four["labels"]], rows)
        )
    return (
        f"<h2>Four answers</h2>{''.join(parts)}<p class='quiet'>A forgery that makes a lesion larger or smaller has "
        "no right answer among the four and is not in these tables.</p>"
    )


def _calibration(document: Mapping[str, Any]) -> str:
    measured = {name: one for name, one in document["calibration"].items() if one is not None}
    if not measured:
        return ""
    half = [
        Line(title=name.split(" ")[0], points=[(said, true) for said, true, _ in one["bins"]], dots=True)
        for name, one in measured.items()
        if name.endswith("50%")
    ]
    figure = drawing.chart(
        "Reliability at 50 % prevalence, bins of equal mass",
        Axis(title="said", ticks=UNIT_TICKS),
        Axis(title="true", ticks=UNIT_TICKS),
        half,
        diagonal=True,
    )
    rows: list[Row] = [
        ("", [name.replace("%", " %"), str(one["count"]), f"{one['ece']:.3f}", f"{one['brier']:.3f}"])
        for name, one in measured.items()
    ]
    table = markup.table(["probability of forgery", "count", "ECE", "Brier"], rows)
    return f'<h2>Are the probabilities true</h2><div class="charts">{figure}<div>{table}</div></div>'


def _sizes(document: Mapping[str, Any]) -> str:
    rows: list[Row] = []
    for row in document["detection_limit"]:
        area = "outside what was seen" if row["area_px"] is None else f"{row['area_px']} px"
        rows.append(("", [row["source"], str(row["slices"]), area, cell(row["slope"])]))
    doses = document["doses"]
    figures = ""
    if doses:
        strength = Axis(title="strength of the forgery", ticks=(0.0, 0.25, 0.5, 0.75, 1.0))
        names = (("mean_score", "mean score"), ("slice_sensitivity", "slices flagged"), ("paired_auc", "paired AUC"))
        lines = [
            Line(title=title, points=[(r["strength"], r[key]) for r in doses if r[key] is not None], dots=True)
            for key, title in names
        ]
        figures = drawing.chart("Strength", strength, Axis(title="", ticks=UNIT_TICKS), lines)
    areas = [row for row in document["strata"] if row["cut"] == "area" and row["slice_auc"] is not None]
    if areas:
        ticks = (64.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)
        lines = [
            Line(
                title=title,
                points=[(float(r["stratum"].split(" ")[0]), r[key]) for r in areas if r[key] is not None],
                dots=True,
            )
            for key, title in (("slice_auc", "slice AUC"), ("slice_sensitivity", "found"), ("pixel_f1", "F1"))
        ]
        across = Axis(title="forged pixels of the slice, from", ticks=ticks, logarithmic=True)
        figures = drawing.chart("Area", across, Axis(title="", ticks=UNIT_TICKS), lines) + figures
    return (
        "<h2>How small, how faint</h2><p>The area from which on half of the forged slices are found at the alert.</p>"
        + markup.table(["source", "slices", "area", "logits an octave"], rows)
        + f'<div class="charts">{figures}</div>'
    )


def _processing(document: Mapping[str, Any]) -> str:
    if not document["processing"]:
        return ""
    rows: list[Row] = [("", processing_cells(row)) for row in document["processing"]]
    return (
        "<h2>The same processing on both twins, worst first</h2><p>* kept back from training. The drop is against the "
        f"same studies untouched.</p>{markup.table(PROCESSING_TITLES, rows)}"
    )


def _strata(document: Mapping[str, Any]) -> str:
    parts = []
    for cut in ("source", "hospital", "sequence", "kind", "area"):
        rows: list[Row] = []
        for row in (one for one in document["strata"] if one["cut"] == cut):
            low, high = row["slice_auc_low"], row["slice_auc_high"]
            quiet = ["–", "–", "–"]
            if row["authentic"] is not None:
                own = row["authentic"]
                quiet = [
                    f"{own['slices_flagged']} of {own['slices']}",
                    f"{own['slice_people_flagged']} of {own['slice_people']}",
                    percent(own["slice_people_upper"], own["slice_people"]),
                ]
            rows.append(
                (
                    "",
                    [
                        row["stratum"],
                        str(row["slices"]),
                        str(row["patients"]),
                        cell(row["slice_auc"]),
                        "–" if low is None else f"{low:.2f}–{high:.2f}",
                        cell(row["slice_sensitivity"]),
                        cell(row["pixel_f1"]),
                        *quiet,
                    ],
                )
            )
        titles = ["forged slices", "patients", "slice AUC", "95 % interval", "found", "F1", "authentic flagged"]
        titles += ["of people", "95 % bound"]
        if rows:
            parts.append(markup.table([cut, *titles], rows))
    return f"<h2>By domain and by stratum</h2>{''.join(parts)}"


def _controls(document: Mapping[str, Any]) -> str:
    said = {True: "holds", False: "does not hold", None: "not measured"}
    rows: list[Row] = [
        ("", [row["control"], row["must"], row["reached"], said[row["holds"]]]) for row in document["controls"]
    ]
    table = markup.table(["control", "must give", "gave", ""], rows, text=4, long=(0, 1, 2))
    table = table.replace('<td class="t">does not hold</td>', '<td class="t bad">does not hold</td>')
    table = table.replace('<td class="t">holds</td>', '<td class="t good">holds</td>')
    return f"<h2>Controls</h2>{table}"


def _peers(document: Mapping[str, Any]) -> str:
    judges = ("model", *PEERS)
    titles = ["family", "slices", *(f"{judge}, slice" for judge in judges), *(f"{judge}, pixel" for judge in judges)]
    rows: list[Row] = [
        (
            "" if row["hand"] == "families" else "second",
            [row["family"], cell(row["slices"]), *(cell(row[f"{judge} slice"]) for judge in judges)]
            + [cell(row[f"{judge} pixel"]) for judge in judges],
        )
        for row in document["peers"]
    ]
    return (
        "<h2>Beside detectors that learn nothing</h2><p>AUC on the same slices with the same pooling, within a source, "
        "mean over sources. Pixel AUC inside the head of forged slices; the model's is of its reported masks.</p>"
        + markup.table(titles, rows)
    )


def _gallery(pictures: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    parts = []
    for kind, title in TITLES.items():
        shots = "".join(map(_shot, pictures.get(kind, ())))
        if shots:
            parts.append(f'<h3>{title}</h3><div class="shots">{shots}</div>')
    if not parts:
        return ""
    return (
        '<h2>Gallery</h2><p>Each slice beside itself with <span class="truth">the truth</span> and '
        f'<span class="model">what the model marks</span> outlined.</p>{"".join(parts)}'
    )


def _shot(shot: Mapping[str, Any]) -> str:
    f1 = "" if shot["f1"] is None else f", F1 {shot['f1']:.2f} over {shot['truth_px']} px"
    text = f"{shot['family']}, {shot['patient']}: score {shot['score']:.2f}{f1}"
    return f'<figure><img src="{shot["png"]}" alt="{escape(text)}"><figcaption>{escape(text)}</figcaption></figure>'


def _reading() -> str:
    return (
        "<h2>How to read it</h2><p>“Paired” compares with the same slices before the forgery; “slice AUC” with all "
        "authentic slices of the source. F1 and IoU are means over all forged slices, a miss counts 0. “Position AUC” "
        "is what a map of the places where others were forged reaches: the floor of pixel AUC. Intervals draw "
        "patients, bounds count them (Clopper and Pearson). The threshold is the model's own; nothing was chosen "
        "on these patients. A mark of forgery is consistent with editing and proves nothing.</p>"
    )
