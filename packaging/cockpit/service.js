// The head of the page: how the service is, or why that can't be known. Pure.

import { h } from "./dom.js";
import { badge, button, notice } from "./parts.js";
import { SERVICE, TROUBLE, clock, worded } from "./words.js";

const START = "systemctl start medgemma-guard";

/** Title, state with its reasons, and what stands in the way of knowing it. */
export function head(state) {
    const { status } = state;
    return h(
        "header",
        { key: "head" },
        h("h1", {}, "GPU workers"),
        status?.simulated &&
            h(
                "p",
                { class: "notice warn" },
                badge("warn", "Simulated cards."),
                " No figure here says anything about a real card.",
            ),
        trouble(state),
        status && overall(state),
        state.notice && told(state.notice),
    );
}

function overall({ status, link, statusAt, now }) {
    const [kind, word, meaning] = worded(SERVICE, status.state);
    if (link !== "live") {
        return h("p", {}, badge("off", `Last known at ${clock(statusAt, now)}`), ` ${word}.`);
    }
    return [
        h("p", {}, badge(kind, word), ` ${meaning}`),
        status.reasons.length > 0 &&
            h("ul", { class: "reasons" }, status.reasons.map((reason) => h("li", {}, reason))),
    ];
}

/** Why nothing, or nothing new, can be shown. */
export function trouble({ link, problem, isAdministrator, user }) {
    if (link === "away") {
        return notice(
            "bad",
            TROUBLE.away,
            "It is stopped, or restarting: then it is back within seconds, and this page with it. " +
                "Workers go on without it, and so does the cooling. If it stays away:",
            h("p", {}, h("code", {}, START), " starts it, ", h("code", {}, "gpuwarden status"), " says why it is down."),
            button("Start the service", { type: "start-service" }),
        );
    }
    if (link === "denied") {
        return notice(
            "bad",
            TROUBLE.denied,
            isAdministrator
                ? "The system bus refuses it, administrator or not. Its policy is in " +
                  "/usr/share/dbus-1/system.d/org.gpuwarden1.conf; gpuwarden doctor looks into it."
                : "It takes administrative access (the button above, in Cockpit's own bar), or " +
                  "membership in the group gpuwarden:",
            !isAdministrator && h("p", {}, h("code", {}, `adduser ${user || "NAME"} gpuwarden`), ", then log in again."),
        );
    }
    if (link === "failed") {
        return notice(
            "bad",
            TROUBLE.failed,
            `${problem}. It is asked again every few seconds; the journal below may say more.`,
        );
    }
    return link === "asking" && h("p", {}, "Asking the service …");
}

function told({ kind, text }) {
    return h(
        "div",
        { class: `notice ${kind}`, key: "told" },
        h("p", {}, badge(kind, text)),
        button("Close this message", { type: "notice-seen" }),
    );
}
