"""Values that readers trip over: lengths, texts, character sets, numbers; and the attributes that ours look at."""

from pydicom.datadict import dictionary_VR, tag_for_keyword

LONG_VRS = frozenset(name.encode() for name in "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT_VRS = frozenset(
    name.encode() for name in "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
VRS = (*sorted(LONG_VRS), *sorted(SHORT_VRS))
UNDEFINED = 0xFFFFFFFF
LENGTHS = (0, 1, 2, 3, 7, 8, 0x7FFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFE, UNDEFINED)
SHORTS = (0, 1, 2, 3, 4, 5, 8, 12, 13, 16, 17, 31, 32, 63, 64, 255, 256, 511, 4096, 32767, 32768, 65535)
_TAILS = ".1 .2 .1.99 .4.50 .4.51 .4.57 .4.70 .4.80 .4.81 .4.90 .4.91 .4.100 .4.201 .5 .9".split()
SYNTAXES = tuple(f"1.2.840.10008.1.2{tail}".encode() for tail in ("", *_TAILS))
TEXTS = (
    # Empty, padding, separators.
    *(b"", b" ", b"\0", b"\0" * 16, b"\\", b"\\" * 50, b"^" * 30, b"=" * 9, b"\r\n\r\n"),
    # UIDs that are none, and paths in their place.
    *(b"../../../../etc/passwd", b"1." * 40, b"1.2.840.10008.5.1.4.1.1.4 ", b"1..2", b"0", b"-1", b"00", b"2.25.x"),
    # Numbers.
    *(b"1e999999", b"nan", b"inf", b"-inf", b"9" * 16, b"9" * 400, b"-" + b"9" * 400, b"1.0\\2.0\\nan", b"1\\2"),
    *(b"0\\0\\0\\0\\0\\0", b"1e-320\\1e-320", b"0.0\\-1", b"1e308\\1e308\\1e308", b"1\\0\\0\\0\\1\\1e300", b"1_0"),
    # Dates and times.
    *(b"20261332", b"00000000", b"99999999", b"246161.999999", b"20260102101112.000000+9999", b"999Z"),
    # Broken encodings.
    *(
        b"\xff\xfe\xfd",
        b"\x1b$B\x1b(J",
        b"\x1b",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x92\xa9",
        b"\xe2\x80\xae abc",
    ),
    # Texts that mean something to somebody else.
    *(b"YES", b"no", b"M", b'{"a": 1}', b"<script>alert(1)</script>", b"%s%n%x", b"'; DROP TABLE study; --"),
    *(b"A" * 70, b"A" * 5000),
)
# Specific Character Set (PS3.3 C.12.1.1.2): real ones, wrong ones, and codecs of Python that are no character sets.
CHARSETS = (
    *(
        b"ISO_IR 100",
        b"ISO_IR 192",
        b"ISO 2022 IR 87",
        b"\\ISO 2022 IR 149",
        b"ISO_IR 138\\ISO_IR 192",
        b"GB18030",
        b"GBK",
    ),
    *(b"ISO 2022 IR 6\\ISO 2022 IR 13\\ISO 2022 IR 159", b"ISO_IR 999", b"ISO_IR  192", b"\\" * 9, b""),
    *(b"utf-16", b"utf-7", b"rot13", b"hex", b"zlib", b"idna", b"punycode", b"unicode_escape", b"undefined", b"mbcs"),
)
_KEYWORDS = """
    SpecificCharacterSet ImageType InstanceCreationDate InstanceCreatorUID SOPClassUID SOPInstanceUID StudyDate
    StudyTime AcquisitionTime AccessionNumber Modality Manufacturer ReferringPhysicianName TimezoneOffsetFromUTC
    StudyDescription SeriesDescription ManufacturerModelName PatientName PatientID PatientBirthDate PatientSex
    PatientAge BodyPartExamined SequenceName SliceThickness RepetitionTime EchoTime InversionTime ContrastBolusAgent
    ProtocolName StudyInstanceUID SeriesInstanceUID StudyID SeriesNumber InstanceNumber ImagePositionPatient
    ImageOrientationPatient FrameOfReferenceUID PositionReferenceIndicator SamplesPerPixel PhotometricInterpretation
    PlanarConfiguration NumberOfFrames Rows Columns PixelSpacing BitsAllocated BitsStored HighBit
    PixelRepresentation SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue WindowCenter WindowWidth
    RescaleIntercept RescaleSlope LossyImageCompression SyntheticData ContentSequence SharedFunctionalGroupsSequence
    PerFrameFunctionalGroupsSequence PixelData IssuerOfPatientID OtherPatientIDsSequence PatientComments
    DeviceSerialNumber SoftwareVersions ContributingEquipmentSequence
"""
# Tag → VR.
READ: dict[tuple[int, int], bytes] = {
    (tag >> 16, tag & 0xFFFF): dictionary_VR(tag)[:2].encode()
    for tag in (tag_for_keyword(keyword) for keyword in _KEYWORDS.split())
    if tag is not None
}
# Depth of planted nesting.
DEEP = (3, 60, 400, 3000)
