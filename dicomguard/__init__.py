"""dicomguard: a DICOM node that looks for forged tumors in brain MR. Research use only."""

__version__ = "0.1.0"
