"""A verdict as DICOM objects. Pure: no disk, network, clock or chance; all comes as arguments."""
