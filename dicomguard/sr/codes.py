"""Every coded concept that the objects carry (PS3.16).

No standard scheme has a code for tampering, forgery or authenticity of an image, hence 99DCMGUARD. A private code is
never reused and never re-meant; the conformance statement lists them all. A forged region is never a Neoplasm.
Codes that the templates of highdicom write stand here too: this is the list of what may occur.
"""

from dataclasses import dataclass

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

from dicomguard.core import uid

PRIVATE_SCHEME = "99DCMGUARD"


@dataclass(frozen=True, slots=True)
class Code:
    """Code value, coding scheme designator, code meaning (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str

    def concept(self) -> CodedConcept:
        """One item of a code sequence."""
        return CodedConcept(self.value, self.scheme, self.meaning)


# Structure of the report: TID 1500, 1600, 1411, 1410, 1501.
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
# In TID 1500; the designator of the Unified Medical Language System is UMLS.
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")

# TID 1204, 1001, 1002, 1004.
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")
DEVICE = Code("121007", "DCM", "Device")
DEVICE_UID = Code("121012", "DCM", "Device Observer UID")
DEVICE_NAME = Code("121013", "DCM", "Device Observer Name")
DEVICE_MANUFACTURER = Code("121014", "DCM", "Device Observer Manufacturer")
DEVICE_MODEL = Code("121015", "DCM", "Device Observer Model Name")
DEVICE_SERIAL = Code("121016", "DCM", "Device Observer Serial Number")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
# CID 100.
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")

# Groups.
TRACKING_ID = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
FINDING_CATEGORY = Code("276214006", "SCT", "Finding category")
FINDING = Code("121071", "DCM", "Finding")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
BRAIN = Code("12738006", "SCT", "Brain")
REFERENCED_SEGMENT = Code("121191", "DCM", "Referenced Segment")
SOURCE_SERIES = Code("121232", "DCM", "Source series for segmentation")
IMAGE_REGION = Code("111030", "DCM", "Image Region")
SOURCE = Code("260753009", "SCT", "Source")
VOLUME = Code("118565006", "SCT", "Volume")
AREA = Code("42798000", "SCT", "Area")
CUBIC_MILLIMETRE = Code("mm3", "UCUM", "cubic millimeter")
SQUARE_MILLIMETRE = Code("mm2", "UCUM", "square millimeter")
NO_UNIT = Code("1", "UCUM", "no units")

# TID 4019.
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
ALGORITHM_MANUFACTURER = Code("122405", "DCM", "Algorithm Manufacturer")
ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
ALGORITHM_FAMILY = Code("111000", "DCM", "Algorithm Family")
# CID 7162.
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")

# CID 240; the dictionary's Absent is 272519000.
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")
UNDETERMINED = Code("373068000", "SCT", "Undetermined")

# CID 6047, by (all slices analysed, any finding).
PROCESSING_SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")
ALL_SUCCEEDED = {
    False: Code("111241", "DCM", "All algorithms succeeded; without findings"),
    True: Code("111242", "DCM", "All algorithms succeeded; with findings"),
}
PARTLY_SUCCEEDED = {
    False: Code("111243", "DCM", "Not all algorithms succeeded; without findings"),
    True: Code("111244", "DCM", "Not all algorithms succeeded; with findings"),
}
NONE_SUCCEEDED = Code("111245", "DCM", "No algorithms succeeded; without findings")

# Segments (CID 7150, 7151, 7203, 7202) and headers (CID 7005).
MORPHOLOGICALLY_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
SPATIAL_CONCEPT = Code("309825002", "SCT", "Spatial and Relational Concept")
NEOPLASM = Code("108369006", "SCT", "Neoplasm")
SEGMENTATION = Code("113076", "DCM", "Segmentation")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
ACQUISITION_EQUIPMENT = Code("109101", "DCM", "Acquisition Equipment")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


TITLES = {
    "real": _private("DG0001", "Authenticity report: tumor, no sign of forgery"),
    "absent": _private("DG0002", "Authenticity report: no tumor, no sign of forgery"),
    "added": _private("DG0003", "Authenticity report: tumor ADDED, signs of forgery"),
    "removed": _private("DG0004", "Authenticity report: tumor REMOVED, signs of forgery"),
    "not_analysable": _private("DG0005", "Authenticity report: not analysable"),
}
STUDY_RESULT = _private("DG1000", "Study result of the authenticity check")
FINDING_AUTHENTICITY = _private("DG1001", "Authenticity of the finding")
SIGN_OF_FORGERY = _private("DG1002", "Sign of forgery")
FORGERY_SCORE = _private("DG1003", "Forgery score")
TUMOR_SCORE = _private("DG1004", "Tumor score")
EXTENT = _private("DG1005", "Extent of the analysis")
SCOPE = _private("DG1008", "Validated scope")
FILE_EVIDENCE = _private("DG1009", "DICOM-level evidence")
FILE_EVIDENCE_TEXT = _private("DG1010", "DICOM-level evidence, sentence")
INTENDED_USE = _private("DG1011", "Intended use")
SUMMARY = _private("DG1012", "Summary for the reader")
NEXT_STEP = _private("DG1013", "Suggested next step")
NOT_LOOKED_AT = _private("DG1014", "Not looked at")
CONFLICT = _private("DG1015", "Conflicting copies of an instance")
REVISION = _private("DG1016", "Revision of the analysis")
PIXEL_EVIDENCE = _private("DG1017", "Pixel-level evidence, sentence")
RESULTS = {
    "real": _private("DG2001", "Brain tumor detected, no sign of forgery"),
    "absent": _private("DG2002", "No tumor detected, no sign of forgery"),
    "added": _private("DG2003", "Tumor added, signs of forgery"),
    "removed": _private("DG2004", "Tumor removed, signs of forgery"),
    "not_analysable": _private("DG2005", "Not analysable"),
}
FORGED_LIKE_TUMOR = _private("DG3001", "Tumor-like region with signs of forgery")
FORGED_AWAY = _private("DG3002", "Region with signs of a removed tumor")
INSIDE_SCOPE = _private("DG4001", "Inside the validated scope")
OUTSIDE_SCOPE = _private("DG4002", "Outside the validated scope")
NO_FILE_EVIDENCE = _private("DG4011", "No evidence found (DICOM level)")
FILE_EVIDENCE_PRESENT = _private("DG4012", "Evidence present (DICOM level)")
RESEARCH_USE = _private("DG4021", "Research use only, not for diagnosis")

# Property category and type of a finding, in SR and SEG alike.
FINDING_CODES = {
    "real": (MORPHOLOGICALLY_ABNORMAL, NEOPLASM),
    "added": (SPATIAL_CONCEPT, FORGED_LIKE_TUMOR),
    "removed": (SPATIAL_CONCEPT, FORGED_AWAY),
}


def coding_scheme_identification() -> CodingSchemeIdentificationItem:
    """Item of the Coding Scheme Identification Sequence for our scheme (PS3.3 C.12.1.1.1)."""
    item = CodingSchemeIdentificationItem(
        PRIVATE_SCHEME, name="dicomguard concepts", version="1", responsible_organization="dicomguard"
    )
    # The library takes a UID only together with a registry, which a private scheme has none of.
    item.CodingSchemeUID = uid.CODING_SCHEME_UID
    return item
