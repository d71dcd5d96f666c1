// What changes an index: files that are added, and documents that are deleted and can be put back.

import { call, pathIn } from "./api.js";

const PAUSE = 400; // milliseconds between two looks at a job
const by = (id) => document.getElementById(id);

/** Let files be added to the index of a state; `added` is called when there are new ones. */
export function connectUpload(stateOf, added) {
  by("add-files").addEventListener("click", () => {
    by("files-index").textContent = stateOf().index;
    by("files-note").textContent = "";
    by("files-progress").hidden = true;
    by("files").value = "";
    by("files-dialog").showModal();
  });
  by("files-send").addEventListener("click", async () => {
    if (!by("files").files.length) {
      by("files-note").textContent = "Choose files first.";
      by("files").focus();
      return;
    }
    by("files-send").disabled = true;
    try {
      by("files-note").textContent = summary(await upload(stateOf(), [...by("files").files]));
      added();
    } catch (error) {
      by("files-note").textContent = error.message;
    } finally {
      by("files-send").disabled = false;
      by("files-progress").hidden = true;
    }
  });
}

/** Send files, follow the job that adds them, and return its result. */
async function upload(state, files) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.webkitRelativePath || file.name);
  by("files-note").textContent = `Sending ${files.length} file${files.length === 1 ? "" : "s"} …`;
  by("files-progress").removeAttribute("value");
  by("files-progress").hidden = false;
  let job = await call(pathIn(state, "files", { wait: "false" }), { method: "POST", form });
  while (job.state === "running") {
    await new Promise((done) => setTimeout(done, PAUSE));
    job = await call(`v1/jobs/${encodeURIComponent(job.id)}`);
    if (job.total) Object.assign(by("files-progress"), { max: job.total, value: job.done });
    by("files-note").textContent = job.total ? `${job.done} of ${job.total} chunks are embedded …` : "Reading …";
  }
  if (job.state === "failed") throw new Error(`The files were not added: ${job.error}`);
  return job.result;
}

function summary(result) {
  const told = [`${result.added} chunk${result.added === 1 ? "" : "s"} added`];
  if (result.removed) told.push(`${result.removed} replaced`);
  if (result.unchanged_files) told.push(`${result.unchanged_files} files were there already`);
  if (result.empty_files) told.push(`${result.empty_files} had no text`);
  for (const { path, reason } of result.skipped) told.push(`${path} was skipped: ${reason}`);
  return `${told.join("; ")}.`;
}

/** Ask whether to delete a hit's document, delete it, and offer to put it back; `say` tells what was done. */
export async function removeDocument(state, hit, { say, changed }) {
  const dialog = by("remove-dialog");
  by("remove-note").textContent = `${hit.id} will be removed from ${state.index}.`;
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  if (dialog.returnValue !== "remove") return false;
  const stored = await call(pathIn(state, "documents", { ids: hit.id })); // with its dates, which a hit has as text
  const { removed } = await call(pathIn(state, "documents", { ids: hit.id }), { method: "DELETE" });
  if (!removed) {
    say(`${hit.id} was gone already.`);
    return true;
  }
  const back = document.createElement("button");
  back.type = "button";
  back.className = "quiet";
  back.textContent = "Put it back";
  back.addEventListener("click", async () => {
    back.disabled = true;
    try {
      await call(pathIn(state, "documents"), { method: "POST", json: { documents: stored.documents } });
      say(`${hit.id} is back.`);
      changed();
    } catch (error) {
      say(error.message, true);
    }
  });
  say(`${hit.id} was deleted. `);
  by("status").append(back);
  return true;
}
