"""Identity is what an archive matches on: decoded where it is text, untouched where it is malformed, never more."""

import copy
from dataclasses import replace
from datetime import UTC, timedelta, timezone
from io import BytesIO
from typing import Any

import highdicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config, dcmread
from pydicom.charset import convert_encodings
from pydicom.data import get_charset_files
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag

from dicomguard.errors import Refused
from dicomguard.sr import provenance
from tests.sr_cases import NODE, Case, Change, Spot, case, frames, single_frame, through_file

SPOT = [Spot(category="added", places=[1, 2])]


def source(change: Change) -> Case:
    return case("added", [frames(single_frame(4, change=change))], SPOT)


def written(made: Case) -> list[Dataset]:
    """The objects as a reader of their files sees them."""
    return [dcmread(BytesIO(built.data)) for built in made.build()]


def element(header: Dataset, keyword: str) -> Any:
    """The element as it was read: a named tuple around its bytes."""
    return header.get_item(keyword)


def raw(ds: Dataset, keyword: str) -> bytes:
    value = ds.get_item(keyword).value
    assert isinstance(value, bytes)
    return value.rstrip(b" \0")


def test_patient_and_study_are_copied() -> None:
    made = source(lambda ds: None)
    header = next(iter(made.headers.values()))
    for ds in written(made):
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert raw(ds, "PatientName") == "Probe^Käthe".encode()
        for keyword in (
            "PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex PatientAge StudyInstanceUID StudyDate "
            "StudyTime StudyID StudyDescription AccessionNumber ReferringPhysicianName"
        ).split():
            assert ds[keyword].value == header[keyword].value, keyword


@pytest.mark.parametrize("name", ["chrH31.dcm", "chrKoreanMulti.dcm", "chrX1.dcm", "chrRuss.dcm", "chrH32.dcm"])
def test_character_sets(name: str) -> None:
    foreign = dcmread(get_charset_files(name)[0])

    def change(ds: Dataset) -> None:
        ds.SpecificCharacterSet = foreign.SpecificCharacterSet
        ds.PatientName = foreign.PatientName
        ds.StudyDescription = "CT"
        ds.ReferringPhysicianName = foreign.PatientName

    # Characters of the names that the default texts use are not in all of the sets.
    made = source(change)
    for ds in written(made):
        assert raw(ds, "PatientName").decode("utf-8") == str(foreign.PatientName)
        assert str(ds.PatientName) == str(foreign.PatientName)
        assert str(ds.ReferringPhysicianName) == str(foreign.PatientName)


@pytest.mark.parametrize(
    ("charset", "value", "name"),
    [
        # 本 holds the byte of "\\", 純 that of "=", in two-byte sets that escape sequences switch to.
        ("\\ISO 2022 IR 87", b"Yamamoto^Taro=\x1b$B;3K\\\x1b(B^\x1b$BB@O:\x1b(B", "Yamamoto^Taro=山本^太郎"),
        ("\\ISO 2022 IR 87", b"=\x1b$BEDCf\x1b(B^\x1b$B=c\x1b(B", "=田中^純"),
        ("GB18030", b"Wang^X=\xd5\\^\xd0\xa1", "Wang^X=誠^小"),
        ("\\ISO 2022 IR 58", b"Zhang^X=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab", "Zhang^X=张^小东"),
    ],
)
def test_names_are_decoded_whole(charset: str, value: bytes, name: str) -> None:
    def change(ds: Dataset) -> None:
        ds.SpecificCharacterSet = charset.split("\\")
        for keyword in ("StudyDescription", "ReferringPhysicianName"):
            setattr(ds, keyword, "")

    made = source(change)
    for header in made.headers.values():
        padded = value + b" " * (len(value) % 2)
        header["PatientName"] = element(header, "PatientName")._replace(value=padded, length=len(padded))
    for ds in written(made):
        assert raw(ds, "PatientName").decode("utf-8") == name
        assert str(ds.PatientName) == name


def test_text_that_is_not_in_its_character_set_stays_as_it_came() -> None:
    def change(ds: Dataset) -> None:
        ds.SpecificCharacterSet = "ISO_IR 192"

    made = source(change)
    bad = {}
    for uid, header in made.headers.items():
        header["StudyDescription"] = element(header, "StudyDescription")._replace(value=b"Sch\xe4del ", length=8)
        bad[uid] = header
    with pytest.warns(UserWarning, match="Failed to decode"):
        objects = replace(made, headers=bad).build()
    for built in objects:
        assert b"Sch\xe4del " in built.data


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDate", b"1961"),
        ("PatientBirthDate", b"00000000"),
        ("StudyTime", b"10:11:12"),
        ("StudyDate", b"2026.11.23"),
        ("PatientSex", b"X"),
        ("PatientSex", b"f"),
        ("PatientAge", b"65"),
        ("PatientWeight", b"70,5"),
        ("PatientID", b"P" * 80),
        ("AccessionNumber", b"A" * 20),
        ("StudyID", b"S" * 20),
    ],
)
def test_malformed_values_pass_byte_for_byte(keyword: str, value: bytes) -> None:
    made = source(lambda ds: None)
    for header in made.headers.values():
        header[keyword] = element(header, "PatientID")._replace(
            tag=Tag(keyword), VR=dictionary_VR(keyword), value=value, length=len(value)
        )
    for built in made.build():
        assert raw(dcmread(BytesIO(built.data)), keyword) == value


def test_implicit_syntax_headers_copy_alike() -> None:
    made = source(lambda ds: None)
    for header in made.headers.values():
        for keyword in ("PatientName", "PatientBirthDate", "StudyDescription"):
            header[keyword] = element(header, keyword)._replace(VR=None, is_implicit_VR=True)
    for ds in written(made):
        assert str(ds.PatientName) == "Probe^Käthe" and ds.PatientBirthDate == "19610203"
        assert ds.StudyDescription == "Schädel"


def test_decoded_headers_copy_alike() -> None:
    made = source(lambda ds: setattr(ds, "OtherPatientNames", ["A^B", "Ö^D"]))
    first = [built.data for built in made.build()]
    for header in made.headers.values():
        list(header.iterall())
    assert [built.data for built in made.build()] == first


def test_missing_type_2_is_empty_and_empty_optional_is_absent() -> None:
    def change(ds: Dataset) -> None:
        del ds.PatientBirthDate, ds.PatientSex, ds.StudyID
        ds.DeidentificationMethod = ""
        ds.StudyDescription = ""
        ds.RequestingService = "WARD 3"
        ds.PatientComments = "not ours"
        ds.add_new(0x00091001, "LO", "private")

    for ds in written(source(change)):
        assert ds.PatientBirthDate == ds.PatientSex == ds.StudyID == ""
        for keyword in ("DeidentificationMethod", "StudyDescription", "RequestingService", "PatientComments"):
            assert keyword not in ds
        assert not [element for element in ds.iterall() if element.tag.is_private]


def test_sequences_are_copied_without_private_elements() -> None:
    def change(ds: Dataset) -> None:
        item, code = Dataset(), Dataset()
        item.PatientID = "Ä-1"
        item.TypeOfPatientID = "TEXT"
        item["PatientBirthDate"] = DataElement(0x00100030, "DA", "1961", validation_mode=config.IGNORE)
        item.add_new(0x00091001, "LO", "private")
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "MRB", "99HOSP", "Schädel-MR"
        ds.OtherPatientIDsSequence = [item]
        ds.ProcedureCodeSequence = [code]

    seg, sr = written(source(change))
    for ds in (seg, sr):
        (item,) = ds.OtherPatientIDsSequence
        assert item.PatientID == "Ä-1" and len(item) == 3
        assert raw(item, "PatientBirthDate") == b"1961"
    reported = [i for i in sr.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "121058"]
    assert [i.ConceptCodeSequence[0].CodeMeaning for i in reported] == ["Schädel-MR"]


def test_procedure_code_that_lacks_its_meaning_stays_as_it_came() -> None:
    def change(ds: Dataset) -> None:
        bare, whole = Dataset(), Dataset()
        bare.CodeValue = whole.CodeValue = "MRB"
        whole.CodingSchemeDesignator, whole.CodeMeaning = "99HOSP", "MR"
        ds.ProcedureCodeSequence = [bare, whole]

    sr = written(source(change))[-1]
    reported = [i for i in sr.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "121058"]
    assert [len(i.ConceptCodeSequence[0]) for i in reported] == [1, 3]


def test_clinical_trial_is_copied_as_a_whole_or_not_at_all() -> None:
    def half(ds: Dataset) -> None:
        ds.ClinicalTrialSubjectID = "17"

    def whole(ds: Dataset) -> None:
        half(ds)
        ds.ClinicalTrialSponsorName = "S"
        ds.ClinicalTrialProtocolID = "P"

    assert all("ClinicalTrialSubjectID" not in ds for ds in written(source(half)))
    for ds in written(source(whole)):
        assert (ds.ClinicalTrialSubjectID, ds.ClinicalTrialSiteName) == ("17", "")


def test_request_is_copied() -> None:
    def change(ds: Dataset) -> None:
        item = Dataset()
        item.RequestedProcedureID = "RP1"
        item.RequestedProcedureDescription = "Schädel"
        item.ScheduledProcedureStepID = "not ours"
        ds.RequestAttributesSequence = [item]

    (request,) = written(source(change))[-1].ReferencedRequestSequence
    assert request.RequestedProcedureID == "RP1" and request.AccessionNumber == "A123"
    assert request.RequestedProcedureDescription == "Schädel" and request.FillerOrderNumberImagingServiceRequest == ""
    assert "ScheduledProcedureStepID" not in request
    assert "ReferencedRequestSequence" not in written(source(lambda ds: None))[-1]


@pytest.mark.parametrize(
    ("offset", "zone", "expected"),
    [
        ("+0200", UTC, ("20261124", "023000", "+0200")),
        ("-0330", UTC, ("20261123", "210000", "-0330")),
        (None, UTC, ("20261124", "003000", None)),
        (None, timezone(timedelta(hours=9)), ("20261124", "093000", None)),
        ("+99", timezone(timedelta(hours=9)), ("20261124", "093000", None)),
    ],
)
def test_our_times_stand_in_the_offset_of_the_source(
    offset: str | None, zone: timezone, expected: tuple[str, str, str | None]
) -> None:
    def change(ds: Dataset) -> None:
        if offset:
            ds.TimezoneOffsetFromUTC = offset

    for built in source(change).build(node=replace(NODE, timezone=zone)):
        ds = built.dataset
        assert (ds.ContentDate, ds.ContentTime, ds.get("TimezoneOffsetFromUTC")) == expected
        # The study's own time is not moved.
        assert (ds.StudyDate, ds.StudyTime) == ("20261123", "101112")
        assert ds.ContributingEquipmentSequence[-1].ContributionDateTime.startswith(expected[0] + expected[1])


def test_synthetic_data_is_carried() -> None:
    def change(ds: Dataset) -> None:
        if ds.InstanceNumber == 3:
            ds.SyntheticData = "YES"

    assert all(ds.SyntheticData == "YES" for ds in written(source(change)))
    assert all("SyntheticData" not in ds for ds in written(source(lambda ds: None)))


@pytest.mark.parametrize("name", ["n" * 65, "a\\b"])
def test_name_that_no_object_can_carry_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="name of the node"):
        replace(NODE, name=name)


def test_equipment() -> None:
    for ds in written(source(lambda ds: None)):
        scanner, library, ours = ds.ContributingEquipmentSequence
        assert (scanner.Manufacturer, list(scanner.SoftwareVersions)) == ("Scanner Maker", ["VX1", "VX2"])
        # The library names itself, at our time.
        assert (library.ManufacturerModelName, library.SoftwareVersions) == ("highdicom", highdicom.__version__)
        assert library.ContributionDateTime == ours.ContributionDateTime == "20261124003000+0000"
        assert (
            list(ours.SoftwareVersions)
            == list(ds.SoftwareVersions)
            == [
                "dicomguard 0.1.0",
                "model lf-2026.11-a1b2c3d4",
            ]
        )
        assert ds.ContentQualification == "RESEARCH" and ds.DeviceSerialNumber == "node-a"
        assert ds.InstanceCreatorUID == NODE.device_uid
    bare = source(lambda ds: delattr(ds, "Manufacturer"))
    assert all(len(ds.ContributingEquipmentSequence) == 2 for ds in written(bare))


def test_header_is_that_of_the_first_analysed_instance() -> None:
    def change(ds: Dataset) -> None:
        ds.PatientID = f"P{ds.InstanceNumber}"

    headers = frames(single_frame(4, change=change))
    made = case("added", [headers], SPOT, skipped={(0, 0): "no head"})
    assert {ds.PatientID for ds in written(made)} == {"P2"}
    none = case("not_analysable", [headers])
    last = dict([list(none.headers.items())[-1]])
    assert {ds.PatientID for ds in written(replace(none, headers=last))} == {"P4"}


def test_through_file_gives_undecoded_headers() -> None:
    assert isinstance(through_file(single_frame(1)[0]).get_item("PatientName").value, bytes)


def values(value: Any) -> list[Any]:
    return list(value) if isinstance(value, MultiValue) else [value]


@given(
    value=st.binary(max_size=24),
    keyword=st.sampled_from(["PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "PatientWeight"]),
    charset=st.sampled_from(["ISO_IR 192", "ISO_IR 100", "GB18030", "ISO_IR 13", "ISO 2022 IR 149", "NONSENSE", ""]),
)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_pass_and_keep_their_meaning(value: bytes, keyword: str, charset: str) -> None:
    header = copy.deepcopy(HEADER)
    header.SpecificCharacterSet = charset
    header.set_original_encoding(False, True, convert_encodings(charset))
    tag = Tag(keyword)
    header[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    shared = provenance.of(VERDICT, header, {}, NODE)
    copied: Any = shared.identity.get_item(keyword)
    if copied is None:
        assert keyword == "PatientWeight" and not value.strip(b" \0")
    elif isinstance(copied.value, bytes):
        assert copied.value.rstrip(b" \0") == value.rstrip(b" \0")
    elif keyword == "PatientName" and charset == "GB18030":
        # Readers that cut the bytes at "=" or "\\" see halves of characters here.
        assert "\\".join(map(str, values(copied.value))) == value.decode("gb18030").rstrip("\0 ")
    else:
        # What a reader of the source sees is what a reader of ours sees.
        assert str(copied.value or "") == str(header[keyword].value or "").rstrip("\0 ")


HEADER = single_frame(1)[0]
VERDICT = case("absent", [frames([HEADER])]).verdict


@pytest.mark.parametrize("keyword", ["PatientName", "TimezoneOffsetFromUTC", "SyntheticData"])
def test_a_sequence_in_the_place_of_a_text_is_no_value(keyword: str) -> None:
    """Printing a damaged one would take gigabytes, and no reader of ours would expect it there."""

    def nest(ds: Dataset) -> None:
        tag = tag_for_keyword(keyword) or 0
        ds[tag] = DataElement(tag, "SQ", [Dataset()])

    for ds in written(source(nest)):
        assert keyword not in ds or not isinstance(ds[keyword].value, DicomSequence)


@pytest.mark.parametrize("keyword", ["OtherPatientIDsSequence", "ProcedureCodeSequence", "RequestAttributesSequence"])
@pytest.mark.parametrize("value", [b"1_0 ", b"ab"])
def test_a_sequence_whose_bytes_are_no_items_has_no_value(keyword: str, value: bytes) -> None:
    """A study is reported all the same: the damage is in what is only copied."""
    made = source(lambda ds: None)
    for header in made.headers.values():
        header[keyword] = RawDataElement(Tag(keyword), "SQ", len(value), value, 0, False, True)
    for built in made.build():
        assert not dcmread(BytesIO(built.data)).get(keyword)
