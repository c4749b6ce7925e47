// Queue and answers; who else holds a card's memory. Pure.

import { h } from "./dom.js";
import { jobs } from "./jobs.js";
import { badge, facts, section, table } from "./parts.js";
import { NOT_OURS_TO_END, amount, clock, memory, partOf, since } from "./words.js";

/** The front door's figures. */
export function requests({ status, jobs: listed, isAdministrator, now }) {
    const { gateway } = status;
    return section(
        "requests",
        "Requests and jobs",
        gateway
            ? [
                  paused(gateway, now),
                  queue(gateway),
                  jobs(gateway.jobs, listed, isAdministrator, now),
              ]
            : h("p", {}, badge("bad", "The front door isn't running"), " Nobody is answered."),
    );
}

function paused(gateway, now) {
    if (!gateway.paused) {
        return null;
    }
    const until = gateway.paused_until;
    const end = until ? `until ${clock(until / 1e6, now)}` : "until a card is cool enough";
    return h("p", {}, badge("warn", `New requests are refused ${end}`));
}

function queue(gateway) {
    return facts([
        ["Waiting", partOf(gateway.queue_depth, gateway.queue_limit, "requests")],
        ["Answered", amount(gateway.completed)],
        ["Failed", amount(gateway.failed)],
        ["Refused at the door", amount(gateway.rejected)],
        ["Given to another worker", amount(gateway.retried)],
        ["An answer takes", amount(gateway.mean_response_seconds, "s on average", 2)],
        ["95 of 100 answers within", amount(gateway.p95_response_seconds, "s", 2)],
    ]);
}

/** Processes that hold a card's memory and are no worker's; nothing where there are none. */
export function orphans({ status, now }) {
    const blind = Object.entries(status.scans);
    if (!status.orphans.length && !blind.length) {
        return null;
    }
    return section(
        "orphans",
        "Others on the cards",
        blind.map(([card, why]) => h("p", {}, badge("off", `Card ${card} can't be looked at`), ` ${why}`)),
        status.orphans.length > 0 &&
            table(
                "Processes that hold a card's memory and belong to no worker that runs",
                ["Process", "Card", "Program", "Kind", "Memory", "Seen for", "What can be done"],
                status.orphans.map((each) => orphan(each, now)),
            ),
    );
}

function orphan(each, now) {
    const isEnded = !NOT_OURS_TO_END.has(each.orphan_class);
    return h(
        "tr",
        { key: `orphan-${each.pid}` },
        h("th", { scope: "row" }, each.pid),
        h("td", {}, each.gpu),
        h("td", {}, each.command),
        h("td", {}, each.orphan_class),
        h("td", { class: "number" }, memory(each.vram_bytes, null)),
        h("td", {}, since(each.since, now)),
        h("td", {}, isEnded ? h("code", {}, `gpuwarden reap ${each.pid}`) : "it may stay"),
    );
}
