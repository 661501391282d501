// Upload with progress. Without this script the form still works; it only shows no progress.
"use strict";
(() => {
  document.documentElement.classList.add("script");
  const form = document.getElementById("upload");
  const chosen = document.getElementById("chosen");
  const problem = document.getElementById("problem");
  const sending = document.getElementById("sending");
  const sent = document.getElementById("sent");
  const sentText = document.getElementById("sent-text");
  const button = form.querySelector("button");
  const inputs = [...form.querySelectorAll("input[type=file]")];
  let dropped = [];

  const files = () => [
    ...inputs.flatMap((input) => [...input.files].map((file) => [file, file.webkitRelativePath || file.name])),
    ...dropped,
  ];
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  const tell = (sentence) => { problem.textContent = sentence; problem.hidden = !sentence; };

  function count() {
    const all = files();
    const bytes = all.reduce((sum, [file]) => sum + file.size, 0);
    chosen.textContent = all.length ? `${all.length} file${all.length === 1 ? "" : "s"}, ${megabytes(bytes)}` : "";
    return [all, bytes];
  }

  async function walk(entry, path, into, most) {
    if (into.length > most) return;
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      into.push([file, path + file.name]);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return;
      for (const one of some) await walk(one, `${path}${entry.name}/`, into, most);
    }
  }

  function send(all, bytes) {
    const body = new FormData();
    for (const [file, name] of all) body.append("file", file, name);
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("X-Form-Token", form.elements.form_token.value);
    request.responseType = "json";
    request.upload.onprogress = (event) => {
      sent.value = event.total ? event.loaded / event.total : 0;
      sentText.textContent = `${megabytes(event.loaded)} of ${megabytes(event.total)} sent`;
    };
    const end = (sentence) => { tell(sentence); sending.hidden = true; button.disabled = false; };
    request.onerror = () => end("The connection broke. Look whether the node runs, and send it again.");
    request.onload = () => {
      const answer = request.response || {};
      if (request.status === 200 && answer.next) window.location.assign(answer.next);
      else end(answer.problem || "The upload was not taken. Reload the page and try again.");
    };
    button.disabled = true;
    sending.hidden = false;
    request.send(body);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [all, bytes] = count();
    const mostBytes = Number(form.dataset.maxBytes);
    const mostFiles = Number(form.dataset.maxFiles);
    if (!all.length) tell("No file was chosen. Choose DICOM files, a folder, a ZIP or pictures.");
    else if (bytes > mostBytes) tell(`That is ${megabytes(bytes)}; at most ${megabytes(mostBytes)} are taken at once. Send it in parts.`);
    else if (all.length > mostFiles) tell(`That is ${all.length} files; at most ${mostFiles} are taken at once. Send them in parts.`);
    else { tell(""); send(all, bytes); }
  });
  for (const input of inputs) input.addEventListener("change", () => { dropped = []; tell(""); count(); });
  form.addEventListener("dragover", (event) => { event.preventDefault(); form.classList.add("over"); });
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  form.addEventListener("drop", async (event) => {
    event.preventDefault();
    form.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    const found = [];
    for (const entry of entries) await walk(entry, "", found, Number(form.dataset.maxFiles));
    for (const input of inputs) input.value = "";
    dropped = found;
    tell("");
    count();
  });
})();
