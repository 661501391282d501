"""Durable images a second of the receiver, of Orthanc and of DCMTK's storescp, in one run."""
