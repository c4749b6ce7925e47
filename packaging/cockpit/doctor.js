// Doctor's findings: whether this node will serve well, and how to mend what will not. Pure.

import { h } from "./dom.js";
import { badge, button, section } from "./parts.js";
import { VERDICT, worded } from "./words.js";

export const COMMAND = ["gpuwarden", "doctor", "--json"];
const TOLD = ["wrong", "doubtful"];

/** What doctor said, or that it is looking. */
export function doctor({ doctor: asked, isAdministrator }) {
    const isBusy = asked.phase === "busy";
    return section(
        "doctor",
        "Is this node fit to serve?",
        asked.phase === "failed" && h("p", {}, badge("bad", "It can't be looked at"), ` ${asked.problem}`),
        asked.report && findings(asked.report, isAdministrator),
        button(
            isBusy ? "Looking …" : "Look again",
            isBusy ? null : { type: "look" },
            { key: "look", "aria-disabled": isBusy ? "true" : null },
        ),
    );
}

function findings(report, isAdministrator) {
    const told = TOLD.flatMap((verdict) =>
        report.findings.filter((finding) => finding.verdict === verdict),
    );
    const unseen = report.findings.filter((finding) => finding.verdict === "unknown");
    return [
        h("p", {}, counted(report.counts)),
        told.length > 0 && h("ul", { class: "findings" }, told.map(finding)),
        unseen.length > 0 &&
            h(
                "p",
                { class: "quiet" },
                `What can't be seen: ${unseen.map((each) => each.name).join(", ")}.`,
                !isAdministrator && " Administrative access shows more.",
            ),
    ];
}

/** How many findings there are of each kind, in a sentence. */
export function counted(counts) {
    const bad = counts.wrong ?? 0;
    const head = bad === 0 ? "Nothing is wrong" : bad === 1 ? "1 thing is wrong" : `${bad} things are wrong`;
    return `${head}, ${counts.doubtful ?? 0} doubtful, ${counts.good ?? 0} good.`;
}

function finding(each) {
    const [kind, word] = worded(VERDICT, each.verdict);
    const [command, remark] = parted(each.mend);
    return h(
        "li",
        { key: `${each.subject} ${each.name}` },
        h("h3", {}, badge(kind, word), ` ${each.name}: ${each.found}`),
        h("p", {}, `Wanted: ${each.wanted}. ${each.why}`),
        command && h("p", {}, "To mend it: ", h("code", {}, command), remark && ` (${remark})`),
    );
}

/** A mend's command, and what else is said of it behind a "#". */
export function parted(mend) {
    const at = mend.search(/(^|\s)# /);
    return at < 0 ? [mend, ""] : [mend.slice(0, at).trim(), mend.slice(at).replace(/^\s*# /, "")];
}
