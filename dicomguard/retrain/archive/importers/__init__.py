"""From the forms in which cases come to `NewCase`: a folder of planes with an index, a folder of DICOM."""
