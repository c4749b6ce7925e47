// Durable jobs: how many there are, and those that somebody may wait for, one by one. Pure.

import { h } from "./dom.js";
import { badge, facts, table } from "./parts.js";
import { JOB, amount, duration, memory, worded } from "./words.js";

export const UNFINISHED_SHOWN = 25;
export const FAILED_SHOWN = 10;
// A job's whole id is the right to read its answer: what is on a screen is only what to call it.
const SHOWN_DIGITS = 8;

/** What jobs there are: `kept` the front door's counts, `listed` single ones and `problem`. */
export function jobs(kept, listed, isAdministrator, now) {
    if (!kept) {
        return null;
    }
    return [
        h("h3", {}, "Durable jobs"),
        kept.problem && h("p", {}, badge("bad", "No jobs can be kept"), ` ${kept.problem}`),
        facts([
            ["Waiting", amount(kept.queued)],
            ["Running", amount(kept.running)],
            ["Done", amount(kept.succeeded)],
            ["Failed", amount(kept.failed)],
            ["Cancelled", amount(kept.cancelled)],
            ["On disk", memory(kept.stored_bytes, kept.limit_bytes || null)],
        ]),
        isWorthListing(kept) && single(kept, listed, isAdministrator, now),
    ];
}

/** Whether any of these jobs is one that is listed. */
export function isWorthListing(kept) {
    return Boolean(kept) && kept.queued + kept.running + kept.failed > 0;
}

function single(kept, listed, isAdministrator, now) {
    if (!isAdministrator) {
        return h("p", { class: "quiet" }, "Single jobs are shown with administrative access.");
    }
    if (listed.problem) {
        return h("p", {}, badge("warn", "Single jobs can't be listed"), ` ${listed.problem}.`);
    }
    const shown = [...listed.unfinished, ...listed.failed];
    const more = kept.queued + kept.running + kept.failed - shown.length;
    return [
        shown.length > 0 &&
            table(
                "Jobs that are worked on, wait or have failed, each group in the order of acceptance",
                ["Job", "State", "Priority", "Accepted", "How far", "Size"],
                shown.map((each) => row(each, now)),
            ),
        h(
            "p",
            { class: "quiet" },
            more > 0 && shown.length > 0 && `And ${amount(more)} more. `,
            h("code", {}, "gpuwarden jobs"),
            " lists all of them, and ends or deletes one.",
        ),
    ];
}

function row(job, now) {
    const [kind, word] = worded(JOB, job.status);
    return h(
        "tr",
        { key: `job-${job.id}` },
        h("th", { scope: "row" }, h("code", {}, `${job.id.slice(0, SHOWN_DIGITS)}…`)),
        h("td", {}, badge(kind, word)),
        h("td", { class: "number" }, amount(job.priority)),
        h("td", {}, `${duration(now - job.created_at)} ago`),
        h("td", {}, [howFar(job), repeats(job)].filter(Boolean).join("; ")),
        h("td", { class: "number" }, amount(job.bytes / 2 ** 20, "MiB", 1)),
    );
}

function howFar({ status, progress, error }) {
    if (status === "failed") {
        return error?.type ?? "";
    }
    if (status === "running") {
        return `for ${duration(progress.running_seconds)}`;
    }
    return progress.jobs_ahead === 0 ? "next" : "";
}

function repeats({ executions }) {
    return executions > 1 ? `given out ${executions} times` : "";
}
