"""SOP classes and transfer syntaxes that we take (PS3.4 B.5, PS3.5 A): negotiation and refusal texts read them here.

What is no image that we judge is taken too and kept out of analysis with a reason: a modality that is refused one
object of a study often stops sending the rest.
"""

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"

# In order of our preference: plain ones first, then compressed as they come. Deflated datasets are not taken, because
# their size shows only when they are inflated.
TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction (process 14, selection value 1)
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless (process 14)
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless Only
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline (process 1)
    "1.2.840.10008.1.2.4.51",  # JPEG Extended (process 2 and 4)
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-Lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
)

_STORAGE = "1.2.840.10008.5.1.4.1.1"
# Images, by SOP class UID below the storage root.
_IMAGES = {
    "1": "Computed Radiography",
    "1.1": "Digital X-Ray, for presentation",
    "1.1.1": "Digital X-Ray, for processing",
    "1.2": "Digital Mammography X-Ray, for presentation",
    "1.2.1": "Digital Mammography X-Ray, for processing",
    "1.3": "Digital Intra-Oral X-Ray, for presentation",
    "1.3.1": "Digital Intra-Oral X-Ray, for processing",
    "2": "CT",
    "2.1": "Enhanced CT",
    "2.2": "Legacy Converted Enhanced CT",
    "3": "Ultrasound Multi-frame (retired)",
    "3.1": "Ultrasound Multi-frame",
    "4": "MR",
    "4.1": "Enhanced MR",
    "4.3": "Enhanced MR Color",
    "4.4": "Legacy Converted Enhanced MR",
    "5": "Nuclear Medicine (retired)",
    "6": "Ultrasound (retired)",
    "6.1": "Ultrasound",
    "6.2": "Enhanced US Volume",
    "7": "Secondary Capture",
    "7.1": "Multi-frame Single Bit Secondary Capture",
    "7.2": "Multi-frame Grayscale Byte Secondary Capture",
    "7.3": "Multi-frame Grayscale Word Secondary Capture",
    "7.4": "Multi-frame True Color Secondary Capture",
    "12.1": "X-Ray Angiographic",
    "12.1.1": "Enhanced XA",
    "12.2": "X-Ray Radiofluoroscopic",
    "12.2.1": "Enhanced XRF",
    "13.1.1": "X-Ray 3D Angiographic",
    "13.1.2": "X-Ray 3D Craniofacial",
    "13.1.3": "Breast Tomosynthesis",
    "20": "Nuclear Medicine",
    "30": "Parametric Map",
    "77.1.1": "VL Endoscopic",
    "77.1.4": "VL Photographic",
    "128": "Positron Emission Tomography",
    "128.1": "Legacy Converted Enhanced PET",
    "130": "Enhanced PET",
    "481.1": "RT Image",
    "481.2": "RT Dose",
}
# Objects that travel with studies.
_OTHERS = {
    "4.2": "MR Spectroscopy",
    "9.1.1": "12-lead ECG Waveform",
    "9.1.2": "General ECG Waveform",
    "11.1": "Grayscale Softcopy Presentation State",
    "11.2": "Color Softcopy Presentation State",
    "11.3": "Pseudo-Color Softcopy Presentation State",
    "11.4": "Blending Softcopy Presentation State",
    "66": "Raw Data",
    "66.1": "Spatial Registration",
    "66.2": "Spatial Fiducials",
    "66.3": "Deformable Spatial Registration",
    "66.4": "Segmentation",
    "66.5": "Surface Segmentation",
    "66.6": "Tractography Results",
    "66.7": "Label Map Segmentation",
    "67": "Real World Value Mapping",
    "88.11": "Basic Text SR",
    "88.22": "Enhanced SR",
    "88.33": "Comprehensive SR",
    "88.34": "Comprehensive 3D SR",
    "88.35": "Extensible SR",
    "88.40": "Procedure Log",
    "88.59": "Key Object Selection Document",
    "88.67": "X-Ray Radiation Dose SR",
    "88.68": "Radiopharmaceutical Radiation Dose SR",
    "88.71": "Acquisition Context SR",
    "88.73": "Patient Radiation Dose SR",
    "104.1": "Encapsulated PDF",
    "104.2": "Encapsulated CDA",
    "481.3": "RT Structure Set",
    "481.5": "RT Plan",
    "481.8": "RT Ion Plan",
}
# SOP class UID → name, of everything that C-STORE takes.
STORAGE_CLASSES = {f"{_STORAGE}.{number}": name for number, name in sorted((_IMAGES | _OTHERS).items())}
IMAGE_CLASSES = frozenset(f"{_STORAGE}.{number}" for number in _IMAGES)
