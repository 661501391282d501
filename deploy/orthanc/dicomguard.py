"""Orthanc's side: send each stable study to dicomguard once, and show its report on the study's page.

Loaded by Orthanc's Python plugin ("PythonScript" in orthanc.json). Uses only what the plugin brings.
The modality that results come from and go to is named DICOMGUARD_MODALITY, "dicomguard" when it is not set.
"""

import html
import json
import os
import threading

import orthanc

MODALITY = os.environ.get("DICOMGUARD_MODALITY", "dicomguard")
# Results of any program come back to the study; only images are worth sending.
NOT_IMAGES = {"SEG", "SR", "PR", "KO", "REG", "RTSTRUCT", "RTPLAN", "RTDOSE", "DOC", "ECG"}
# User-defined metadata: number of image instances that were sent last.
SENT = "5151"
SCHEME = "99DCMGUARD"
# Text Value (0040,A160).
TEXT_VALUE = "0040-a160"
# Seconds until a job that failed (dicomguard away, network down) is tried again.
RETRY = 60


def get(path):
    """JSON of one of Orthanc's own resources."""
    return json.loads(orthanc.RestApiGet(path))


def image_series(study):
    """Series of the study that hold images, with their instances."""
    series = [get(f"/series/{key}") for key in get(f"/studies/{study}")["Series"]]
    return [one for one in series if one["MainDicomTags"].get("Modality", "") not in NOT_IMAGES]


def sent_before(study):
    """Number of image instances that were sent last time."""
    if SENT not in get(f"/studies/{study}/metadata?numeric"):
        return 0
    return int(orthanc.RestApiGet(f"/studies/{study}/metadata/{SENT}"))


def route(study):
    """Queue the study's images for dicomguard, unless nothing came since the last time."""
    series = image_series(study)
    count = sum(len(one["Instances"]) for one in series)
    if count == 0 or count == sent_before(study):
        return
    body = {"Resources": [one["ID"] for one in series], "Synchronous": False, "Permissive": False}
    orthanc.RestApiPost(f"/modalities/{MODALITY}/store", json.dumps(body))
    orthanc.RestApiPut(f"/studies/{study}/metadata/{SENT}", str(count))
    orthanc.LogWarning(f"dicomguard: queued {count} images of one study")


def retry_later(job):
    """Try a failed transfer to dicomguard again until it succeeds; sending twice is harmless there."""
    content = get(f"/jobs/{job}")
    ours = get(f"/modalities/{MODALITY}/configuration")["AET"]
    if content.get("Type") == "DicomModalityStore" and content.get("Content", {}).get("RemoteAet") == ours:
        orthanc.LogWarning(f"dicomguard: a transfer failed, next attempt in {RETRY} s")
        timer = threading.Timer(RETRY, lambda: orthanc.RestApiPost(f"/jobs/{job}/resubmit", "{}"))
        # Orthanc must be able to stop while an attempt is due.
        timer.daemon = True
        timer.start()


def on_change(change, level, resource):
    """Orthanc tells when no instance has come for StableAge seconds, and when a job failed."""
    if change == orthanc.ChangeType.STABLE_STUDY:
        route(resource)
    elif change == orthanc.ChangeType.JOB_FAILURE:
        retry_later(resource)


def texts(item, found):
    """Collect (concept, text) pairs of a report in reading order."""
    for child in item.get("ContentSequence", []):
        concept = (child.get("ConceptNameCodeSequence") or [{}])[0].get("CodeMeaning", "")
        if child.get("ValueType") == "TEXT":
            found.append((concept, child.get("TextValue") or ""))
        elif child.get("ValueType") == "CODE":
            found.append((concept, (child.get("ConceptCodeSequence") or [{}])[0].get("CodeMeaning", "")))
        texts(child, found)
    return found


def reports(study):
    """Reports of dicomguard in the study, the newest revision first."""
    found = []
    for key in get(f"/studies/{study}")["Series"]:
        series = get(f"/series/{key}")
        if series["MainDicomTags"].get("Modality") != "SR":
            continue
        for instance in series["Instances"]:
            # Without the last part Orthanc leaves out texts of more than 256 characters, the summary among them.
            tags = get(f"/instances/{instance}/tags?simplify&ignore-length={TEXT_VALUE}")
            title = (tags.get("ConceptNameCodeSequence") or [{}])[0]
            if title.get("CodingSchemeDesignator") == SCHEME:
                found.append((int(tags.get("InstanceNumber") or 0), title.get("CodeMeaning", ""), tags))
    return sorted(found, key=lambda one: one[0], reverse=True)


def page(title, body):
    """A plain page; all that comes from a report is escaped."""
    style = "body{font:16px/1.5 sans-serif;max-width:46em;margin:2em auto}dt{color:#555}dd{margin:0 0 .8em}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{style}</style><h1>{html.escape(title)}</h1>{body}</html>"
    )


def show_report(output, uri, **request):
    """GET /dicomguard/report/{study}: the newest report as text."""
    if request["method"] != "GET":
        output.SendMethodNotAllowed("GET")
        return
    found = reports(request["groups"][0])
    if not found:
        body = "<p>dicomguard has not reported on this study yet. It does so some minutes after the last image.</p>"
        output.AnswerBuffer(page("No report yet", body), "text/html")
        return
    _, title, tags = found[0]
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in texts(tags, []))
    output.AnswerBuffer(page(title, f"<dl>{rows}</dl>"), "text/html")


BUTTON = """
$('#study').live('pagebeforecreate', function() {
  var link = $('<a>').attr('data-role', 'button').attr('href', '#').attr('data-icon', 'info').text('dicomguard report');
  link.insertBefore($('#study-delete').parent().parent());
  link.click(function() {
    if ($.mobile.pageData) { window.open('../dicomguard/report/' + $.mobile.pageData.uuid); }
  });
});
"""

orthanc.RegisterOnChangeCallback(on_change)
orthanc.RegisterRestCallback("/dicomguard/report/([-0-9a-f]+)", show_report)
orthanc.ExtendOrthancExplorer(BUTTON)
