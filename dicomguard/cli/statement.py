"""The prose of the conformance statement in the shape of PS3.2; `cli.conformance` fills in what the program knows."""

TEXT = """\
# DICOM conformance statement

dicomguard {version}. This page is printed by `dicomguard conformance` from the tables that the program itself reads;
a test fails when they differ. Research use only, not for diagnosis.

## 1. Overview

dicomguard is one application entity. It receives composite objects (Storage SCP), answers C-ECHO (Verification SCP),
and sends a structured report and segmentations of the studies it judged (Storage SCU). It can be told to verify a
connection (Verification SCU). It asks for storage commitment of what it sent, and gives it for what it received
(Storage Commitment Push Model). It offers no Query/Retrieve, no Modality Worklist, no media.

| service | SCU | SCP |
| --- | --- | --- |
| Verification | yes | yes |
| Storage | yes (results; any file with `dicomguard send`) | yes |
| Storage Commitment Push Model | yes (`commitment = true` of a destination) | yes |
| Query/Retrieve, Worklist, MPPS, Print | no | no |

## 2. Networking

### 2.1 Application data flow

A peer associates and sends the instances of a study. When the study has been quiet for `completion.quiet_s`, or for
`completion.quiet_released_s` once every association that brought some of it was released in order, it is judged, and
the results are sent to the destinations that the routes of the configuration name, each in an association of our own.
Nothing is sent on the association that brought the images. Where it is switched on, a destination is then asked for
storage commitment, and reports on the same association or on a new one to our port.

### 2.2 Association policies

| property | value |
| --- | --- |
| Application Context Name | `1.2.840.10008.3.1.1.1` |
| Implementation Class UID | `{implementation_class}` |
| Implementation Version Name | `{implementation_version}` |
| AE title, port (defaults) | {ae_title}, {port}; loopback only until a peer is named |
| associations as acceptor | {associations} in all, {associations_per_peer} a peer (defaults) |
| associations as requestor | one a destination at a time |
| asynchronous operations window | not negotiated: one operation at a time |
| largest PDU received | {pdu} bytes (default) |
| largest PDU proposed as requestor | {sent_pdu} bytes |
| silence after which an association is aborted | {idle_s} s (default) |
| connecting as requestor; an answer to C-STORE | {connect_s} s; {answer_s} s (defaults) |
| SCP/SCU role selection | PS3.7 D.3.3.4: SCP as acceptor, SCU as requestor; both for storage commitment |
| user identity, extended negotiation | ignored |

**Who may associate.** Only a peer of the configuration, by calling AE title and address together, with our AE title
as called AE. With TLS (`[tls]`, a port of its own, TLS 1.2 or later, client certificate required) the public key of
the peer's certificate is checked as well. Everybody else is rejected:

{rejections}

### 2.3 Storage and Verification as SCP

Verification (`1.2.840.10008.1.1`) is accepted in the uncompressed syntaxes below, Storage in all of them. Of the
syntaxes proposed in a presentation context the first in this order is accepted:

{syntaxes}

Deflated, big endian, video and JPEG XL syntaxes are not accepted.

**Level of conformance.** Storage SCP level 2 (full): the dataset is kept byte for byte as it came. Nothing is
coerced. Success is answered only after the instance is on stable storage.

{answers}

**The same SOP Instance UID again.** With the same dataset or the same pixels it is answered with Success and kept
once. With other pixels both are kept, the report says so, and the answer is a warning.

**Accepted SOP classes.** "May be" analysed: the rules of the configuration and of the program decide by modality,
body part and kind of image (`dicomguard explain` says which). What is kept only never enters an analysis.

{received}

### 2.4 Storage as SCU

Results are sent in the order Segmentation, then report. Each SOP class is proposed in Explicit VR Little Endian and
in Implicit VR Little Endian, each in a presentation context of its own; the kept bytes are sent, a retry repeats
them.

{sent}

Comprehensive SR is sent only where Comprehensive 3D SR is not accepted or refused; it is the same tree under UIDs of
its own. Where Segmentation is not accepted the report is sent without it. A destination that fails is tried again
after {first_retry_s} s, doubling up to {longest_retry_s} s, for {give_up_days} days (defaults), without effect on
others.

| answer | what follows |
| --- | --- |
| stored, stored with warning | delivered; a warning is shown with its text |
| busy, or none within the time | tried again |
| form refused | the next form of the object; the delivery is refused when there is none |
| not authorised, association rejected for good | tried again each hour, since a person has to act |
| failed | the delivery is refused and shown; an administrator can repeat it |

{understood}

Other words of the ranges A7xx, A9xx, Bxxx and Cxxx are taken as their range says (PS3.4 Table B.2-1).

### 2.5 Storage Commitment Push Model

SOP class `{commitment}`, well-known instance `{commitment_instance}`, in Explicit and Implicit VR Little Endian.

**As SCU.** After a delivery to a destination with `commitment = true` one N-ACTION (Action Type 1) names all objects
that it took, under a new Transaction UID (`2.25.`). The association stays open for {linger_s} s (default); a report
is also taken on an association that the destination opens to our port as a peer, with or without role selection. An
object is asked about until it is committed:

| Failure Reason | what follows |
| --- | --- |
| 0112 no such object instance | sent again once, then asked again; the second time a person has to look |
| 0213 resource limitation, or not named in the report | asked again after {longest_retry_s} s (default) |
| any other | a person has to look |
| no report within {deadline_h} h (default) | asked again, under a new Transaction UID |

After {give_up_days} days it is given up and shown. Images and results of the study are kept as long as anything is
not committed. A report under a Transaction UID that is not open is answered with 0110.

**As SCP.** The N-ACTION (at most {most_references} instances and {most_collected} bytes) is answered with Success
once the request is on stable storage. The N-EVENT-REPORT follows on an association of our own, with us in the role of
SCP, to the destination whose AE title is the calling AE title; it is tried again for {give_up_days} days (defaults).
An instance is committed when its file is here and has the hash that was taken when it came. It is kept for as long as
`[storage]` says, and no longer: this node is no archive.

| status of the N-ACTION | when |
| --- | --- |
| 0000 | the request is kept |
| 0110 | an unreadable or empty list; a Transaction UID used for other instances; no destination has the AE title |
| 0112, 0118, 0123, 0115 | another instance, class or action type; no dataset |
| 0213 | more instances or bytes than that; too many requests at once; the database is away (Error Comment says which) |

| Failure Reason in the report | when |
| --- | --- |
| 0110 | only quarantined |
| 0112 | not here, deleted, or not whole any more |
| 0119 | here under another SOP class |

## 3. Objects that are made

All are in Explicit VR Little Endian with Specific Character Set ISO_IR 192. Patient and study attributes are copied
from the first analysed instance, malformed values unchanged. UIDs are derived (`2.25.`, PS3.5 B.2): equal input has
equal UIDs and equal bytes. No private attribute is written. Content Qualification is RESEARCH. Synthetic Data
(0008,001C) is YES where a source says so. Manufacturer and model name are `dicomguard`; Software Versions name
program and model.

### 3.1 Structured report

Comprehensive 3D SR, one a revision of a study, also when the study could not be analysed. Modality SR, Series Number
{sr_number} or the next free one, Instance Number the revision. Completion Flag COMPLETE, Verification Flag
UNVERIFIED, Preliminary Flag PRELIMINARY. Content: TID 1500 with a title of our own, TID 1411 and TID 1410 under one
tracking UID for each region (TID 1501 where there is none), and Qualitative Evaluations with the result, its
sentences and what was not looked at. Current Requested Procedure Evidence names every instance that arrived. From
revision 2 on Predecessor Documents names the report that it replaces. The encoding follows the pattern of IHE AI
Results; no conformance to that profile is claimed.

### 3.2 Segmentation

Segmentation Storage, BINARY, one for each analysed stack with regions. Modality SEG, Series Number from {seg_number}
on. One segment a region, never overlapping, in rows, columns and planes of the source; empty frames are left out.
Derivation Image names the source frame of each frame. A stack without Frame of Reference has none; its regions are
outlined in the report.

### 3.3 Coded concepts

Scheme `{scheme}` (Coding Scheme UID `{scheme_uid}`) is ours; a code of it is never reused and never given another
meaning.

{codes}

## 4. Character sets

Received objects may have any character set of PS3.3 C.12.1.1.2. Texts that are copied are decoded from it and written
as UTF-8; a text that does not fit its declared set is copied byte for byte.

## 5. Security

TLS with BCP 195 suites (ECDHE with AES-GCM or ChaCha20), mutual. AE titles and addresses are checked on every
association. No patient attribute, accession number or UID of a patient's study is written to logs. No identifier is
sent anywhere but to the configured destinations. No de-identification profile is applied to results: they belong in
the patient's study.

## 6. Privacy of media

Part 10 files are written into the node's own store, and by `dicomguard tamper` on request; no media application
profile is claimed.
"""
