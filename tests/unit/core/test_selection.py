"""What is analysed, by which rule, and whether the model was validated for it: a table."""

from dataclasses import replace
from typing import Any

import pytest

from dicomguard.core.instance import FrameGeometry, Header, Orientation
from dicomguard.core.selection import NO_IMAGE, Choice, Rule, component, decide, sequence_group
from dicomguard.core.verdict import ModelScope

SCOPE = ModelScope(modalities=("MR",), body_parts=("HEAD", "BRAIN"), sequences=("FLAIR", "t1c"))
MR, CT, SC = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
FLAIR = Header(
    sop_instance_uid="1.1", sop_class_uid=MR, study_instance_uid="1", series_instance_uid="1.2",
    transfer_syntax_uid="1.2.840.10008.1.2.1", modality="MR", image_type=("ORIGINAL", "PRIMARY", "M"),
    series_description="AX FLAIR", body_part="HEAD", rows=256, columns=256, photometric="MONOCHROME2",
    bits_stored=12, has_pixels=True, frames=(FrameGeometry(position_mm=None, orientation=None, spacing_mm=None),),
)  # fmt: skip


ACQUIRED = ("ORIGINAL", "PRIMARY", "M", "ND")


def choose(*headers: Header, rules: tuple[Rule, ...] = (), calling_ae: str = "") -> Choice:
    return decide(headers, rules=rules, calling_ae=calling_ae, scope=SCOPE)


@pytest.mark.parametrize(
    ("change", "analysed", "rule", "skipped"),
    [
        ({}, True, "head scan", ""),
        # Whatever may be a scan of the head goes in.
        ({"series_description": "", "body_part": ""}, True, "head scan", ""),
        ({"series_description": "t2_tse_tra", "body_part": ""}, True, "head scan", ""),
        ({"series_description": "sT1W_3D_TFE", "body_part": "UNKNOWN"}, True, "head scan", ""),
        ({"image_type": ("DERIVED", "SECONDARY")}, True, "head scan", ""),
        ({"image_type": ("DERIVED", "SECONDARY"), "sop_class_uid": SC, "modality": "OT"}, True, "head scan", ""),
        ({"sop_class_uid": SC, "modality": "OT", "photometric": "RGB", "samples_per_pixel": 3}, True, "head scan", ""),
        ({"modality": "", "body_part": "", "series_description": ""}, True, "head scan", ""),
        ({"modality": "OT"}, True, "head scan", ""),
        # A brain word beats a word that also names another place.
        ({"series_description": "HEAD AND CERVICAL FLAIR", "body_part": ""}, True, "head scan", ""),
        # What only plans, was computed, or shows something else stays out.
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, False, "localiser", "localiser"),
        ({"series_description": "3-plane loc"}, False, "localiser", "localiser"),
        ({"series_description": "Survey"}, False, "localiser", "localiser"),
        ({"image_type": ("DERIVED", "PRIMARY", "DIFFUSION", "ADC")}, False, "derived", "derived"),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, False, "derived", "derived"),
        ({"image_type": ("DERIVED", "SECONDARY"), "series_description": "MPR Cor"}, False, "derived", "derived"),
        # As Siemens calls an MPRAGE that was acquired so.
        ({"image_type": ACQUIRED, "series_description": "t1_mpr_sag_p2_iso"}, True, "head scan", ""),
        ({"image_type": ACQUIRED, "series_description": "T1 MPR SAG MIP"}, False, "derived", "derived"),
        ({"image_type": ("DERIVED", "SECONDARY", "MIP")}, False, "derived", "derived"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "PHASE MAP", "P")}, False, "derived", "derived"),
        ({"series_description": "FLAIR_ROI"}, False, "derived", "derived"),
        ({"series_description": "dADC map (ADC)"}, False, "derived", "derived"),
        ({"sop_class_uid": SC, "modality": "OT", "series_description": "Dose Report"}, False, "screenshot", "derived"),
        ({"sop_class_uid": SC, "image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}, False, "derived", "derived"),
        ({"modality": "CT", "sop_class_uid": CT}, False, "modality", "no head"),
        ({"modality": "", "sop_class_uid": CT}, False, "modality", "no head"),
        ({"modality": "US"}, False, "modality", "no head"),
        ({"modality": "CR"}, False, "modality", "no head"),
        ({"modality": "MG"}, False, "modality", "no head"),
        ({"series_description": "SAG T2", "body_part": "LSPINE"}, False, "body part", "no head"),
        ({"series_description": "T1 SAG LUMBAR", "body_part": ""}, False, "body part", "no head"),
        # No images at all.
        ({"modality": "SEG"}, False, NO_IMAGE, ""),
        ({"modality": "SR", "has_pixels": False}, False, NO_IMAGE, ""),
        ({"modality": "PR", "has_pixels": False}, False, NO_IMAGE, ""),
        ({"modality": "RTSTRUCT", "has_pixels": False}, False, NO_IMAGE, ""),
        ({"modality": "MR", "has_pixels": False}, False, NO_IMAGE, ""),
    ],
)
def test_table(change: dict[str, Any], analysed: bool, rule: str, skipped: str) -> None:
    choice = choose(replace(FLAIR, **change))
    assert (choice.analysed, choice.rule, choice.skipped) == (analysed, rule, skipped)
    assert choice.reason.endswith(".")


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({}, ()),
        ({"series_description": "AX T1", "contrast_agent": "Gadovist"}, ()),
        ({"body_part": "", "series_description": "FLAIR"}, ()),
        ({"series_description": "AX T2"}, ("sequence T2",)),
        ({"series_description": "AX"}, ("sequence not recognised",)),
        ({"series_description": "AX T1 post", "body_part": ""}, ("body part not stated",)),
        ({"modality": "OT", "sop_class_uid": SC}, ("modality OT", "secondary capture")),
        ({"image_type": ("DERIVED", "SECONDARY")}, ("derived image",)),
        ({"lossy": True}, ("lossy compression",)),
        ({"transfer_syntax_uid": "1.2.840.10008.1.2.4.51"}, ("lossy compression",)),
        ({"transfer_syntax_uid": "1.2.840.10008.1.2.4.91"}, ()),
        ({"samples_per_pixel": 3}, ("colour image",)),
        ({"photometric": "PALETTE COLOR"}, ("colour image",)),
    ],
)
def test_outside_the_scope_when_unsure(change: dict[str, Any], reasons: tuple[str, ...]) -> None:
    choice = choose(replace(FLAIR, **change))
    assert choice.scope_reasons == reasons
    assert choice.scope == ("outside" if reasons else "inside")


def oriented(*rows_and_columns: Orientation) -> Header:
    frames = tuple(
        FrameGeometry(position_mm=(0.0, 0.0, float(i)), orientation=o, spacing_mm=None)
        for i, o in enumerate(rows_and_columns)
    )
    return replace(FLAIR, series_description="", frames=frames)


AXIAL, CORONAL, SAGITTAL = (1.0, 0, 0, 0, 1.0, 0), (1.0, 0, 0, 0, 0, -1.0), (0, 1.0, 0, 0, 0, -1.0)


def test_three_planes_are_a_localiser_and_two_are_not() -> None:
    assert choose(oriented(AXIAL, CORONAL, SAGITTAL)).rule == "localiser"
    assert choose(oriented(AXIAL, CORONAL, CORONAL)).analysed
    assert choose(oriented(*[AXIAL] * 40, CORONAL, *[SAGITTAL] * 5)).analysed


def test_first_rule_that_fits_decides() -> None:
    ct = replace(FLAIR, modality="CT", sop_class_uid=CT)
    include = Rule(name="ct head", action="analyse", modality=("CT",), body_part=("*head*",))
    exclude = Rule(name="no ct1", action="skip", calling_ae_titles=("CT1",))
    both = (exclude, include)
    assert choose(ct, rules=both, calling_ae="CT1").rule == "no ct1"
    taken = choose(ct, rules=both, calling_ae="CT2")
    assert (taken.analysed, taken.scope, taken.scope_reasons) == (True, "outside", ("modality CT",))
    assert not choose(replace(ct, body_part="CHEST"), rules=both).analysed


@pytest.mark.parametrize(
    ("attribute", "pattern"),
    [
        ("modality", "mr"), ("image_type", "primary"), ("series_description", "*flair"), ("protocol_name", "p?"),
        ("manufacturer", "acme*"), ("model_name", "x"), ("sop_class_uid", MR), ("body_part", "HEAD"),
    ],
)  # fmt: skip
def test_rules_match_each_attribute(attribute: str, pattern: str) -> None:
    header = replace(FLAIR, protocol_name="P1", manufacturer="Acme Inc", model_name="X")
    options: dict[str, Any] = {attribute: (pattern,)}
    assert choose(header, rules=(Rule(name="r", action="skip", **options),)).rule == "r"
    options = {attribute: ("nothing",)}
    assert choose(header, rules=(Rule(name="r", action="skip", **options),)).rule == "head scan"


def test_rules_cannot_make_an_image_of_a_report() -> None:
    everything = (Rule(name="all", action="analyse"),)
    assert choose(replace(FLAIR, modality="SR", has_pixels=False), rules=everything).rule == NO_IMAGE


def test_a_stray_instance_does_not_decide() -> None:
    stray = replace(FLAIR, image_type=("DERIVED", "SECONDARY", "MPR"), series_description="MPR")
    assert choose(stray, FLAIR, FLAIR).analysed


@pytest.mark.parametrize("phases", [1, 3, 5])
def test_a_series_with_magnitude_and_phase_is_judged_by_its_magnitude(phases: int) -> None:
    phase = [replace(FLAIR, image_type=("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"))] * phases
    assert choose(*phase, *[FLAIR] * 3).rule == "head scan"
    assert choose(*phase).skipped == "derived"
    assert not choose(*phase, *[replace(FLAIR, series_description="localizer")] * 3).analysed


@pytest.mark.parametrize(
    ("image_type", "found"),
    [
        (("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"), "M"),
        (("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"), "P"),
        (("ORIGINAL", "PRIMARY", "PHASE"), "P"),
        (("ORIGINAL", "PRIMARY", "MAGNITUDE"), "M"),
        (("ORIGINAL", "PRIMARY", "REAL"), "R"),
        (("DERIVED", "PRIMARY", "I_IR", "I", "IR"), "I"),
        (("ORIGINAL", "PRIMARY", "OTHER"), ""),
        # The first two values say something else.
        (("P", "M"), ""),
        ((), ""),
    ],
)
def test_component_of_a_complex_image(image_type: tuple[str, ...], found: str) -> None:
    assert component(image_type) == found


@pytest.mark.parametrize(
    ("change", "group"),
    [
        ({"series_description": "t2_tirm_tra_dark-fluid"}, "flair"),
        ({"series_description": "T2 FLAIR"}, "flair"),
        ({"series_description": "T2W_TSE"}, "t2"),
        ({"series_description": "T2*"}, ""),
        ({"series_description": "SAG MPRAGE"}, "t1"),
        ({"series_description": "t1_se +C"}, "t1c"),
        ({"series_description": "T1 FSPGR", "contrast_agent": "NO"}, "t1"),
        (
            {
                "series_description": "",
                "repetition_time_ms": 9000.0,
                "echo_time_ms": 120.0,
                "inversion_time_ms": 2500.0,
            },
            "flair",
        ),
        ({"series_description": "", "repetition_time_ms": 500.0, "echo_time_ms": 10.0}, "t1"),
        ({"series_description": "", "repetition_time_ms": 500.0, "echo_time_ms": 10.0, "contrast_agent": "Gd"}, "t1c"),
        ({"series_description": "", "repetition_time_ms": 4000.0, "echo_time_ms": 90.0}, "t2"),
        ({"series_description": "", "repetition_time_ms": 1500.0, "echo_time_ms": 40.0}, ""),
        ({"series_description": ""}, ""),
        ({"modality": "CT"}, "ct"),
    ],
)
def test_sequence_group(change: dict[str, Any], group: str) -> None:
    assert sequence_group(replace(FLAIR, **change)) == group


def test_one_lossy_slice_puts_its_series_outside() -> None:
    series = [replace(FLAIR, sop_instance_uid=f"1.{n}", lossy=n == 3) for n in range(5)]
    assert choose(*series).scope_reasons == ("lossy compression",)
